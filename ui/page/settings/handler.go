// Package settings is the page of choices: how the console looks to a reader,
// and, for who may see it, what it runs with.
package settings

import (
	"cmp"
	"context"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Setting is one key of the effective configuration. Values hold no secrets:
// whoever makes them has masked those.
type Setting struct {
	Key, Value string
	Default    string
	Changed    bool // Value is not Default
}

// Effective is what the console runs with.
type Effective struct {
	File     string // of the configuration; empty: none
	Settings []Setting
	Store    string // "ClickHouse 26.7, embedded; state in SQLite 3.51"
	Started  time.Time
}

// Lister lists the fleet. It does not block.
type Lister interface {
	Agents(ctx context.Context) []controlbus.AgentView
}

// Link is another page of settings.
type Link struct {
	Label, Text, URL string
	Action           access.Action // who may
}

// Deps are what the page needs.
type Deps struct {
	Effective func() Effective // nil: not told
	Agents    Lister           // nil: no fleet
	Links     func() []Link    // pages that are mounted
}

// Pages is the page.
type Pages struct {
	site *page.Site
	deps Deps
}

// New returns the page.
func New(site *page.Site, d Deps) *Pages { return &Pages{site, d} }

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	return []page.Route{{Pattern: "GET /settings", Handler: p.show, Action: access.Self}}
}

type view struct {
	Here                 string
	Theme, Density, Zone string
	Named                bool // a zone was chosen by its name
	ZoneNow              string
	Now                  time.Time
	Zones                []string
	Envs                 []envRow
	Links                []Link
	Settings             []Setting
	Changed              int
	File                 string
	MaySee               bool
	Known                bool
	About                []component.Pair
	Started              time.Time
}

type envRow struct {
	Name, Level, Pattern, URL, Agents string
}

// patterns are how the stripe of each level looks, for who cannot tell the
// colours apart.
var patterns = map[string]string{"production": "plum, solid", "staging": "ochre, hatched", "test": "teal, dotted", "development": "slate, dashed"}

// commonZones are offered while typing; any name that the system knows is taken.
var commonZones = []string{
	"Africa/Cairo", "Africa/Johannesburg", "Africa/Lagos", "America/Chicago", "America/Denver", "America/Los_Angeles", "America/Mexico_City", "America/New_York", "America/Sao_Paulo", "America/Toronto",
	"Asia/Dubai", "Asia/Hong_Kong", "Asia/Jakarta", "Asia/Kolkata", "Asia/Seoul", "Asia/Shanghai", "Asia/Singapore", "Asia/Tokyo", "Australia/Sydney",
	"Europe/Amsterdam", "Europe/Berlin", "Europe/Dublin", "Europe/Helsinki", "Europe/Istanbul", "Europe/Kyiv", "Europe/Lisbon", "Europe/London", "Europe/Madrid", "Europe/Paris", "Europe/Rome", "Europe/Stockholm", "Europe/Vienna", "Europe/Warsaw", "Europe/Zurich",
	"Pacific/Auckland",
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	o := page.Options{Title: "Settings", Area: "settings"}
	s := v.Shell(o)
	m := view{Here: s.Here, Theme: cmp.Or(s.Theme, "system"), Density: cmp.Or(s.Density, "normal"), Zone: s.Zone, Named: s.Zone != "" && s.Zone != "UTC", Zones: commonZones, Now: v.Now}
	m.ZoneNow = v.Now.In(v.Zone).Format("MST")
	if v.May(access.ViewMetadata) {
		m.environments(r.Context(), v, p.deps.Agents)
	}
	if p.deps.Links != nil {
		for _, l := range p.deps.Links() {
			if v.May(l.Action) {
				m.Links = append(m.Links, l)
			}
		}
	}
	m.MaySee = v.May(access.ManageSettings)
	m.About = []component.Pair{{Name: "Signalbox", Value: p.site.Version}}
	if p.deps.Effective != nil {
		e := p.deps.Effective()
		m.Known, m.Started = true, e.Started
		m.About = append(m.About, component.Pair{Name: "Store", Value: e.Store})
		if m.MaySee {
			m.File = e.File
			for _, set := range e.Settings {
				set.Key, set.Value, set.Default = component.Visible(set.Key), component.Visible(set.Value), component.Visible(set.Default)
				if set.Changed {
					m.Changed++
				}
				m.Settings = append(m.Settings, set)
			}
		}
	}
	built := runtime.Version()
	if info, ok := debug.ReadBuildInfo(); ok && len(info.Deps) > 0 {
		built += ", " + component.Plural(len(info.Deps), "module")
	}
	m.About = append(m.About,
		component.Pair{Name: "Built with", Value: built + ", for " + runtime.GOOS + "/" + runtime.GOARCH},
		component.Pair{Name: "Licence", Value: "Apache License 2.0"},
	)
	return v.Render(w, o, Settings(m))
}

func (m *view) environments(ctx context.Context, v *page.View, agents Lister) {
	counts := map[string]int{}
	names := slices.Clone(v.Envs)
	if agents != nil {
		for _, a := range agents.Agents(ctx) {
			counts[a.Env]++
			if !slices.Contains(names, a.Env) {
				names = append(names, a.Env)
			}
		}
	}
	for _, name := range names {
		level := page.Level(name)
		row := envRow{Name: component.Visible(name), Level: level, Pattern: patterns[level], URL: v.URL("/", "env", name), Agents: component.Count(counts[name])}
		if row.Name == "" {
			row.Name = "no name"
		}
		m.Envs = append(m.Envs, row)
	}
}

// section is the part of a key before its first dot, for the table's groups.
func section(key string) string {
	head, _, _ := strings.Cut(key, ".")
	return head
}
