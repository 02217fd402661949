package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

//go:embed openapi.yaml
var openapiYAML []byte

// document is openapi.yaml, read.
type document struct {
	json       []byte
	parameters map[string][]string // "GET /messages" to the names of its query parameters
	elsewhere  map[string]bool     // operations another package serves
}

// loadDocument reads the embedded description. What fails here is a mistake in
// the file.
func loadDocument() (*document, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(openapiYAML, &root); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	var b bytes.Buffer
	if err := writeNode(&b, &root); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	type parameter struct {
		Ref  string `yaml:"$ref"`
		Name string `yaml:"name"`
		In   string `yaml:"in"`
	}
	var spec struct {
		Paths map[string]map[string]struct {
			Parameters []parameter `yaml:"parameters"`
			Elsewhere  bool        `yaml:"x-served-elsewhere"`
		} `yaml:"paths"`
		Components struct {
			Parameters map[string]parameter `yaml:"parameters"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(openapiYAML, &spec); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	d := &document{json: b.Bytes(), parameters: map[string][]string{}, elsewhere: map[string]bool{}}
	for path, methods := range spec.Paths {
		for method, op := range methods {
			key := strings.ToUpper(method) + " " + path
			d.parameters[key] = []string{}
			d.elsewhere[key] = op.Elsewhere
			for _, p := range op.Parameters {
				if p.Ref != "" {
					name, _ := strings.CutPrefix(p.Ref, "#/components/parameters/")
					found, ok := spec.Components.Parameters[name]
					if !ok {
						return nil, fmt.Errorf("openapi.yaml: %s: no parameter %s", key, p.Ref)
					}
					p = found
				}
				if p.In == "query" {
					d.parameters[key] = append(d.parameters[key], p.Name)
				}
			}
		}
	}
	return d, nil
}

// methods are what a path of the document takes.
func (d *document) methods(path string) []string {
	var out []string
	for key := range d.parameters {
		method, pattern, _ := strings.Cut(key, " ")
		if samePath(pattern, path) {
			out = append(out, method)
		}
	}
	slices.Sort(out)
	return out
}

func samePath(pattern, path string) bool {
	want, have := strings.Split(pattern, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, have, func(w, h string) bool { return w == h || strings.HasPrefix(w, "{") && h != "" })
}

// writeNode writes YAML as JSON, in the order of the file.
func writeNode(b *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.DocumentNode:
		return writeNode(b, n.Content[0])
	case yaml.AliasNode:
		return writeNode(b, n.Alias)
	case yaml.MappingNode, yaml.SequenceNode:
		open, end, step := byte('{'), byte('}'), 2
		if n.Kind == yaml.SequenceNode {
			open, end, step = '[', ']', 1
		}
		b.WriteByte(open)
		for i := 0; i < len(n.Content); i += step {
			if i > 0 {
				b.WriteByte(',')
			}
			if step == 2 {
				if n.Content[i].Tag == "!!merge" { // <<: *properties
					var part bytes.Buffer
					if err := writeNode(&part, n.Content[i+1]); err != nil {
						return err
					}
					b.Write(part.Bytes()[1 : part.Len()-1])
					continue
				}
				if err := writeJSON(b, n.Content[i].Value); err != nil {
					return err
				}
				b.WriteByte(':')
			}
			if err := writeNode(b, n.Content[i+step-1]); err != nil {
				return err
			}
		}
		b.WriteByte(end)
		return nil
	}
	if n.Tag == "!!timestamp" { // an example, meant as text
		return writeJSON(b, n.Value)
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	return writeJSON(b, v)
}

func writeJSON(b *bytes.Buffer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b.Write(text)
	return nil
}

func (d *document) serveJSON(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(d.json) // a reader that went away is not our error
	return nil
}

func (d *document) serveYAML(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openapiYAML)
	return nil
}
