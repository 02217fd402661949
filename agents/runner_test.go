package agents_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// sent collects what an exporter sends.
type sent struct {
	mu      sync.Mutex
	records []plog.LogRecord
	up      []int64 // values of signalbox.broker.up
	names   map[string]bool
}

func (s *sent) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(req.Body)
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(body, nil)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(req.URL.Path, "logs") {
		r := plogotlp.NewExportRequest()
		if err := r.UnmarshalProto(plain); err != nil {
			return nil, err
		}
		for _, rl := range r.Logs().ResourceLogs().All() {
			for _, sl := range rl.ScopeLogs().All() {
				s.records = slices.AppendSeq(s.records, recordsOf(sl))
			}
		}
	} else {
		r := pmetricotlp.NewExportRequest()
		if err := r.UnmarshalProto(plain); err != nil {
			return nil, err
		}
		for _, rm := range r.Metrics().ResourceMetrics().All() {
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					s.names[m.Name()] = true
					if m.Name() == controlbus.MetricBrokerUp {
						s.up = append(s.up, m.Gauge().DataPoints().At(0).IntValue())
					}
				}
			}
		}
	}
	return &http.Response{StatusCode: 200, Status: "200 OK", Body: io.NopCloser(bytes.NewReader(nil))}, nil
}

func recordsOf(sl plog.ScopeLogs) func(func(plog.LogRecord) bool) {
	return func(yield func(plog.LogRecord) bool) {
		for _, r := range sl.LogRecords().All() {
			if !yield(r) {
				return
			}
		}
	}
}

func (s *sent) bodies() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		out = append(out, string(r.Body().Bytes().AsRaw()))
	}
	return out
}

// rig is a runner with a fake broker and an exporter, inside a bubble.
type rig struct {
	*agents.Runner
	fake *agenttest.Fake
	sent *sent
	stop func()
}

func newRig(t *testing.T, dir string, fake *agenttest.Fake, taps ...controlbus.TapSpec) *rig {
	t.Helper()
	s := &sent{names: map[string]bool{}}
	x, err := export.New(export.Options{
		Config: export.DefaultConfig(), Redaction: export.DefaultRedaction(), Dir: dir, URL: "http://console:1", Agent: "a", Env: "test",
		HTTP: &http.Client{Transport: s}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := agents.NewRunner(agents.RunnerConfig{Name: "b", Env: "test", Identity: agents.Identity{Agent: "a", Incarnation: "i"}, Taps: taps}, fake, x, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	xctx, xcancel := context.WithCancel(t.Context())
	done, xdone := make(chan error, 1), make(chan error, 1)
	go func() { xdone <- x.Run(xctx) }()
	go func() { done <- r.Run(ctx) }()
	return &rig{r, fake, s, sync.OnceFunc(func() {
		cancel()
		err := <-done
		xcancel()
		if err := errors.Join(err, <-xdone); err != nil {
			t.Error(err)
		}
		if !fake.Closed() || fake.Taps() != 0 {
			t.Errorf("after Run: closed %v, %d taps", fake.Closed(), fake.Taps())
		}
	})}
}

// states is what the taps are doing, as "channel state".
func (r *rig) states() (out []string) {
	_, taps := r.Status()
	for _, s := range taps {
		out = append(out, s.Channel+" "+string(s.State))
	}
	return out
}

func msgs(from, to int) (out []agenttest.Message) {
	for n := from; n < to; n++ {
		out = append(out, agenttest.Message{Body: fmt.Appendf(nil, "m%03d", n)})
	}
	return out
}

func texts(from, to int) (out []string) {
	for _, m := range msgs(from, to) {
		out = append(out, string(m.Body))
	}
	return out
}

func TestPatternsAreExpandedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, dir, agenttest.NewFake("orders.eu", "orders.us", "payments"), controlbus.TapSpec{Channel: "orders.*"})
		defer r.stop()
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"orders.eu running", "orders.us running"}, r.states()); diff != "" {
			t.Fatal(diff)
		}
		r.fake.Add("orders.jp")
		time.Sleep(31 * time.Second)
		if diff := cmp.Diff([]string{"orders.eu running", "orders.jp running", "orders.us running"}, r.states()); diff != "" {
			t.Error(diff)
		}
		r.fake.Publish("orders.jp", msgs(0, 3)...)
		time.Sleep(time.Second)
		if diff := cmp.Diff(texts(0, 3), r.sent.bodies()); diff != "" {
			t.Error(diff)
		}
		rec := r.sent.records[0].Attributes().AsRaw()
		if rec[controlbus.AttrTap] != "config:b/orders.*" || rec[controlbus.AttrUID] == strings.Repeat("0", 32) {
			t.Errorf("what the runner fills in: %v", rec)
		}
	})
}

func TestConsoleTapsComeGoAndEndByThemselves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, dir, agenttest.NewFake("orders", "payments"), controlbus.TapSpec{Channel: "orders"})
		defer r.stop()
		time.Sleep(time.Second)
		r.SetConsoleTaps([]controlbus.TapSpec{
			{ID: "c1", Channel: "payments", Until: time.Now().Add(10 * time.Minute)},
			{ID: "c2", Channel: "orders", Until: time.Now().Add(10 * time.Minute)},
			{ID: "c3", Channel: "nothing.*", Until: time.Now().Add(10 * time.Minute)},
		})
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"nothing.* starting", "orders running", "orders running", "payments running"}, r.states()); diff != "" {
			t.Error(diff)
		}
		if r.fake.Taps() != 2 {
			t.Errorf("%d taps on the broker for two channels", r.fake.Taps())
		}
		r.fake.Publish("orders", msgs(0, 2)...)
		time.Sleep(time.Second)
		if diff := cmp.Diff(texts(0, 2), r.sent.bodies()); diff != "" {
			t.Errorf("a channel that two specs want is copied once: %s", diff)
		}
		time.Sleep(10 * time.Minute)
		if diff := cmp.Diff([]string{"nothing.* ended", "orders ended", "orders running", "payments ended"}, r.states()); diff != "" {
			t.Error(diff)
		}
		if r.fake.Taps() != 1 {
			t.Errorf("%d taps on the broker after the leases, want the configured one", r.fake.Taps())
		}
		r.SetConsoleTaps(nil)
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"orders running"}, r.states()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRefusedPlanIsReportedAndTriedSlowly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		fake := agenttest.NewFake("orders", "hash")
		fake.Fail("PlanTap", func(channel string) error {
			if channel == "hash" {
				return fmt.Errorf("fake: %w: the exchange would share, not copy", controlbus.ErrUnsupported)
			}
			return nil
		})
		r := newRig(t, dir, fake, controlbus.TapSpec{Channel: "*"})
		defer r.stop()
		time.Sleep(time.Hour)
		_, taps := r.Status()
		if taps[0].State != controlbus.TapRefused || !strings.Contains(taps[0].Error, "would share, not copy") {
			t.Errorf("%+v, want it refused with the reason", taps[0])
		}
		if taps[1].State != controlbus.TapRunning || taps[1].Technique != "memory" || taps[1].Notes[0] != "None." {
			t.Errorf("%+v, want it running with its plan", taps[1])
		}
		if n := fake.Calls("PlanTap"); n < 12 || n > 15 {
			t.Errorf("%d plans in an hour, want one each 5 minutes and one for the other channel", n)
		}
		fake.Fail("PlanTap", nil)
		time.Sleep(5*time.Minute + time.Second)
		if diff := cmp.Diff([]string{"hash running", "orders running"}, r.states()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBrokenTapIsRestartedWithBackOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		fake := agenttest.NewFake("orders")
		fake.Fail("Tap", func(string) error { return errors.New("queue was deleted") })
		r := newRig(t, dir, fake, controlbus.TapSpec{Channel: "orders"})
		defer r.stop()
		time.Sleep(time.Hour)
		if n := fake.Calls("Tap"); n < 60 || n > 300 {
			t.Errorf("%d attempts in an hour, want about 120", n)
		}
		if n := fake.Calls("Connect"); n != 1 {
			t.Errorf("%d connects: a broken tap is no broken connection", n)
		}
		fake.Fail("Tap", nil)
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]string{"orders running"}, r.states()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestConnectionIsMadeAgainWithBackOff(t *testing.T) {
	t.Parallel()
	for _, resumable := range []bool{false, true} {
		t.Run(fmt.Sprintf("resumable=%v", resumable), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				fake := agenttest.NewFake("orders")
				fake.Resumable = resumable
				r := newRig(t, dir, fake, controlbus.TapSpec{Channel: "orders"})
				defer r.stop()
				time.Sleep(time.Second)
				fake.Publish("orders", msgs(0, 10)...)
				time.Sleep(59 * time.Second)
				fake.Cut()
				time.Sleep(time.Second)
				fake.Publish("orders", msgs(10, 20)...)
				before := fake.Calls("Connect")
				time.Sleep(time.Hour)
				if n := fake.Calls("Connect") - before; n < 60 || n > 300 {
					t.Errorf("%d connects in an hour, want about 120", n)
				}
				b, taps := r.Status()
				if b.Connected || b.Error == "" || taps[0].State != controlbus.TapBroken {
					t.Errorf("while cut: %+v, %+v", b, taps)
				}
				fake.Heal()
				time.Sleep(time.Minute + time.Second)
				fake.Publish("orders", msgs(20, 30)...)
				time.Sleep(time.Second)
				b, taps = r.Status()
				if !b.Connected || b.Product != "Fake 1" || taps[0].State != controlbus.TapRunning {
					t.Errorf("after healing: %+v, %+v", b, taps)
				}
				want := texts(0, 30)
				blind := taps[0].Loss.Blind
				if !resumable {
					want = append(texts(0, 10), texts(20, 30)...)
					if blind < time.Hour || blind > time.Hour+2*time.Minute || taps[0].Loss.Gaps != 1 {
						t.Errorf("loss %+v, want an hour blind and one gap", taps[0].Loss)
					}
				} else if blind != 0 {
					t.Errorf("a tap that went on after its position was blind for %v", blind)
				}
				if diff := cmp.Diff(want, r.sent.bodies()); diff != "" {
					t.Error(diff)
				}
				r.stop()
				if !slices.Contains(r.sent.up, 0) || !slices.Contains(r.sent.up, 1) {
					t.Errorf("broker.up was %v, want both states", r.sent.up)
				}
			})
		})
	}
}

func TestObservationsGoOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		fake := agenttest.NewFake("orders")
		r := newRig(t, dir, fake)
		time.Sleep(time.Minute + time.Second)
		r.stop()
		if n := fake.Calls("Observe"); n != 7 {
			t.Errorf("%d observations in a minute, want one each 10s and one at once", n)
		}
		if !r.sent.names[controlbus.MetricChannelMessages] || !r.sent.names[controlbus.MetricBrokerUp] {
			t.Errorf("metrics sent: %v", r.sent.names)
		}
	})
}
