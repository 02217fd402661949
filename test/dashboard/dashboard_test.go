package dashboard_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"

	"github.com/signalbox-dev/signalbox/test/dashboard"
)

const home = "../../deploy/grafana/"

func load(t *testing.T) []dashboard.Dashboard {
	t.Helper()
	all, err := dashboard.Load(home + "dashboards")
	if err != nil || len(all) < 2 {
		t.Fatalf("%d dashboards, %v", len(all), err)
	}
	return all
}

// known are the metrics that docs/metrics.md tells of, which is held to what is
// counted by a test of its own.
func known(t *testing.T) []string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile("`((?:signalbox|process|go|messaging)_[a-z0-9_]+)`").FindAllStringSubmatch(string(doc), -1) {
		names = append(names, m[1])
	}
	return names
}

func metricsOf(t *testing.T, expr string) []string {
	t.Helper()
	e, err := parser.ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", expr, err)
		return nil
	}
	var names []string
	for _, selector := range parser.ExtractSelectors(e) {
		for _, m := range selector {
			if m.Name == model.MetricNameLabel {
				names = append(names, strings.TrimSuffix(m.Value, "_bucket"))
			}
		}
	}
	return names
}

func TestExpressionsAskWhatIsMeasured(t *testing.T) {
	t.Parallel()
	names := known(t)
	n := 0
	for _, d := range load(t) {
		ask := func(where, expr string) {
			expanded := d.Expand(expr)
			if strings.Contains(expanded, "$") {
				t.Errorf("%s, %s: no such variable: %s", d.File, where, expanded)
			}
			for _, name := range metricsOf(t, expanded) {
				if !slices.Contains(names, name) {
					t.Errorf("%s, %s: %s is not a metric", d.File, where, name)
				}
			}
			n++
		}
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				ask(p.Title, target.Expr)
			}
		}
		for _, v := range d.Templating.List {
			if v.Type != "query" {
				continue
			}
			selector, _, ok := dashboard.LabelValues(v.Definition)
			if !ok {
				t.Errorf("%s: variable %s: %s", d.File, v.Name, v.Definition)
				continue
			}
			ask("variable "+v.Name, selector)
		}
	}
	if n < 60 {
		t.Errorf("only %d expressions", n)
	}
}

func TestPanelsLieSideBySide(t *testing.T) {
	t.Parallel()
	uids := map[string]bool{}
	for _, d := range load(t) {
		if d.UID == "" || uids[d.UID] || d.Title == "" {
			t.Errorf("%s: uid %q, title %q", d.File, d.UID, d.Title)
		}
		uids[d.UID] = true
		ids, taken := map[int]string{}, map[[2]int]string{}
		for _, p := range d.Panels {
			if other := ids[p.ID]; other != "" {
				t.Errorf("%s: %s and %s have one id", d.File, p.Title, other)
			}
			ids[p.ID] = p.Title
			g := p.GridPos
			if g.X < 0 || g.X+g.W > 24 || g.W < 1 || g.H < 1 {
				t.Errorf("%s: %s does not fit: %+v", d.File, p.Title, g)
			}
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" {
						t.Fatalf("%s: %s lies over %s", d.File, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("%s: %s asks nothing", d.File, p.Title)
			}
		}
	}
}

func TestProvisioningReads(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"provisioning/datasources/signalbox.yaml", "provisioning/dashboards/signalbox.yaml"} {
		text, err := os.ReadFile(home + file)
		if err != nil {
			t.Fatal(err)
		}
		var v struct {
			APIVersion  int `yaml:"apiVersion"`
			Datasources []struct{ Name, Type, URL string }
			Providers   []struct{ Name, Type string }
		}
		if err := yaml.Unmarshal(text, &v); err != nil || v.APIVersion != 1 || len(v.Datasources)+len(v.Providers) != 1 {
			t.Errorf("%s: %+v, %v", file, v, err)
		}
		for _, d := range v.Datasources {
			if d.Type != "prometheus" || !strings.HasSuffix(d.URL, "/prometheus") {
				t.Errorf("%s: %+v", file, d)
			}
		}
	}
}
