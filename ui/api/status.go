package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Version is the program.
type Version struct {
	Version string    `json:"version"`
	API     string    `json:"api"`
	Now     Timestamp `json:"now"`
}

func (a *API) version(w http.ResponseWriter, _ *http.Request) error {
	return write(w, http.StatusOK, Version{a.deps.Version, "v1", at(a.deps.Now())})
}

// Whoami is who asks.
type Whoami struct {
	Name   string  `json:"name"`
	Kind   string  `json:"kind"`
	Grants []Grant `json:"grants"`
	// Actions are what it may do somewhere.
	Actions []string `json:"actions"`
}

// Grant is a role, maybe for a part of what there is.
type Grant struct {
	Role    string `json:"role"`
	Env     string `json:"env,omitempty"`
	Channel string `json:"channel,omitempty"`
}

func (a *API) whoami(w http.ResponseWriter, r *http.Request) error {
	id, ok := access.From(r.Context())
	if !ok {
		return access.ErrUnauthenticated
	}
	out := Whoami{Name: id.Name, Kind: string(id.Kind), Grants: []Grant{}, Actions: []string{}}
	for _, a := range access.Actions() {
		if a != access.Public && a != access.Self && id.Somewhere(a) {
			out.Actions = append(out.Actions, string(a))
		}
	}
	for _, g := range id.Grants {
		out.Grants = append(out.Grants, Grant{string(g.Role), g.Env, g.Channel})
	}
	return write(w, http.StatusOK, out)
}

// Environments are the environments with data.
type Environments struct {
	Environments []Environment `json:"environments"`
}

// Environment is one, with the level its colour shows.
type Environment struct {
	Name  string `json:"name"`
	Level string `json:"level"`
}

func (a *API) environments(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	within := p.within("168h")
	if p.err != nil {
		return p.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	names, err := a.deps.Store.Environments(ctx, within)
	if err != nil {
		return fmt.Errorf("list environments: %w", err)
	}
	out := Environments{Environments: []Environment{}}
	for _, n := range names {
		out.Environments = append(out.Environments, Environment{n, page.Level(n)})
	}
	return write(w, http.StatusOK, out)
}

// Overview is the situation.
type Overview struct {
	From          Timestamp `json:"from"`
	To            Timestamp `json:"to"`
	Messages      uint64    `json:"messages"`
	Failed        uint64    `json:"failed"`
	Bytes         uint64    `json:"bytes"`
	Channels      uint64    `json:"channels"`
	Spans         uint64    `json:"spans"`
	Logs          uint64    `json:"logs"`
	Invalid       uint64    `json:"invalid"`
	OldestMessage Timestamp `json:"oldest_message,omitzero"`
	NewestLog     Timestamp `json:"newest_log,omitzero"`
	AgentsOnline  int       `json:"agents_online"`
	AgentsSilent  int       `json:"agents_silent"`
	Rate          []Point   `json:"rate"`
	FailedRate    []Point   `json:"failed_rate"`
	Troubles      []Trouble `json:"troubles"`
}

// Trouble is something wrong within the console.
type Trouble struct {
	Title   string    `json:"title"`
	Detail  string    `json:"detail"`
	Since   Timestamp `json:"since,omitzero"`
	Stopped bool      `json:"stopped"`
}

func (a *API) troubles() []Trouble {
	out := []Trouble{}
	if a.deps.Health == nil {
		return out
	}
	for _, t := range a.deps.Health.Troubles() {
		out = append(out, Trouble{t.Title, t.Detail, at(t.Since), t.Stop})
	}
	return out
}

func (a *API) overview(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	within, env := p.within("1h"), p.text("env")
	if p.err != nil {
		return p.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	t, err := a.deps.Store.Totals(ctx, env, within)
	if err != nil {
		return fmt.Errorf("read totals: %w", err)
	}
	out := Overview{
		From: at(within.From), To: at(within.To), Messages: t.Messages, Failed: t.Failed, Bytes: t.Bytes, Channels: t.Channels, Spans: t.Spans, Logs: t.Logs, Invalid: t.Invalid,
		OldestMessage: at(t.OldestMessage), NewestLog: at(t.NewestLog), Rate: points(t.Rate), FailedRate: points(t.FailedRate), Troubles: a.troubles(),
	}
	if a.deps.Fleet != nil {
		for _, v := range a.deps.Fleet.Agents(ctx) {
			switch {
			case env != "" && v.Env != env:
			case v.Presence == controlbus.Online:
				out.AgentsOnline++
			default:
				out.AgentsSilent++
			}
		}
	}
	return write(w, http.StatusOK, out)
}

// Health says whether the console itself works.
type Health struct {
	Status   string    `json:"status"`
	Troubles []Trouble `json:"troubles"`
}

// health asks the store too: troubles are what parts noticed by themselves.
func (a *API) health(w http.ResponseWriter, r *http.Request) error {
	out := Health{Status: "ok", Troubles: a.troubles()}
	for _, t := range out.Troubles {
		switch {
		case t.Stopped:
			out.Status = "down"
		case out.Status == "ok":
			out.Status = "degraded"
		}
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	now := a.deps.Now()
	if _, err := a.deps.Store.Environments(ctx, storage.Last(time.Minute, now)); err != nil {
		out.Status = "down"
		out.Troubles = append(out.Troubles, Trouble{Title: "The store does not answer", Detail: err.Error(), Stopped: true})
	}
	status := http.StatusOK
	if out.Status == "down" {
		status = http.StatusServiceUnavailable
	}
	return write(w, status, out)
}

// StoreTables is what the store holds.
type StoreTables struct {
	Bytes  uint64  `json:"bytes"`
	Rows   uint64  `json:"rows"`
	Tables []Table `json:"tables"`
}

// Table is one table of the store.
type Table struct {
	Name       string    `json:"name"`
	Rows       uint64    `json:"rows"`
	Bytes      uint64    `json:"bytes"`
	Parts      uint64    `json:"parts"`
	Partitions uint64    `json:"partitions"`
	Oldest     Timestamp `json:"oldest,omitzero"`
}

func (a *API) store(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := a.bound(r)
	defer cancel()
	tables, err := a.deps.Store.Tables(ctx)
	if err != nil {
		return fmt.Errorf("read tables: %w", err)
	}
	out := StoreTables{Tables: make([]Table, 0, len(tables))}
	for _, t := range tables {
		out.Bytes += t.Bytes
		out.Rows += t.Rows
		out.Tables = append(out.Tables, Table{t.Name, t.Rows, t.Bytes, t.Parts, t.Partitions, at(t.Oldest)})
	}
	return write(w, http.StatusOK, out)
}
