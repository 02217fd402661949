package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/signalbox-dev/signalbox/agents"
)

// load reads and checks the configuration file. A misspelt key is an error
// with its line.
func load(path string) (agents.Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return agents.Config{}, fmt.Errorf("configuration: %w", err)
	}
	cfg, err := parse(b)
	if err != nil {
		return agents.Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return cfg, nil
}

func parse(b []byte) (agents.Config, error) {
	cfg := agents.DefaultConfig()
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		return agents.Config{}, err
	}
	var errs []error
	for i := range cfg.Brokers {
		br := &cfg.Brokers[i]
		if br.Name == "" {
			br.Name = br.Type
		}
		build, ok := adapters[br.Type]
		if !ok {
			continue // Validate reports it under its key
		}
		make, err := build(br.Name, &br.Options)
		if err != nil {
			for _, line := range strings.Split(err.Error(), "\n") {
				errs = append(errs, fmt.Errorf("brokers[%d].options.%s", i, line))
			}
			make = func(agents.Identity, *slog.Logger) (agents.Adapter, error) { return nil, err }
		}
		br.New = make
	}
	errs = append(errs, cfg.Validate())
	return cfg, errors.Join(errs...)
}

// strict decodes an adapter's options. A yaml.Node does not remember that its
// decoder wanted known fields only, so the keys are checked here.
func strict(node *yaml.Node, to any) error {
	if node.IsZero() {
		return nil
	}
	if err := unknown(node, reflect.TypeOf(to).Elem()); err != nil {
		return err
	}
	return node.Decode(to)
}

// unknown reports keys that t has no field for.
func unknown(node *yaml.Node, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	var errs []error
	switch {
	case t.Kind() == reflect.Struct && node.Kind == yaml.MappingNode:
		fields := map[string]reflect.Type{}
		collect(t, fields)
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			if f, ok := fields[key.Value]; ok {
				errs = append(errs, unknown(node.Content[i+1], f))
			} else if key.Value != "<<" {
				errs = append(errs, fmt.Errorf("line %d: field %s not found", key.Line, key.Value))
			}
		}
	case t.Kind() == reflect.Slice && node.Kind == yaml.SequenceNode:
		for _, n := range node.Content {
			errs = append(errs, unknown(n, t.Elem()))
		}
	}
	return errors.Join(errs...)
}

func collect(t reflect.Type, fields map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case strings.Contains(options, "inline"):
			collect(f.Type, fields)
		case name == "-" || !f.IsExported():
		case name == "":
			fields[strings.ToLower(f.Name)] = f.Type
		default:
			fields[name] = f.Type
		}
	}
}
