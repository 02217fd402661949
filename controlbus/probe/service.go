package probe

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// Sender puts a test message into a channel.
type Sender interface {
	// Send returns when the broker has confirmed the message, or it is known that
	// it will not. It acts as the identity in ctx. typed is the channel's name as
	// the person typed it.
	Send(ctx context.Context, in controlbus.ChannelName, args controlbus.TestArgs, reason, typed string) (Sent, error)
	// Consent is what the environment asks for before a test message goes out.
	Consent(env string) controlbus.ApprovalPolicy
}

// Sent is a message that the broker has taken.
type Sent struct {
	Command   controlbus.CommandID
	At        time.Time // agent's clock, when it was handed to the broker
	Confirmed time.Time // agent's clock
}

// ErrUnknown says that nobody knows whether the message was sent.
var ErrUnknown = errors.New("it is not known whether the message was sent")

// Taps makes sure that a channel is tapped.
type Taps interface {
	// Ensure returns when a tap on the channel runs, and keeps it until then.
	Ensure(ctx context.Context, ch controlbus.ChannelName, until time.Time, reason string) error
	// BrokerClockOffset is how far the clock beside a broker is ahead.
	BrokerClockOffset(broker string) time.Duration
}

// Deps are what a service needs.
type Deps struct {
	Store   Store
	Sender  Sender
	Taps    Taps
	Watcher *Watcher
	Log     *slog.Logger
	// Record puts what people do with probes into the audit trail.
	Record  func(ctx context.Context, e access.Event) error
	Metrics *metrics.Set     // nil: none
	Now     func() time.Time // nil: time.Now
}

// Service keeps probes and runs them. It is safe for concurrent use.
type Service struct {
	Deps
	wake chan struct{}

	mu      sync.Mutex
	next    map[string]time.Time // when each probe is due
	asked   map[string]bool      // to run now, by a person
	running map[string]bool
	changed chan struct{}
}

// most is how many runs are under way at once; later ones wait their turn.
const most = 16

// New returns a service. Run must be called for what is on a schedule.
func New(d Deps) *Service {
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Service{Deps: d, wake: make(chan struct{}, 1), next: map[string]time.Time{}, asked: map[string]bool{}, running: map[string]bool{}, changed: make(chan struct{})}
}

// Changed is closed at the next change of a probe or its runs.
func (s *Service) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *Service) tell() {
	s.mu.Lock()
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run carries out what is on a schedule until ctx ends, and waits for the runs
// it began.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, most)
	for {
		wait := s.begin(ctx, &wg, places)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.wake:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// begin starts the runs that are due and says when to look again.
func (s *Service) begin(ctx context.Context, wg *sync.WaitGroup, places chan struct{}) time.Duration {
	all, err := s.Store.Probes(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.ErrorContext(ctx, "probes cannot be read", "error", err)
		}
		return 10 * time.Second
	}
	now, wait := s.Now(), time.Minute
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[string]bool{}
	for _, p := range all {
		known[p.ID] = true
		asked := s.asked[p.ID]
		scheduled := p.Every > 0 && !p.Paused
		if !scheduled {
			delete(s.next, p.ID)
		}
		due, planned := s.next[p.ID]
		if scheduled && (!planned || due.Sub(now) > p.Every) {
			// Spread, so that a restart does not send all of them at once.
			due = now.Add(time.Second + mathrand.N(min(p.Every, 10*time.Second)))
			s.next[p.ID] = due
		}
		if !asked && (!scheduled || due.After(now)) {
			if scheduled {
				wait = min(wait, due.Sub(now))
			}
			continue
		}
		if s.running[p.ID] { // its end wakes us
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			wait = min(wait, 100*time.Millisecond)
			continue
		}
		if scheduled {
			s.next[p.ID] = now.Add(p.Every)
			wait = min(wait, p.Every)
		}
		delete(s.asked, p.ID)
		s.running[p.ID] = true
		wg.Go(func() {
			defer func() { <-places }()
			mine, err := true, error(nil)
			if !asked {
				// Consoles on one database share the schedule.
				mine, err = s.Store.TakeTurn(ctx, p.ID, now, now.Add(-p.Every*9/10))
			}
			if mine && err == nil {
				_, err = s.run(access.With(ctx, identity(p)), p, "probe "+p.Name, p.In.Name)
			}
			if err != nil && ctx.Err() == nil {
				s.Log.ErrorContext(ctx, "probe run not kept", "probe", p.Name, "error", err)
			}
			s.mu.Lock()
			delete(s.running, p.ID)
			s.mu.Unlock()
			s.tell()
		})
	}
	for id := range s.next {
		if !known[id] {
			delete(s.next, id)
		}
	}
	for id := range s.asked {
		if !known[id] {
			delete(s.asked, id)
		}
	}
	return max(wait, 10*time.Millisecond)
}

// identity is whom a scheduled run acts as: the probe, which may send into its
// channel and nothing else.
func identity(p Probe) access.Identity {
	return access.Identity{
		ID: "probe:" + p.ID, Name: "probe " + p.Name, Kind: access.KindSystem,
		Grants: []access.Grant{{Role: access.Operator, Env: p.In.Env, Channel: p.In.Name}},
	}
}

// Once runs a probe now, as the identity in ctx: one that is kept, or a single
// test message that nobody keeps, whose run is only returned.
func (s *Service) Once(ctx context.Context, p Probe, reason, typed string) (Run, error) {
	if err := p.Check(); err != nil {
		return Run{}, err
	}
	if err := may(ctx, access.Operate, p.In); err != nil {
		return Run{}, err
	}
	if p.Out.Name != "" {
		if err := may(ctx, access.RequestTap, p.Out); err != nil {
			return Run{}, err
		}
	}
	return s.run(ctx, p, cmp.Or(reason, "test message"), typed)
}

// run sends one message and waits for it. The error is of the store alone: what
// went wrong with the message is the run's outcome.
func (s *Service) run(ctx context.Context, p Probe, reason, typed string) (Run, error) {
	r := Run{ID: newRun(s.Now()), Probe: p.ID, At: s.Now().UTC()}
	s.carry(ctx, p, &r, reason, typed)
	s.count(p, r)
	if p.ID == "" {
		return r, nil
	}
	// A run that the stop of the console cut off is kept, too.
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return r, s.Store.AddRun(keep, r)
}

func (s *Service) carry(ctx context.Context, p Probe, r *Run, reason, typed string) {
	expect, err := filter.Parse(p.Expect, r.At)
	if err != nil {
		r.Outcome, r.Detail = Unsent, "expect: "+err.Error()
		return
	}
	if p.Out.Name != "" {
		tap, cancel := context.WithTimeout(ctx, 15*time.Second)
		err := s.Taps.Ensure(tap, p.Out, s.Now().Add(max(2*p.Every, p.Deadline+grace(p)+time.Minute)), reason)
		cancel()
		if err != nil {
			r.Outcome, r.Detail = Unsent, fmt.Sprintf("the output %s cannot be watched: %v", p.Out, err)
			return
		}
	}
	seen, stop := s.Watcher.Watch(r.ID, p.In, p.Out)
	defer stop()
	sent, err := s.Sender.Send(ctx, p.In, controlbus.TestArgs{
		Run: r.ID, ContentType: p.ContentType, Body: p.Body, Headers: p.Headers, Key: p.Key, Separate: p.Separate,
	}, reason, typed)
	r.Command = sent.Command
	switch {
	case errors.Is(err, ErrUnknown) || err != nil && ctx.Err() != nil:
		r.Outcome, r.Detail = Unknown, err.Error()
		return
	case err != nil:
		r.Outcome, r.Detail = Unsent, err.Error()
		return
	case p.Out.Name == "":
		r.Outcome, r.Latency = Passed, sent.Confirmed.Sub(sent.At)
		return
	}
	s.await(ctx, p, r, sent, seen, expect)
}

// grace is how long after its deadline a message may still be seen as late.
func grace(p Probe) time.Duration { return min(p.Deadline, 30*time.Second) }

func (s *Service) await(ctx context.Context, p Probe, r *Run, sent Sent, seen <-chan Arrival, expect *filter.Filter) {
	// The tap's way to the console takes its time, too: the verdict is by the
	// agents' clocks, and this timer only ends the waiting.
	t := time.NewTimer(p.Deadline + grace(p) + time.Second)
	defer t.Stop()
	for {
		select {
		case a := <-seen:
			if !a.Output {
				r.Sent = a.Event.UID.String()
				continue
			}
			e := a.Event
			r.Arrived = e.UID.String()
			arrived := time.Unix(0, cmp.Or(e.AgentTime, e.Time)).Add(-s.Taps.BrokerClockOffset(p.Out.Broker))
			r.Latency = max(arrived.Sub(sent.At.Add(-s.Taps.BrokerClockOffset(p.In.Broker))), 0)
			switch {
			case !expect.Match(e):
				r.Outcome, r.Detail = Wrong, "what arrived does not match: "+expect.String()
			case r.Latency > p.Deadline:
				r.Outcome, r.Detail = Late, fmt.Sprintf("%v after its deadline of %v", (r.Latency-p.Deadline).Round(time.Millisecond), p.Deadline)
			default:
				r.Outcome = Passed
			}
			return
		case <-t.C:
			r.Outcome, r.Detail = Lost, fmt.Sprintf("not seen at %s within %v", p.Out, p.Deadline+grace(p))
			return
		case <-ctx.Done():
			r.Outcome, r.Detail = Unknown, "the console was stopped while it waited"
			return
		}
	}
}

func (s *Service) count(p Probe, r Run) {
	if s.Metrics == nil || p.ID == "" {
		return
	}
	// Names are people's: quoted, as a label's value must be.
	s.Metrics.GetOrCreateCounter(fmt.Sprintf(`signalbox_probe_runs_total{probe=%q,outcome=%q}`, p.ID, r.Outcome)).Inc()
	if r.Latency > 0 {
		s.Metrics.GetOrCreateHistogram(fmt.Sprintf(`signalbox_probe_latency_seconds{probe=%q}`, p.ID)).Update(r.Latency.Seconds())
	}
}

// newRun makes the mark of a run: sorts by time, cannot be guessed.
func newRun(now time.Time) string {
	return fmt.Sprintf("%012x-%s", now.UnixMilli(), strings.ToLower(rand.Text()[:16]))
}

// summary adds up runs, newest first.
func summary(runs []Run) Summary {
	var sum Summary
	var took []time.Duration
	for i := range runs {
		sum.Runs++
		if runs[i].Outcome == Passed {
			sum.Passed++
		}
		if runs[i].Latency > 0 {
			took = append(took, runs[i].Latency)
		}
	}
	if len(runs) > 0 {
		sum.Last = &runs[0]
	}
	slices.Sort(took)
	if n := len(took); n > 0 {
		sum.P50, sum.P95 = took[(n-1)/2], took[(n-1)*95/100]
	}
	return sum
}
