package agents

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
)

// Deadlines and intervals of a Runner.
const (
	connectTimeout = 30 * time.Second
	callTimeout    = 30 * time.Second // Observe, Channels, PlanTap
	readyTimeout   = 30 * time.Second // from Tap to ready
	closeTimeout   = 5 * time.Second
	expandEvery    = 30 * time.Second // patterns are looked up again
	refusedRetry   = 5 * time.Minute  // a refused plan is made again
	steady         = 30 * time.Second // a tap that ran this long starts its back-off anew
	maxBackoff     = time.Minute
	maxTapped      = 1000 // channels of one broker
)

// RunnerConfig is one broker as its Runner needs it.
type RunnerConfig struct {
	Name            string
	Env             string
	Identity        Identity
	ObserveInterval time.Duration
	Taps            []controlbus.TapSpec // of the configuration
	Changed         func()               // called when Status has news; must not block
}

// Runner drives one adapter: it connects it, observes the broker, and holds
// the taps that configuration and console want.
//
//	     ┌──────────── back-off ◀────────── failed / ErrNotConnected
//	     ▼                                          │
//	Connect ──▶ session: observe every interval ────┤
//	            reconcile taps: plan ─▶ start ─▶ run┘
type Runner struct {
	cfg     RunnerConfig
	adapter Adapter
	export  *export.Exporter
	log     *slog.Logger
	kick    chan struct{}
	check   chan struct{} // observe now

	mu      sync.Mutex
	status  controlbus.BrokerStatus
	console []controlbus.TapSpec
	taps    map[string]*tap                 // by channel
	found   map[string][]string             // channels of each pattern, as last listed
	idle    map[string]controlbus.TapStatus // specs that tap nothing now, by ID
}

// NewRunner returns a runner for the adapter; Run starts it.
func NewRunner(cfg RunnerConfig, a Adapter, x *export.Exporter, log *slog.Logger) *Runner {
	if cfg.ObserveInterval <= 0 {
		cfg.ObserveInterval = DefaultObserveInterval
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	taps := slices.Clone(cfg.Taps)
	for i := range taps {
		taps[i].Broker, taps[i].Origin = cfg.Name, "config"
		taps[i].ID = cmp.Or(taps[i].ID, "config:"+cfg.Name+"/"+taps[i].Channel)
	}
	cfg.Taps = taps
	capabilities := []string{"observe"}
	if _, ok := a.(Tapper); ok {
		capabilities = append(capabilities, "tap")
	}
	return &Runner{
		cfg: cfg, adapter: a, export: x, log: log, kick: make(chan struct{}, 1), check: make(chan struct{}, 1),
		status: controlbus.BrokerStatus{Name: cfg.Name, System: a.System(), Since: time.Now(), Capabilities: capabilities},
		taps:   map[string]*tap{}, found: map[string][]string{}, idle: map[string]controlbus.TapStatus{},
	}
}

// Name is the broker's configured name.
func (r *Runner) Name() string { return r.cfg.Name }

// Check observes the broker now: somebody was told that its connection is gone,
// and a session that learns it too connects again.
func (r *Runner) Check() {
	select {
	case r.check <- struct{}{}:
	default:
	}
}

// SetConsoleTaps replaces the taps the console wants.
func (r *Runner) SetConsoleTaps(specs []controlbus.TapSpec) {
	r.mu.Lock()
	same := slices.Equal(r.console, specs)
	r.console = slices.Clone(specs)
	r.mu.Unlock()
	if same {
		return
	}
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Status is the broker and its taps as they stand.
func (r *Runner) Status() (controlbus.BrokerStatus, []controlbus.TapStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []controlbus.TapStatus
	for _, t := range r.taps {
		s := t.snapshot()
		out = append(out, s)
		for _, spec := range t.sharing {
			shared := s
			shared.Spec = spec
			shared.Notes = append(slices.Clone(s.Notes), "shares the copy of tap "+s.Spec.ID)
			out = append(out, shared)
		}
	}
	out = slices.AppendSeq(out, maps.Values(r.idle))
	slices.SortFunc(out, func(a, b controlbus.TapStatus) int {
		return cmp.Or(cmp.Compare(a.Channel, b.Channel), cmp.Compare(a.Spec.ID, b.Spec.ID))
	})
	return r.status, out
}

// Run connects and runs sessions until ctx ends, and then closes the adapter.
func (r *Runner) Run(ctx context.Context) error {
	wait := backoff.Backoff{Base: time.Second, Cap: maxBackoff}
	for ctx.Err() == nil {
		err := r.connect(ctx)
		if err == nil {
			began := time.Now()
			err = r.session(ctx)
			if time.Since(began) >= steady {
				wait.Reset()
			}
		}
		if ctx.Err() != nil {
			break
		}
		if r.setConnected(false, err) {
			r.log.WarnContext(ctx, "broker cannot be reached", "error", err)
		}
		r.reportDown(ctx)
		if !backoff.Sleep(ctx, wait.Next()) {
			break
		}
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	err := r.adapter.Close(closing)
	r.mu.Lock()
	taps := r.taps
	r.taps = map[string]*tap{}
	r.mu.Unlock()
	for _, t := range taps {
		t.queue.Close(false) // the position is kept for the next start
	}
	if err != nil {
		return fmt.Errorf("agents: close %s: %w", r.cfg.Name, err)
	}
	return nil
}

func (r *Runner) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	p, err := r.adapter.Connect(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.status.Product = p.String()
	r.mu.Unlock()
	r.setConnected(true, nil)
	r.log.InfoContext(ctx, "broker connected", "product", p.String())
	if s, ok := r.adapter.(Sweeper); ok {
		left, err := s.Leftovers(ctx)
		if err != nil {
			r.log.WarnContext(ctx, "leftovers cannot be listed", "error", err)
		}
		r.mu.Lock()
		r.status.Leftovers = left
		r.mu.Unlock()
	}
	return nil
}

// setConnected says whether that is news.
func (r *Runner) setConnected(up bool, err error) bool {
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.mu.Lock()
	news := r.status.Connected != up || r.status.Error != text
	if r.status.Connected != up {
		r.status.Since = time.Now()
	}
	r.status.Connected, r.status.Error = up, text
	r.mu.Unlock()
	if news {
		r.cfg.Changed()
	}
	return news
}

// session lasts as long as the connection. It returns when nothing that it
// started runs any more.
func (r *Runner) session(parent context.Context) error {
	ctx, lose := context.WithCancelCause(parent)
	defer lose(nil)
	var wg sync.WaitGroup
	wg.Go(func() { r.observe(ctx, lose) })
	if tapper, ok := r.adapter.(Tapper); ok {
		wg.Go(func() { r.reconcile(ctx, tapper, lose) })
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (r *Runner) observe(ctx context.Context, lose context.CancelCauseFunc) {
	tick := time.NewTicker(r.cfg.ObserveInterval)
	defer tick.Stop()
	for {
		md := pmetric.NewMetrics()
		err := r.observeOnce(ctx, md)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrNotConnected):
			lose(err)
			return
		}
		if r.setConnected(true, err) && err != nil {
			r.log.WarnContext(ctx, "broker cannot be observed", "error", err)
		}
		if err := r.export.Metrics(ctx, md); err != nil {
			r.log.DebugContext(ctx, "observation dropped", "error", err) // counted by the exporter
		}
		select {
		case <-tick.C:
		case <-r.check:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Runner) observeOnce(ctx context.Context, md pmetric.Metrics) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := r.adapter.Observe(ctx, md)
	r.up(md, 1)
	for _, rm := range md.ResourceMetrics().All() {
		rm.Resource().Attributes().PutStr(controlbus.AttrEnvironment, r.cfg.Env)
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				r.name(m)
			}
		}
	}
	return err
}

// name puts the configured broker name, which adapters do not know, on every
// data point.
func (r *Runner) name(m pmetric.Metric) {
	var dps pmetric.NumberDataPointSlice
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		dps = m.Gauge().DataPoints()
	case pmetric.MetricTypeSum:
		dps = m.Sum().DataPoints()
	default:
		return
	}
	for _, dp := range dps.All() {
		dp.Attributes().PutStr(controlbus.AttrBroker, r.cfg.Name)
	}
}

// up appends the one metric that is the Runner's own.
func (r *Runner) up(md pmetric.Metrics, v int64) {
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr(controlbus.AttrEnvironment, r.cfg.Env)
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(controlbus.MetricBrokerUp)
	dp := m.SetEmptyGauge().DataPoints().AppendEmpty()
	dp.SetIntValue(v)
	dp.SetTimestamp(pcommon.NewTimestampFromTime(time.Now()))
	dp.Attributes().PutStr(controlbus.AttrSystem, r.adapter.System())
	dp.Attributes().PutStr(controlbus.AttrBroker, r.cfg.Name)
}

func (r *Runner) reportDown(ctx context.Context) {
	md := pmetric.NewMetrics()
	r.up(md, 0)
	_ = r.export.Metrics(ctx, md) // counted by the exporter
}

// reconcile keeps the running taps equal to the wanted ones until ctx ends;
// then it stops them all.
func (r *Runner) reconcile(ctx context.Context, tapper Tapper, lose context.CancelCauseFunc) {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[*tap]context.CancelFunc{}
	ended := map[*tap]chan struct{}{}
	expand := time.Time{} // when patterns are due again
	for {
		now := time.Now()
		look := !now.Before(expand)
		if look {
			expand = now.Add(expandEvery)
		}
		want, next, err := r.wanted(ctx, tapper, look)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, ErrNotConnected) {
			lose(err)
			return
		}
		start, stop := r.plan(want)
		for _, t := range stop {
			if cancel := running[t]; cancel != nil {
				cancel()
				<-ended[t]
				delete(running, t)
				delete(ended, t)
			}
			t.queue.Close(true)
		}
		for _, t := range start {
			if running[t] != nil {
				continue
			}
			tctx, cancel := context.WithCancel(ctx)
			done := make(chan struct{})
			running[t], ended[t] = cancel, done
			wg.Go(func() {
				defer close(done)
				defer cancel()
				if err := t.run(tctx, tapper); errors.Is(err, ErrNotConnected) {
					lose(err)
				}
			})
		}
		if len(stop) > 0 {
			r.cfg.Changed()
		}
		t := time.NewTimer(max(min(time.Until(expand), next), time.Millisecond))
		select {
		case <-r.kick:
			expand = time.Time{} // a new pattern wants its channels now
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

// wanted is the desired set: for each channel the specs that ask for it, those
// of the configuration first. next is when the earliest lease ends.
func (r *Runner) wanted(ctx context.Context, tapper Tapper, look bool) (map[string][]controlbus.TapSpec, time.Duration, error) {
	r.mu.Lock()
	specs := slices.Concat(r.cfg.Taps, r.console)
	found := maps.Clone(r.found)
	r.mu.Unlock()

	now := time.Now()
	next := expandEvery
	want := map[string][]controlbus.TapSpec{}
	idle := map[string]controlbus.TapStatus{}
	var lost error
	for _, s := range specs {
		if !s.Until.IsZero() {
			left := s.Until.Sub(now)
			if left <= 0 {
				idle[s.ID] = controlbus.TapStatus{Spec: s, Channel: s.Channel, State: controlbus.TapEnded, Since: s.Until}
				continue
			}
			next = min(next, left)
		}
		channels := []string{s.Channel}
		if strings.Contains(s.Channel, "*") {
			if look {
				list, err := r.channels(ctx, tapper, s.Channel)
				switch {
				case errors.Is(err, ErrNotConnected):
					lost = err
				case err != nil && ctx.Err() == nil:
					// What was found before is still tapped.
					r.log.WarnContext(ctx, "channels cannot be listed", "pattern", s.Channel, "error", err)
					idle[s.ID] = controlbus.TapStatus{Spec: s, Channel: s.Channel, State: controlbus.TapBroken, Since: now, Error: err.Error()}
				case err == nil:
					found[s.Channel] = list
				}
			}
			channels = found[s.Channel]
			if _, failed := idle[s.ID]; len(channels) == 0 && !failed {
				idle[s.ID] = controlbus.TapStatus{Spec: s, Channel: s.Channel, State: controlbus.TapStarting, Since: now, Notes: []string{"no channel matches the pattern yet"}}
			}
		}
		for _, c := range channels {
			if want[c] == nil && len(want) >= maxTapped {
				idle[s.ID] = controlbus.TapStatus{Spec: s, Channel: s.Channel, State: controlbus.TapRefused, Since: now, Error: fmt.Sprintf("over %d channels of one broker would be tapped", maxTapped)}
				break
			}
			want[c] = append(want[c], s)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, s := range idle {
		if old, ok := r.idle[id]; ok && old.State == s.State {
			s.Since = old.Since
			idle[id] = s
		}
	}
	r.idle, r.found = idle, found
	return want, next, lost
}

func (r *Runner) channels(ctx context.Context, tapper Tapper, pattern string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return tapper.Channels(ctx, pattern)
}

// plan makes the taps map equal to what is wanted. It returns every wanted tap
// and those to be ended.
func (r *Runner) plan(want map[string][]controlbus.TapSpec) (start, stop []*tap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for channel, t := range r.taps {
		if want[channel] == nil {
			stop = append(stop, t)
			delete(r.taps, channel)
		}
	}
	for channel, specs := range want {
		t := r.taps[channel]
		if t == nil {
			t = newTap(r, channel)
			r.taps[channel] = t
		}
		t.setSpecs(specs)
		start = append(start, t)
	}
	return start, stop
}
