package probe_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	in  = controlbus.ChannelName{Env: "prod", System: "rabbitmq", Broker: "rabbit", Name: "orders"}
	out = controlbus.ChannelName{Env: "prod", System: "nats", Broker: "nats", Name: "PAID"}
)

// world is a broker, its agent and an application between in and out.
type world struct {
	w *probe.Watcher

	mu      sync.Mutex
	sent    []controlbus.TestArgs
	err     error
	policy  controlbus.ApprovalPolicy
	takes   time.Duration // until the answer arrives; < 0: never
	answer  func(run string) *controlbus.MessageEvent
	offsets map[string]time.Duration
	tapErr  error
}

func (w *world) Consent(string) controlbus.ApprovalPolicy { return w.policy }

func (w *world) Send(ctx context.Context, ch controlbus.ChannelName, args controlbus.TestArgs, _, _ string) (probe.Sent, error) {
	id, _ := access.From(ctx)
	if !id.Can(access.Operate, ch.Env, ch.Name) {
		return probe.Sent{}, controlbus.ErrDenied
	}
	w.mu.Lock()
	w.sent = append(w.sent, args)
	err, takes := w.err, w.takes
	w.mu.Unlock()
	if err != nil {
		return probe.Sent{Command: "c"}, err
	}
	at := time.Now().Add(w.offsets[ch.Broker])
	if takes >= 0 {
		time.AfterFunc(takes, func() {
			e := w.answer(args.Run)
			e.AgentTime = time.Now().Add(w.offsets[e.Broker]).UnixNano()
			w.w.Publish([]*controlbus.MessageEvent{e})
		})
	}
	return probe.Sent{Command: "c", At: at, Confirmed: at.Add(3 * time.Millisecond)}, nil
}

func (w *world) Ensure(context.Context, controlbus.ChannelName, time.Time, string) error {
	return w.tapErr
}
func (w *world) BrokerClockOffset(broker string) time.Duration { return w.offsets[broker] }

func marked(ch controlbus.ChannelName, run string) *controlbus.MessageEvent {
	return &controlbus.MessageEvent{
		UID: controlbus.ID{1}, Env: ch.Env, Broker: ch.Broker, Destination: ch.Name, BodySize: 4, Body: []byte("paid"),
		Headers: []controlbus.Header{{Key: controlbus.HeaderTest, Value: run}},
	}
}

// memory is a probe.Store.
type memory struct {
	mu     sync.Mutex
	probes map[string]probe.Probe
	runs   []probe.Run
	turns  map[string]time.Time
}

func (m *memory) TakeTurn(_ context.Context, id string, now, since time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.turns[id]; ok && at.After(since) {
		return false, nil
	}
	if m.turns == nil {
		m.turns = map[string]time.Time{}
	}
	m.turns[id] = now
	return true, nil
}

func (m *memory) Probes(context.Context) ([]probe.Probe, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []probe.Probe
	for _, p := range m.probes {
		all = append(all, p)
	}
	return all, nil
}

func (m *memory) Probe(_ context.Context, id string) (probe.Probe, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.probes[id]
	if !ok {
		return p, fmt.Errorf("probe: %w", controlbus.ErrNotFound)
	}
	return p, nil
}

func (m *memory) SaveProbe(_ context.Context, p probe.Probe) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.probes == nil {
		m.probes = map[string]probe.Probe{}
	}
	m.probes[p.ID] = p
	return nil
}

func (m *memory) DeleteProbe(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.probes, id)
	return nil
}

func (m *memory) AddRun(_ context.Context, r probe.Run) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs = append(m.runs, r)
	return nil
}

func (m *memory) ProbeRuns(_ context.Context, id, _ string, limit int) ([]probe.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []probe.Run
	for _, r := range slices.Backward(m.runs) {
		if r.Probe == id && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, nil
}

func newService(w *world) (*probe.Service, *memory) {
	w.w = probe.NewWatcher()
	if w.answer == nil {
		w.answer = func(run string) *controlbus.MessageEvent { return marked(out, run) }
	}
	m := &memory{}
	return probe.New(probe.Deps{Store: m, Sender: w, Taps: w, Watcher: w.w, Log: slog.New(slog.DiscardHandler)}), m
}

func as(role access.Role) context.Context {
	return access.With(context.Background(), access.Identity{ID: "ada", Name: "ada", Kind: access.KindUser, Grants: []access.Grant{{Role: role, Env: "prod", Channel: "*"}}})
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	hour := map[string]time.Duration{"rabbit": time.Hour, "nats": -time.Hour}
	for name, c := range map[string]struct {
		world   *world
		probe   func(*probe.Probe)
		want    probe.Outcome
		latency time.Duration
		says    string
	}{
		"passed":                {world: &world{takes: 200 * time.Millisecond}, want: probe.Passed, latency: 200 * time.Millisecond},
		"clocks apart":          {world: &world{takes: 200 * time.Millisecond, offsets: hour}, want: probe.Passed, latency: 200 * time.Millisecond},
		"late":                  {world: &world{takes: 3 * time.Second}, want: probe.Late, latency: 3 * time.Second, says: "1s after its deadline"},
		"lost":                  {world: &world{takes: -1}, want: probe.Lost, says: "not seen at nats/PAID within 4s"},
		"unsent":                {world: &world{err: errors.New("no such queue")}, want: probe.Unsent, says: "no such queue"},
		"unknown":               {world: &world{err: fmt.Errorf("%w: agent offline", probe.ErrUnknown)}, want: probe.Unknown, says: "agent offline"},
		"output cannot be seen": {world: &world{tapErr: errors.New("no technique is safe")}, want: probe.Unsent, says: "no technique is safe"},
		"another channel": {world: &world{takes: time.Millisecond, answer: func(run string) *controlbus.MessageEvent {
			e := marked(out, run)
			e.Destination = "PAID2"
			return e
		}}, want: probe.Lost},
		"the input's copy does not count": {world: &world{takes: time.Millisecond, answer: func(run string) *controlbus.MessageEvent { return marked(in, run) }}, want: probe.Lost},
		"by correlation": {world: &world{takes: time.Millisecond, answer: func(run string) *controlbus.MessageEvent {
			e := marked(out, "")
			e.Headers, e.CorrelationID = nil, run
			return e
		}}, want: probe.Passed, latency: time.Millisecond},
		"not as expected":   {world: &world{takes: time.Millisecond}, probe: func(p *probe.Probe) { p.Expect = "declined" }, want: probe.Wrong, latency: time.Millisecond, says: "does not match"},
		"as expected":       {world: &world{takes: time.Millisecond}, probe: func(p *probe.Probe) { p.Expect = "paid" }, want: probe.Passed, latency: time.Millisecond},
		"confirmation only": {world: &world{takes: -1}, probe: func(p *probe.Probe) { p.Out = controlbus.ChannelName{} }, want: probe.Passed, latency: 3 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _ := newService(c.world)
				p := probe.Probe{Name: "x", In: in, Out: out, Deadline: 2 * time.Second, Body: "order"}
				if c.probe != nil {
					c.probe(&p)
				}
				r, err := s.Once(as(access.Operator), p, "", "")
				if err != nil {
					t.Fatal(err)
				}
				if r.Outcome != c.want || r.Latency.Round(time.Millisecond) != c.latency || !strings.Contains(r.Detail, c.says) {
					t.Errorf("got %s after %v: %q; want %s after %v: ...%q", r.Outcome, r.Latency, r.Detail, c.want, c.latency, c.says)
				}
				synctest.Wait()
				if c.world.w.Active() {
					t.Error("the watcher still waits")
				}
				time.Sleep(time.Minute) // what is on its way arrives
			})
		})
	}
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{takes: 50 * time.Millisecond}
		s, m := newService(w)
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		p, err := s.Save(as(access.Operator), probe.Probe{Name: "orders to paid", In: in, Out: out, Every: 30 * time.Second, Body: "order"}, "")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		runs, _ := m.ProbeRuns(ctx, p.ID, "", 1000)
		if n := len(runs); n < 18 || n > 21 {
			t.Errorf("runs every 30s in 10 minutes: got %d, want about 20", n)
		}
		for _, r := range runs {
			if r.Outcome != probe.Passed {
				t.Errorf("run: got %+v", r)
			}
		}
		if err := s.Pause(as(access.Operator), p.ID, true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the run under way ends
		before, _ := m.ProbeRuns(ctx, p.ID, "", 1000)
		time.Sleep(10 * time.Minute)
		if after, _ := m.ProbeRuns(ctx, p.ID, "", 1000); len(after) != len(before) {
			t.Errorf("a paused probe ran: %d, then %d", len(before), len(after))
		}
		if err := s.Start(as(access.Reader), p.ID); !errors.Is(err, controlbus.ErrDenied) {
			t.Errorf("start as a reader: got %v, want ErrDenied", err)
		}
		if err := s.Start(as(access.Operator), p.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if after, _ := m.ProbeRuns(ctx, p.ID, "", 1000); len(after) != len(before)+1 {
			t.Errorf("started by hand: got %d runs, want %d", len(after), len(before)+1)
		}
		before, _ = m.ProbeRuns(ctx, p.ID, "", 1000)
		v, err := s.Get(as(access.Viewer), p.ID)
		if err != nil || v.Runs != len(before) || v.Passed != v.Runs || v.P50.Round(time.Millisecond) != 50*time.Millisecond || v.Body != "" {
			t.Errorf("view: got %+v, %v", v.Summary, err)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestConsolesShareASchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{takes: 50 * time.Millisecond}
		one, m := newService(w)
		two := probe.New(probe.Deps{Store: m, Sender: w, Taps: w, Watcher: w.w, Log: slog.New(slog.DiscardHandler)})
		ctx, stop := context.WithCancel(context.Background())
		var ended sync.WaitGroup
		for _, s := range []*probe.Service{one, two} {
			ended.Go(func() { _ = s.Run(ctx) })
		}
		p, err := one.Save(as(access.Operator), probe.Probe{Name: "x", In: in, Out: out, Every: 30 * time.Second, Body: "order"}, "")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if runs, _ := m.ProbeRuns(ctx, p.ID, "", 1000); len(runs) < 15 || len(runs) > 23 {
			t.Errorf("runs every 30s in 10 minutes by two consoles: got %d, want about 20", len(runs))
		}
		stop()
		ended.Wait()
	})
}

func TestRightsAndConsent(t *testing.T) {
	t.Parallel()
	w := &world{takes: -1}
	s, _ := newService(w)
	p := probe.Probe{Name: "x", In: in, Every: time.Minute, Body: "order"}
	if _, err := s.Save(as(access.Reader), p, ""); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("save as a reader: got %v, want ErrDenied", err)
	}
	if _, err := s.Once(as(access.Reader), p, "", ""); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("run as a reader: got %v, want ErrDenied", err)
	}
	w.policy = controlbus.ApproveByName
	if _, err := s.Save(as(access.Operator), p, "order"); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("save without the name typed: got %v, want ErrInvalid", err)
	}
	byHand := p
	byHand.Every = 0 // starting it asks for nothing more
	if _, err := s.Save(as(access.Operator), byHand, ""); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("save one that runs by hand without the name typed: got %v, want ErrInvalid", err)
	}
	saved, err := s.Save(as(access.Operator), p, "orders")
	if err != nil {
		t.Errorf("save with the name typed: got %v", err)
	}
	w.policy = controlbus.ApproveSecond
	if _, err := s.Save(as(access.Admin), p, "orders"); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("a schedule where a second person consents: got %v, want ErrConflict", err)
	}
	elsewhere := access.With(context.Background(), access.Identity{ID: "eve", Kind: access.KindUser, Grants: []access.Grant{{Role: access.Admin, Env: "test", Channel: "*"}}})
	if _, err := s.Get(elsewhere, saved.ID); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("a probe of another environment: got %v, want ErrNotFound", err)
	}
	if err := s.Delete(elsewhere, saved.ID); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("delete a probe of another environment: got %v, want ErrNotFound", err)
	}
	for _, bad := range []func(*probe.Probe){
		func(p *probe.Probe) { p.Name = "" },
		func(p *probe.Probe) { p.Every = time.Second },
		func(p *probe.Probe) { p.Deadline = 2 * time.Minute },
		func(p *probe.Probe) { p.Headers = map[string]string{"sb-test": "x"} },
		func(p *probe.Probe) { p.Headers = map[string]string{"a": "b\r\nc: d"} },
		func(p *probe.Probe) { p.Expect = "(" },
		func(p *probe.Probe) { p.Body = strings.Repeat("x", probe.MaxBody+1) },
	} {
		q := p
		bad(&q)
		if err := q.Check(); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("check %+v: got %v, want ErrInvalid", q, err)
		}
	}
}

func BenchmarkNobodyWaits(b *testing.B) {
	w := probe.NewWatcher()
	events := []*controlbus.MessageEvent{marked(out, "x")}
	b.ReportAllocs()
	for b.Loop() {
		w.Publish(events)
	}
}
