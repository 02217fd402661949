package agents

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"golang.org/x/sync/errgroup"

	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/agents/journal"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// Agent is a whole agent: one Runner per broker, the exporter, and the link to
// the console. cmd/signalbox-agent runs one as a program; signalbox demo runs
// one in its own process.
type Agent struct {
	cfg     Config
	version string
	log     *slog.Logger
	self    controlbus.Agent // what never changes
	link    *link.Client
	// credential is what the console is shown.
	credential *credential
	export     *export.Exporter
	runners    []*Runner
	changed    chan struct{}
	journal    *journal.Journal
	commands   *link.Executor
	acts       Commands // nil: the program that embeds the agent brought handlers, or none
	handlers   map[controlbus.CommandKind]link.Handler
	linked     atomic.Bool // reports go over the connection, and not by themselves

	mu       sync.Mutex
	heard    time.Time // when the console last answered
	revision int64
}

// New makes an agent and opens its data directory; Run must be called to give
// that back.
func New(cfg Config, version string, log *slog.Logger) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("agents: %w: %w", controlbus.ErrInvalid, err)
	}
	host, _ := os.Hostname() // an empty name is shown as such
	a := &Agent{
		cfg: cfg, version: version, log: log, changed: make(chan struct{}, 1), heard: time.Now(),
		self: controlbus.Agent{
			ID: cfg.Agent.ID, Incarnation: strings.ToLower(rand.Text()[:12]), Version: version, Host: host,
			Env: cfg.Agent.Env, StartedAt: time.Now(),
		},
	}
	var err error
	if a.credential, err = newCredential(cfg, log.With("component", "credential")); err != nil {
		return nil, err
	}
	if a.link, err = link.NewClient(link.ClientConfig{URL: cfg.Console.URL, HTTP: a.credential.client(10 * time.Second)}); err != nil {
		return nil, err
	}
	identity := Identity{Agent: a.self.ID, Incarnation: a.self.Incarnation}
	adapters := make([]Adapter, len(cfg.Brokers))
	for i, b := range cfg.Brokers {
		if adapters[i], err = b.New(identity, log.With("component", "adapter", "broker", b.Name)); err != nil {
			return nil, fmt.Errorf("agents: broker %q: %w", b.Name, err)
		}
	}
	a.export, err = export.New(export.Options{
		Config: cfg.Export, Redaction: cfg.Redaction, Dir: cfg.Agent.DataDir, URL: cfg.Console.URL,
		Agent: a.self.ID, Env: a.self.Env, Host: host, Version: version, Log: log.With("component", "export"),
		HTTP: a.credential.client(0), // each attempt has its own deadline
	})
	if err != nil {
		return nil, err
	}
	for i, b := range cfg.Brokers {
		a.runners = append(a.runners, NewRunner(RunnerConfig{
			Name: b.Name, Env: cfg.Agent.Env, Identity: identity,
			ObserveInterval: cmp.Or(b.ObserveInterval, DefaultObserveInterval), Taps: b.Taps,
			Changed: a.notify,
		}, adapters[i], a.export, log.With("component", "runner", "broker", b.Name)))
	}
	if cfg.Commands.New != nil {
		if a.acts, err = cfg.Commands.New(a.commandEnv()); err != nil {
			return nil, errors.Join(fmt.Errorf("agents: commands: %w", err), a.export.Close())
		}
	}
	a.handlers = handlers(cfg.Commands, a.acts)
	if a.journal, a.commands, err = openCommands(cfg, a.acts, a.handlers, log.With("component", "commands")); err != nil {
		return nil, errors.Join(err, a.export.Close())
	}
	return a, nil
}

// commandEnv is the agent as its commands see it.
func (a *Agent) commandEnv() CommandEnv {
	env := CommandEnv{
		Self: a.self, Dir: a.cfg.Agent.DataDir, Allow: a.cfg.Commands.Allow, Archive: a.cfg.Commands.Archive, HTTPAllow: a.cfg.Commands.HTTPAllow,
		Redaction: a.cfg.Redaction, Logs: a.export.Logs, Console: a.link, Changed: a.notify, Log: a.log.With("component", "commands"),
	}
	byName := map[string]*Runner{}
	for _, r := range a.runners {
		env.Brokers = append(env.Brokers, r.Name())
		byName[r.Name()] = r
	}
	env.Broker = func(name string) (Adapter, bool) {
		r, ok := byName[name]
		if !ok {
			return nil, false
		}
		return r.adapter, true
	}
	env.Lost = func(name string) {
		if r, ok := byName[name]; ok {
			r.Check()
		}
	}
	return env
}

// Run runs the agent until ctx ends, and stops it in order: taps first, so
// that nothing is left on the brokers; then what they delivered is written to
// the spool and sent as far as the grace allows.
func (a *Agent) Run(ctx context.Context) error {
	a.credential.first(ctx)
	exportCtx, stopExport := context.WithCancel(context.WithoutCancel(ctx))
	defer stopExport()
	exported := make(chan error, 1)
	go func() { exported <- a.export.Run(exportCtx) }()

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.credential.enrol(gctx) })
	for _, r := range a.runners {
		g.Go(func() error { return r.Run(gctx) })
	}
	g.Go(func() error { return a.measure(gctx) })
	g.Go(func() error { return a.report(gctx) })
	g.Go(func() error { return a.connect(gctx) })
	g.Go(func() error { return a.journal.Run(gctx) })
	if a.acts != nil {
		g.Go(func() error { return a.acts.Run(gctx) })
	}
	g.Go(func() error { <-gctx.Done(); a.commands.Stop(); return nil })
	err := g.Wait()
	stopExport()
	return errors.Join(err, <-exported, a.journal.Close())
}

// notify asks for a report soon.
func (a *Agent) notify() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// Report is what the agent says of itself.
func (a *Agent) Report() controlbus.Agent {
	r := a.self
	r.SentAt = time.Now()
	for _, run := range a.runners {
		b, taps := run.Status()
		b.Abilities = abilities(run.adapter, b.Name, a.self.ID, a.handlers, a.cfg.Commands.Allow)
		r.Brokers = append(r.Brokers, b)
		r.Taps = append(r.Taps, taps...)
	}
	if a.acts != nil {
		r.Detours = a.acts.Statuses()
	}
	r.Spool = a.export.Status()
	a.mu.Lock()
	defer a.mu.Unlock()
	r.Revision = a.revision
	return r
}

// report keeps the console informed, and the agent in the state it asks for,
// while there is no connection that does.
func (a *Agent) report(ctx context.Context) error {
	defer a.notify()
	// The first retry is spread over 10 s: a console that restarts loses all
	// its agents in the same instant.
	wait := backoff.Backoff{Base: 10 * time.Second, Cap: time.Minute}
	for {
		if a.linked.Load() { // reports travel there
			wait.Reset()
			a.loseConsole()
			if !a.pause(ctx, a.cfg.Console.ReportInterval, false) {
				return nil
			}
			continue
		}
		reqCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
		d, err := a.link.Report(reqCtx, a.Report())
		cancel()
		var pause time.Duration
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if wait.Failures() == 0 {
				a.log.WarnContext(ctx, "console cannot be reached", "error", err)
			}
			pause = wait.Next()
		default:
			if wait.Failures() > 0 {
				a.log.InfoContext(ctx, "console reached again", "failures", wait.Failures())
			}
			wait.Reset()
			a.apply(d)
			// A tenth of jitter keeps agents that started together apart.
			i := a.cfg.Console.ReportInterval
			pause = i - i/20 + mathrand.N(i/10+1)
		}
		a.loseConsole()
		if !a.pause(ctx, pause, err == nil) {
			return nil
		}
	}
}

// pause waits for d. While the console answers, a change shortens the wait to
// what keeps a burst of changes one report.
func (a *Agent) pause(ctx context.Context, d time.Duration, hurry bool) bool {
	changed := a.changed
	if !hurry {
		changed = nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-changed:
		return backoff.Sleep(ctx, min(d, 50*time.Millisecond))
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *Agent) apply(d controlbus.Desired) {
	a.mu.Lock()
	a.heard, a.revision = time.Now(), d.Revision
	a.mu.Unlock()
	for _, r := range a.runners {
		var mine []controlbus.TapSpec
		for _, t := range d.Taps {
			if t.Broker == r.Name() {
				t.Origin = "console"
				mine = append(mine, t)
			}
		}
		r.SetConsoleTaps(mine)
	}
}

// loseConsole ends what the console asked for when it has not been heard for a
// lease: nobody is left to look at it or to end it.
func (a *Agent) loseConsole() {
	a.mu.Lock()
	lost := time.Since(a.heard) > link.DefaultLease
	a.mu.Unlock()
	if lost {
		for _, r := range a.runners {
			r.SetConsoleTaps(nil)
		}
	}
}

// measure sends the agent's own metrics.
func (a *Agent) measure(ctx context.Context) error {
	tick := time.NewTicker(DefaultObserveInterval)
	defer tick.Stop()
	for {
		md := pmetric.NewMetrics()
		a.Measure(md)
		// A spool without room is reported in the agent's status.
		_ = a.export.Metrics(ctx, md)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Measure appends the agent's own metrics to md.
func (a *Agent) Measure(md pmetric.Metrics) {
	rm := md.ResourceMetrics().AppendEmpty()
	describe(rm.Resource(), a.self)
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("signalbox-agent")
	m := meter{sm.Metrics(), pcommon.NewTimestampFromTime(a.self.StartedAt), pcommon.NewTimestampFromTime(time.Now())}

	for _, r := range a.runners {
		var sum controlbus.Loss
		var blind time.Duration
		_, taps := r.Status()
		for _, t := range taps {
			sum.Received += t.Loss.Received
			sum.DroppedByAgent += t.Loss.DroppedByAgent
			sum.DroppedByBroker += max(t.Loss.DroppedByBroker, 0)
			blind += t.Loss.Blind
		}
		m.sum("signalbox_agent_received_total", sum.Received, controlbus.AttrBroker, r.Name())
		m.sum("signalbox_agent_dropped_total", sum.DroppedByAgent, controlbus.AttrBroker, r.Name(), "reason", "queue_full")
		m.sum("signalbox_agent_dropped_total", sum.DroppedByBroker, controlbus.AttrBroker, r.Name(), "reason", "broker")
		m.gauge("signalbox_agent_blind_seconds", blind.Seconds(), controlbus.AttrBroker, r.Name())
	}
	counts, latency := a.export.Counts()
	m.sum("signalbox_agent_exported_total", counts.Exported)
	m.sum("signalbox_agent_dropped_total", counts.DroppedAtStop, "reason", "spool_full_at_stop")
	m.sum("signalbox_agent_dropped_total", counts.Quarantined, "reason", "refused_by_collector")
	m.sum("signalbox_agent_dropped_total", counts.Rejected, "reason", "rejected_by_collector")
	m.sum("signalbox_agent_metric_points_dropped_total", counts.MetricsDropped)
	m.sum("signalbox_agent_command_records_dropped_total", counts.RecordsDropped)
	m.sum("signalbox_agent_export_requests_total", counts.Requests)
	m.sum("signalbox_agent_export_failures_total", counts.FailedRequests)
	m.gauge("signalbox_agent_export_latency_seconds", latency.Seconds())
	s := a.export.Status()
	m.gauge("signalbox_agent_spool_bytes", float64(s.Bytes))
	m.gauge("signalbox_agent_spool_records", float64(s.Records))
	if rss := residentBytes(); rss > 0 {
		m.gauge("signalbox_agent_resident_bytes", float64(rss))
	}
	m.gauge("signalbox_agent_goroutines", float64(runtime.NumGoroutine()))
}

// meter appends points; attributes come as pairs.
type meter struct {
	to         pmetric.MetricSlice
	start, now pcommon.Timestamp
}

func (m meter) sum(name string, v int64, attrs ...string) {
	i := m.to.AppendEmpty()
	i.SetName(name)
	s := i.SetEmptySum()
	s.SetIsMonotonic(true)
	s.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	dp := s.DataPoints().AppendEmpty()
	dp.SetIntValue(v)
	dp.SetStartTimestamp(m.start)
	m.finish(dp, attrs)
}

func (m meter) gauge(name string, v float64, attrs ...string) {
	i := m.to.AppendEmpty()
	i.SetName(name)
	dp := i.SetEmptyGauge().DataPoints().AppendEmpty()
	dp.SetDoubleValue(v)
	m.finish(dp, attrs)
}

func (m meter) finish(dp pmetric.NumberDataPoint, attrs []string) {
	dp.SetTimestamp(m.now)
	for pair := range slices.Chunk(attrs, 2) {
		dp.Attributes().PutStr(pair[0], pair[1])
	}
}

func describe(r pcommon.Resource, a controlbus.Agent) {
	for _, kv := range [][2]string{
		{controlbus.AttrServiceName, "signalbox-agent"}, {controlbus.AttrServiceInstance, a.ID},
		{controlbus.AttrServiceVersion, a.Version}, {controlbus.AttrHostName, a.Host}, {controlbus.AttrEnvironment, a.Env},
	} {
		if kv[1] != "" {
			r.Attributes().PutStr(kv[0], kv[1])
		}
	}
}

// residentBytes is the process's memory as the system counts it, 0 where the
// system does not say.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
