package main

import (
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/signalbox-dev/signalbox/ui/page/settings"
)

// effective lists what the console runs with beside the defaults. Secrets
// encode as ***, whatever encodes them.
func effective(cfg config) []settings.Setting {
	defaults := defaultConfig()
	defaults.DataDir = cfg.DataDir // places that only follow from it are no choice
	defaults.derive()
	byDefault := map[string]string{}
	for _, s := range flatten(defaults) {
		byDefault[s.Key] = s.Value
	}
	list := flatten(cfg)
	for i := range list {
		s := &list[i]
		s.Default = byDefault[s.Key]
		s.Changed = s.Value != s.Default
		if s.Key == "data_dir" {
			s.Default = defaultConfig().DataDir
			s.Changed = s.Value != s.Default
		}
	}
	return list
}

// flatten writes a configuration as keys with values, in the file's order.
func flatten(cfg config) []settings.Setting {
	var doc yaml.Node
	if err := doc.Encode(cfg); err != nil {
		return []settings.Setting{{Key: "configuration", Value: "cannot be shown: " + err.Error()}}
	}
	var list []settings.Setting
	var walk func(prefix string, n *yaml.Node)
	walk = func(prefix string, n *yaml.Node) {
		if n.Kind == yaml.MappingNode && len(n.Content) > 0 {
			for i := 0; i+1 < len(n.Content); i += 2 {
				walk(strings.TrimPrefix(prefix+"."+n.Content[i].Value, "."), n.Content[i+1])
			}
			return
		}
		value := n.Value
		if n.Kind != yaml.ScalarNode {
			out, err := yaml.Marshal(n)
			if err != nil {
				out = []byte(err.Error())
			}
			value = strings.Join(strings.Fields(string(out)), " ")
		}
		list = append(list, settings.Setting{Key: prefix, Value: value})
	}
	walk("", &doc)
	return list
}

// effective is what the settings page shows.
func (c *console) effective() settings.Effective {
	e := settings.Effective{File: c.file, Settings: effective(c.cfg), Started: c.started, Store: "ClickHouse " + c.store.Version()}
	if c.engine != nil {
		e.Store += ", embedded"
	}
	e.Store += "; state in " + c.state.Version()
	return e
}
