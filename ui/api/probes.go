package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/probe"
)

// Prober keeps and runs probes. It acts for the identity in ctx, says no where
// it may not, and returns the sentinels of controlbus.
type Prober interface {
	List(ctx context.Context) ([]probe.View, error)
	Get(ctx context.Context, id string) (probe.View, error)
	Runs(ctx context.Context, id, before string, limit int) ([]probe.Run, error)
	Save(ctx context.Context, p probe.Probe, typed string) (probe.Probe, error)
	Start(ctx context.Context, id string) error
	Pause(ctx context.Context, id string, paused bool) error
	Delete(ctx context.Context, id string) error
}

// ProbeSpec is what a probe sends, where, and when.
type ProbeSpec struct {
	Name        string            `json:"name"`
	In          ChannelRef        `json:"in"`
	Out         *ChannelRef       `json:"out,omitempty"`
	Every       Duration          `json:"every,omitzero"`
	Deadline    Duration          `json:"deadline,omitzero"`
	ContentType string            `json:"content_type,omitempty"`
	Body        string            `json:"body,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Key         string            `json:"key,omitempty"`
	Separate    bool              `json:"separate,omitempty"`
	Expect      string            `json:"expect,omitempty"`
	Paused      bool              `json:"paused,omitempty"`
}

// ProbeRequest saves a probe. Typed is the input channel's name, where its
// environment asks for that.
type ProbeRequest struct {
	ProbeSpec
	Typed string `json:"typed,omitempty"`
}

// Probe is one probe with a summary of its recent runs.
type Probe struct {
	ID string `json:"id"`
	ProbeSpec
	Owner     string    `json:"owner,omitempty"`
	CreatedAt Timestamp `json:"created_at"`
	Running   bool      `json:"running"`
	Next      Timestamp `json:"next,omitzero"`
	Runs      int       `json:"runs"`
	Passed    int       `json:"passed"`
	P50Ns     *string   `json:"p50_ns,omitempty"`
	P95Ns     *string   `json:"p95_ns,omitempty"`
	Last      *ProbeRun `json:"last,omitempty"`
}

// ProbeRun is one test message and what became of it.
type ProbeRun struct {
	ID         string    `json:"id"`
	At         Timestamp `json:"at"`
	Outcome    string    `json:"outcome"`
	LatencyNs  *string   `json:"latency_ns,omitempty"`
	Detail     string    `json:"detail,omitempty"`
	Command    string    `json:"command,omitempty"`
	SentUID    string    `json:"sent_uid,omitempty"`
	ArrivedUID string    `json:"arrived_uid,omitempty"`
}

// Probes is the list.
type Probes struct {
	Probes []Probe `json:"probes"`
}

// ProbeRuns is one page of a probe's history, newest first.
type ProbeRuns struct {
	Runs []ProbeRun `json:"runs"`
	Next string     `json:"next,omitempty"`
}

func probeRun(r *probe.Run) ProbeRun {
	return ProbeRun{
		ID: r.ID, At: at(r.At), Outcome: string(r.Outcome), LatencyNs: spanOf(r.Latency), Detail: r.Detail, Command: string(r.Command), SentUID: r.Sent, ArrivedUID: r.Arrived,
	}
}

func spanOf(d time.Duration) *string {
	if d <= 0 {
		return nil
	}
	text := fmt.Sprint(int64(d))
	return &text
}

func probeOf(v *probe.View) Probe {
	p := Probe{
		ID: v.ID, Owner: v.Owner.Name, CreatedAt: at(v.CreatedAt), Running: v.Running, Next: at(v.Next), Runs: v.Summary.Runs, Passed: v.Passed, P50Ns: spanOf(v.P50), P95Ns: spanOf(v.P95),
		ProbeSpec: ProbeSpec{
			Name: v.Name, In: *channelRef(&v.In), Every: Duration(v.Every), Deadline: Duration(v.Deadline), ContentType: v.ContentType, Body: v.Body,
			Headers: v.Headers, Key: v.Key, Separate: v.Separate, Expect: v.Expect, Paused: v.Paused,
		},
	}
	if v.Out.Name != "" {
		p.Out = channelRef(&v.Out)
	}
	if v.Last != nil {
		last := probeRun(v.Last)
		p.Last = &last
	}
	return p
}

// prober is the probes, or why there are none.
func (a *API) prober() (Prober, error) {
	if a.deps.Probes == nil {
		return nil, fmt.Errorf("this console has no probes: %w", controlbus.ErrNotFound)
	}
	return a.deps.Probes, nil
}

func (a *API) probes(w http.ResponseWriter, r *http.Request) error {
	p, err := a.prober()
	if err != nil {
		return err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	all, err := p.List(ctx)
	if err != nil {
		return fmt.Errorf("probes: %w", err)
	}
	env, out := r.URL.Query().Get("env"), Probes{Probes: []Probe{}}
	for i := range all {
		if env == "" || all[i].In.Env == env {
			out.Probes = append(out.Probes, probeOf(&all[i]))
		}
	}
	return write(w, http.StatusOK, out)
}

func (a *API) probe(w http.ResponseWriter, r *http.Request) error {
	p, err := a.prober()
	if err != nil {
		return err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	one, err := p.Get(ctx, r.PathValue("id"))
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	return write(w, http.StatusOK, probeOf(&one))
}

func (a *API) saveProbe(w http.ResponseWriter, r *http.Request) error {
	p, err := a.prober()
	if err != nil {
		return err
	}
	var q ProbeRequest
	if err := readBody(w, r, &q); err != nil {
		return err
	}
	pr := probe.Probe{
		ID: r.PathValue("id"), Name: q.Name, In: controlbus.ChannelName{Env: q.In.Env, System: q.In.System, Broker: q.In.Broker, Name: q.In.Channel},
		Every: time.Duration(q.Every), Deadline: time.Duration(q.Deadline), ContentType: q.ContentType, Body: q.Body, Headers: q.Headers, Key: q.Key,
		Separate: q.Separate, Expect: q.Expect, Paused: q.Paused,
	}
	if o := q.Out; o != nil {
		pr.Out = controlbus.ChannelName{Env: cmp.Or(o.Env, pr.In.Env), System: o.System, Broker: o.Broker, Name: o.Channel}
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	saved, err := p.Save(ctx, pr, q.Typed)
	if err != nil {
		return fmt.Errorf("save probe: %w", err)
	}
	one, err := p.Get(ctx, saved.ID)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	status := http.StatusOK
	if pr.ID == "" {
		status = http.StatusCreated
	}
	return write(w, status, probeOf(&one))
}

func (a *API) deleteProbe(w http.ResponseWriter, r *http.Request) error {
	p, err := a.prober()
	if err != nil {
		return err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	if err := p.Delete(ctx, r.PathValue("id")); err != nil {
		return fmt.Errorf("delete probe: %w", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// steerProbe answers what has no body: run, pause, continue.
func (a *API) steerProbe(do func(Prober, context.Context, string) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		p, err := a.prober()
		if err != nil {
			return err
		}
		ctx, cancel := a.bound(r)
		defer cancel()
		if err := do(p, ctx, r.PathValue("id")); err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
}

func (a *API) probeRuns(w http.ResponseWriter, r *http.Request) error {
	p, err := a.prober()
	if err != nil {
		return err
	}
	q := a.params(r)
	limit, before := q.number("limit", 100, 1, 1000), q.text("before")
	if q.err != nil {
		return q.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	runs, err := p.Runs(ctx, r.PathValue("id"), before, limit)
	if err != nil {
		return fmt.Errorf("probe runs: %w", err)
	}
	out := ProbeRuns{Runs: make([]ProbeRun, 0, len(runs))}
	for i := range runs {
		out.Runs = append(out.Runs, probeRun(&runs[i]))
	}
	if len(runs) == limit {
		out.Next = runs[len(runs)-1].ID
	}
	return write(w, http.StatusOK, out)
}

func (a *API) probeOperations() []operation {
	return []operation{
		{"GET", "/probes", access.ViewMetadata, a.probes},
		{"POST", "/probes", access.Operate, a.saveProbe},
		{"GET", "/probes/{id}", access.ViewMetadata, a.probe},
		{"PUT", "/probes/{id}", access.Operate, a.saveProbe},
		{"DELETE", "/probes/{id}", access.Operate, a.deleteProbe},
		{"GET", "/probes/{id}/runs", access.ViewMetadata, a.probeRuns},
		{"POST", "/probes/{id}/run", access.Operate, a.steerProbe(Prober.Start)},
		{"POST", "/probes/{id}/pause", access.Operate, a.steerProbe(func(p Prober, ctx context.Context, id string) error { return p.Pause(ctx, id, true) })},
		{"POST", "/probes/{id}/continue", access.Operate, a.steerProbe(func(p Prober, ctx context.Context, id string) error { return p.Pause(ctx, id, false) })},
	}
}
