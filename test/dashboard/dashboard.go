// Package dashboard reads Grafana dashboards as tests see them: which
// expressions their panels and variables ask.
package dashboard

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Dashboard is a file of deploy/grafana/dashboards.
type Dashboard struct {
	File       string
	Title      string
	UID        string `json:"uid"`
	Panels     []Panel
	Templating struct{ List []Variable }
}

// Panel is one panel.
type Panel struct {
	ID          int `json:"id"`
	Type, Title string
	GridPos     struct{ H, W, X, Y int }
	Targets     []Target
}

// Target is one expression of a panel.
type Target struct {
	Expr, RefID, LegendFormat string
	Instant, Range            bool
}

// Variable is one of the menus above the panels.
type Variable struct {
	Name, Type, Definition, AllValue string
	IncludeAll                       bool
	Current                          struct{ Value any }
}

// Load reads the dashboards of a directory.
func Load(dir string) ([]Dashboard, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []Dashboard
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		d := Dashboard{File: filepath.Base(f)}
		if err := json.Unmarshal(text, &d); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		all = append(all, d)
	}
	return all, nil
}

// Expand puts values for variables, as Grafana does: every menu at what it
// shows at first, and panels of an hour.
func (d Dashboard) Expand(expr string) string {
	values := map[string]string{"__rate_interval": "1m", "__interval": "15s", "__range": "1h"}
	for _, v := range d.Templating.List {
		switch value := v.Current.Value.(type) {
		case string:
			values[v.Name] = value
		default:
			values[v.Name] = v.AllValue
		}
	}
	return variable.ReplaceAllStringFunc(expr, func(s string) string {
		if v, ok := values[strings.Trim(s, "${}")]; ok {
			return v
		}
		return s
	})
}

var variable = regexp.MustCompile(`\$\{?[a-zA-Z_]+\}?`)

// LabelValues reads label_values(selector, label), the query of a variable.
func LabelValues(definition string) (selector, label string, ok bool) {
	m := labelValues.FindStringSubmatch(definition)
	if m == nil {
		return "", "", false
	}
	return strings.TrimSpace(m[1]), m[2], true
}

var labelValues = regexp.MustCompile(`^label_values\((.+),\s*([a-zA-Z_]+)\)$`)
