package live_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/collector/live"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func event(channel, body string) *controlbus.MessageEvent {
	return &controlbus.MessageEvent{Env: "test", Broker: "b", Destination: channel, Body: []byte(body), BodySize: int64(len(body))}
}

// encode writes the body as a JSON string.
func encode(dst []byte, ev *controlbus.MessageEvent, form controlbus.LiveForm) []byte {
	b, _ := json.Marshal(string(ev.Body))
	return append(dst, b...)
}

func newHub(cfg live.Config) *live.Hub { return live.NewHub(cfg, encode, metrics.NewSet()) }

// allowed lets a query see everything.
func allowed(q controlbus.LiveQuery) controlbus.LiveQuery {
	q.Scope, q.Bodies = controlbus.Everything(), controlbus.Everything()
	return q
}

func open(t testing.TB, h *live.Hub, q controlbus.LiveQuery) *live.Subscription {
	t.Helper()
	return openAs(t, h, q, controlbus.LiveReader{User: "ann"})
}

func openAs(t testing.TB, h *live.Hub, q controlbus.LiveQuery, who controlbus.LiveReader) *live.Subscription {
	t.Helper()
	s, err := h.Subscribe(allowed(q), who)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(false) })
	return s
}

type frame struct {
	Rows                      []string
	Matched, Sampled, Dropped int64
	Resume                    string
	Resumed                   *bool
	Missed                    *int64
}

// next returns the next frame, a zero one when none comes within a second.
func next(t testing.TB, s *live.Subscription) frame {
	t.Helper()
	b, err := s.Next(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var f frame
	if b == nil {
		return f
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return f
}

// drain reads until nothing comes and adds everything up.
func drain(t testing.TB, s *live.Subscription) frame {
	t.Helper()
	var sum frame
	for {
		f := next(t, s)
		if f.Resume == "" {
			return sum
		}
		sum.Rows = append(sum.Rows, f.Rows...)
		sum.Matched, sum.Sampled, sum.Dropped = sum.Matched+f.Matched, sum.Sampled+f.Sampled, sum.Dropped+f.Dropped
		sum.Resume = f.Resume
		if f.Resumed != nil {
			sum.Resumed, sum.Missed = f.Resumed, f.Missed
		}
	}
}

func batch(from, to int) []*controlbus.MessageEvent {
	var all []*controlbus.MessageEvent
	for i := from; i < to; i++ {
		all = append(all, event("c", fmt.Sprint(i)))
	}
	return all
}

func TestAQuerySelects(t *testing.T) {
	failed := event("orders.dead", `{"error":"Timeout"}`)
	failed.Outcome = controlbus.OutcomeDeadLettered
	failed.Headers = []controlbus.Header{{Key: "x-tenant", Value: "Acme"}}
	all := []*controlbus.MessageEvent{event("orders.new", "TEA-0412"), event("payments", "tea"), failed}
	for _, c := range []struct {
		name string
		q    controlbus.LiveQuery
		want int
	}{
		{"everything", controlbus.LiveQuery{}, 3},
		{"pattern", controlbus.LiveQuery{Channels: []string{"orders.*"}}, 2},
		{"two patterns", controlbus.LiveQuery{Channels: []string{"*.dead", "payments"}}, 2},
		{"word in any case", controlbus.LiveQuery{Filter: "Tea"}, 2},
		{"header", controlbus.LiveQuery{Filter: "header.x-tenant:Acme"}, 1},
		{"failed", controlbus.LiveQuery{Filter: "failed:true"}, 1},
		{"patterns and filter", controlbus.LiveQuery{Channels: []string{"orders.*"}, Filter: "tea OR failed:true"}, 2},
		{"other environment", controlbus.LiveQuery{Env: "production"}, 0},
		{"other broker", controlbus.LiveQuery{Filter: "broker:x"}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(live.DefaultConfig())
			s := open(t, h, c.q)
			h.Publish(all)
			if f := drain(t, s); len(f.Rows) != c.want || f.Matched != int64(c.want) {
				t.Errorf("%s: got %d rows, matched %d, want %d", c.name, len(f.Rows), f.Matched, c.want)
			}
			s.Close(false)
		})
	}
}

// Taps that ask for the same share everything: matching, encoding and the text
// of the frames.
func TestTheSameQuestionIsAnsweredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		encoded := 0
		h := live.NewHub(live.DefaultConfig(), func(dst []byte, ev *controlbus.MessageEvent, form controlbus.LiveForm) []byte {
			encoded++
			return encode(dst, ev, form)
		}, metrics.NewSet())
		one := open(t, h, controlbus.LiveQuery{Channels: []string{"a", "c"}})
		two := open(t, h, controlbus.LiveQuery{Channels: []string{"c", "a", "c"}})
		other := open(t, h, controlbus.LiveQuery{})
		for _, s := range []*live.Subscription{one, two, other} {
			next(t, s) // the greeting
		}
		h.Publish(batch(0, 10))
		a, err1 := one.Next(t.Context(), time.Second)
		b, err2 := two.Next(t.Context(), time.Second)
		if err1 != nil || err2 != nil || len(a) == 0 || &a[0] != &b[0] {
			t.Errorf("two taps of one query did not get the very same frame: %s and %s", a, b)
		}
		if f := next(t, other); len(f.Rows) != 10 || encoded != 10 {
			t.Errorf("10 messages for three taps were encoded %d times; the third saw %d", encoded, len(f.Rows))
		}
		for _, s := range []*live.Subscription{one, two, other} {
			s.Close(false)
		}
	})
}

// What a reader may not see is neither shown nor counted, and a payload that may
// not be read can neither be seen nor asked about.
func TestAReaderSeesWhatItMay(t *testing.T) {
	only := func(env, channel string) controlbus.Scope {
		return controlbus.NewScope([]controlbus.ScopeRule{{Env: env, Channel: channel}})
	}
	all := []*controlbus.MessageEvent{event("orders.new", "TEA"), event("payments", "TEA"), event("orders.old", "POT")}
	for _, c := range []struct {
		name string
		q    controlbus.LiveQuery
		want []string
	}{
		{"nobody said what", controlbus.LiveQuery{}, nil},
		{"everything", controlbus.LiveQuery{Scope: controlbus.Everything(), Bodies: controlbus.Everything()}, []string{"TEA", "TEA", "POT"}},
		{"some channels", controlbus.LiveQuery{Scope: only("test", "orders.*"), Bodies: controlbus.Everything()}, []string{"TEA", "POT"}},
		{"another environment", controlbus.LiveQuery{Scope: only("production", "*"), Bodies: controlbus.Everything()}, nil},
		{"no payloads", controlbus.LiveQuery{Scope: controlbus.Everything()}, []string{"", "", ""}},
		{"some payloads", controlbus.LiveQuery{Scope: controlbus.Everything(), Bodies: only("*", "payments")}, []string{"", "TEA", ""}},
		{"words in some payloads", controlbus.LiveQuery{Scope: controlbus.Everything(), Bodies: only("*", "orders.*"), Filter: "tea"}, []string{"TEA"}},
		{"words in no payloads", controlbus.LiveQuery{Scope: controlbus.Everything(), Filter: "tea"}, nil},
		{"no words in no payloads", controlbus.LiveQuery{Scope: controlbus.Everything(), Filter: "NOT tea"}, []string{"", "", ""}},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHub(live.DefaultConfig())
			s, err := h.Subscribe(c.q, controlbus.LiveReader{})
			if err != nil {
				t.Fatal(err)
			}
			sees := open(t, h, controlbus.LiveQuery{}) // another with all rights, to share nothing with
			h.Publish(all)
			if f := drain(t, s); !slices.Equal(f.Rows, c.want) || f.Matched != int64(len(c.want)) {
				t.Errorf("%s: got %q, matched %d, want %q", c.name, f.Rows, f.Matched, c.want)
			}
			if f := drain(t, sees); len(f.Rows) != 3 || slices.Contains(f.Rows, "") {
				t.Errorf("%s: the other got %q", c.name, f.Rows)
			}
			s.Close(false)
			sees.Close(false)
		})
	}
}

func TestABrokenFilterIsRefusedWithItsPosition(t *testing.T) {
	h := newHub(live.DefaultConfig())
	_, err := h.Subscribe(allowed(controlbus.LiveQuery{Filter: "ok AND channle:x"}), controlbus.LiveReader{})
	var at *filter.Error
	if !errors.As(err, &at) || at.Pos != 7 || at.Suggestion != "channel" || !errors.Is(err, controlbus.ErrInvalid) || h.Taps() != 0 {
		t.Errorf("got %v with %d taps open, want position 8 and a suggestion", err, h.Taps())
	}
}

func TestASlowReaderLosesItsOldestAndNobodyElseLoses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := live.DefaultConfig()
		cfg.MaxRows = 10
		h := newHub(cfg)
		slow, quick := open(t, h, controlbus.LiveQuery{}), open(t, h, controlbus.LiveQuery{})
		var seen int
		next(t, quick)
		for i := range 5 {
			h.Publish(batch(10*i, 10*i+10))
			seen += len(next(t, quick).Rows)
		}
		if seen != 50 {
			t.Errorf("quick reader saw %d of 50", seen)
		}
		f := drain(t, slow)
		if f.Matched != 50 || f.Dropped != 40 || len(f.Rows) != 10 || f.Rows[0] != "40" {
			t.Errorf("slow reader: got matched %d, dropped %d, rows %q; want 50, 40, ten from 40", f.Matched, f.Dropped, f.Rows)
		}
		slow.Close(false)
		quick.Close(false)
	})
}

func TestALagIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := live.DefaultConfig()
		cfg.MaxBytes = 64 << 10
		h := newHub(cfg)
		s := open(t, h, controlbus.LiveQuery{})
		for range 20 {
			h.Publish([]*controlbus.MessageEvent{event("c", strings.Repeat("x", 30<<10))})
			time.Sleep(time.Second)
		}
		if f := drain(t, s); len(f.Rows) != 2 || f.Dropped != 18 || f.Matched != 20 {
			t.Errorf("got %d rows, %d dropped, %d matched; want 2, 18, 20", len(f.Rows), f.Dropped, f.Matched)
		}
		s.Close(false)
	})
}

func TestAboveTheRateOneOfNIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := live.DefaultConfig()
		cfg.MaxRate = 100
		h := newHub(cfg)
		s := open(t, h, controlbus.LiveQuery{})
		var sum frame
		add := func(f frame) {
			sum.Rows = append(sum.Rows, f.Rows...)
			sum.Matched, sum.Sampled, sum.Dropped = sum.Matched+f.Matched, sum.Sampled+f.Sampled, sum.Dropped+f.Dropped
		}
		start := time.Now()
		for range 100 {
			h.Publish(batch(0, 100))
			time.Sleep(100 * time.Millisecond)
			add(next(t, s))
		}
		took := time.Since(start).Seconds()
		add(drain(t, s))
		if sum.Matched != 10_000 || sum.Matched != int64(len(sum.Rows))+sum.Sampled || sum.Dropped != 0 {
			t.Errorf("matched %d, shown %d, sampled %d, dropped %d: they do not add up to 10,000", sum.Matched, len(sum.Rows), sum.Sampled, sum.Dropped)
		}
		if rate := float64(len(sum.Rows)) / took; rate < 80 || rate > 110 {
			t.Errorf("shown %.0f/s, want about 100/s", rate)
		}
		s.Close(false)
	})
}

func TestAReaderThatComesBackGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := live.DefaultConfig()
		h := newHub(cfg)
		q := controlbus.LiveQuery{Channels: []string{"c"}}
		s := open(t, h, q)
		h.Publish(batch(0, 5))
		token := drain(t, s).Resume
		h.Publish(batch(5, 8)) // in a frame that the reader never takes
		s.Close(true)
		time.Sleep(time.Second)
		if !h.Active() {
			t.Fatal("nobody watches for a reader that may come back")
		}
		for i := 8; i < 2000; i += 4 { // more than a slow reader may lag behind, within the rate
			h.Publish(batch(i, i+4))
			time.Sleep(20 * time.Millisecond)
		}
		s = openAs(t, h, q, controlbus.LiveReader{User: "ann", Resume: token})
		f := drain(t, s)
		if f.Resumed == nil || !*f.Resumed || *f.Missed != 0 || f.Dropped != 0 || f.Matched != 1995 || len(f.Rows) != 1995 {
			t.Fatalf("got %d rows, matched %d, dropped %d, resumed %v, missed %v; want 1995 without a hole", len(f.Rows), f.Matched, f.Dropped, f.Resumed, f.Missed)
		}
		for i, row := range f.Rows {
			if row != fmt.Sprint(5+i) {
				t.Fatalf("row %d is %q, want %d", i, row, 5+i)
			}
		}
		s.Close(false)
		if !h.Active() { // one reader of this group may still come back
			t.Error("a reader that left for good took the place of one that may come back")
		}
		time.Sleep(2 * cfg.ResumeFor)
		if h.Active() {
			t.Error("the hub watches for a reader that did not come back in time")
		}
		s = openAs(t, h, q, controlbus.LiveReader{Resume: f.Resume})
		if f := drain(t, s); f.Resumed == nil || *f.Resumed || f.Missed != nil {
			t.Errorf("after its time: resumed %v, missed %v; want false and unknown", f.Resumed, f.Missed)
		}
		s.Close(false)
	})
}

func TestWhatTheLogDoesNotHoldIsCountedExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := live.DefaultConfig()
		cfg.ResumeBytes, cfg.MaxRate = 8<<10, 50
		h := newHub(cfg)
		q := controlbus.LiveQuery{Channels: []string{"c"}}
		s := open(t, h, q)
		h.Publish(batch(0, 5))
		token := drain(t, s).Resume
		s.Close(true)
		for i := range 30 {
			h.Publish(batch(i*20, i*20+20))
			time.Sleep(200 * time.Millisecond)
		}
		s = openAs(t, h, q, controlbus.LiveReader{Resume: token})
		first := next(t, s)
		rest := drain(t, s)
		if first.Resumed == nil || !*first.Resumed || *first.Missed == 0 || *first.Missed != first.Dropped {
			t.Fatalf("got %+v, want the number missed", first)
		}
		if matched := first.Matched + rest.Matched; matched != 600 || int64(len(rest.Rows))+first.Dropped+first.Sampled+rest.Sampled != 600 || rest.Dropped != 0 || rest.Rows[len(rest.Rows)-1] == "" {
			t.Errorf("missed %d + shown %d + sampled %d of %d matched; want all 600 accounted for", first.Dropped, len(rest.Rows), first.Sampled+rest.Sampled, matched)
		}
		s.Close(false)
	})
}

func TestStrangeTokensAreNotUnderstood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q := newHub(live.DefaultConfig()), controlbus.LiveQuery{}
		s := open(t, h, q)
		h.Publish(batch(0, 5))
		token := drain(t, s).Resume
		parts := strings.Split(token, ".")
		future := strings.Join([]string{parts[0], parts[1], "zzz", "zz"}, ".")
		for _, bad := range []string{"x", "...", token + ".0", "other." + strings.Join(parts[1:], "."), future, parts[0] + ".9." + parts[2] + "." + parts[3],
			parts[0] + "." + parts[1] + ".1.3", parts[0] + "." + parts[1] + ".-1.-1", strings.Repeat("9", 190)} {
			again := openAs(t, h, q, controlbus.LiveReader{Resume: bad})
			if f := next(t, again); f.Resumed == nil || *f.Resumed || f.Missed != nil || f.Matched != 0 {
				t.Errorf("token %q: got %+v", bad, f)
			}
			again.Close(false)
		}
		elsewhere := openAs(t, h, controlbus.LiveQuery{Filter: "failed:true"}, controlbus.LiveReader{Resume: token})
		if f := next(t, elsewhere); f.Resumed == nil || *f.Resumed {
			t.Errorf("a token of another query was understood: %+v", f)
		}
		elsewhere.Close(false)
		s.Close(false)
	})
}

// Readers come and go, lag, and return, while others publish: whatever happens,
// each one's numbers add up and its rows are in order without a repetition.
func TestEveryReadersNumbersAddUp(t *testing.T) {
	cfg := live.DefaultConfig()
	cfg.FrameInterval, cfg.MaxRate, cfg.ResumeBytes, cfg.MaxRows = 100*time.Millisecond, 100_000, 40<<10, 2000
	h := newHub(cfg)
	stop := make(chan struct{})
	var published sync.WaitGroup
	published.Go(func() {
		for i := 0; ; i += 10 {
			select {
			case <-stop:
				return
			default:
				h.Publish(batch(i, i+10))
				time.Sleep(time.Millisecond)
			}
		}
	})
	var readers sync.WaitGroup
	for n := range 20 {
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(n)))
			who, q := controlbus.LiveReader{}, controlbus.LiveQuery{Channels: []string{"c"}}
			if n%3 == 0 {
				q.Channels = []string{"*"}
			}
			last, expect, resumes := -1, int64(-1), 0
			for range 6 {
				s, err := h.Subscribe(allowed(q), who)
				if err != nil {
					t.Error(err)
					return
				}
				for range 1 + rnd.IntN(4) {
					time.Sleep(time.Duration(rnd.IntN(250)) * time.Millisecond)
					f := next(t, s)
					if f.Resume == "" {
						continue
					}
					who.Resume = f.Resume
					if f.Matched != int64(len(f.Rows))+f.Sampled+f.Dropped {
						t.Errorf("reader %d: frame does not add up: %+v", n, f)
					}
					if f.Resumed != nil && *f.Resumed {
						resumes++
					} else if f.Resumed != nil {
						expect = -1
					}
					if f.Dropped > 0 && expect >= 0 {
						expect += f.Dropped
					}
					for _, row := range f.Rows {
						var v int
						_, _ = fmt.Sscan(row, &v)
						if v <= last || expect >= 0 && int64(v) != expect {
							t.Errorf("reader %d: got %d after %d, want %d", n, v, last, expect)
							return
						}
						last, expect = v, int64(v)+1
					}
				}
				s.Close(true)
			}
			if resumes == 0 {
				t.Errorf("reader %d never resumed", n)
			}
		})
	}
	readers.Wait()
	close(stop)
	published.Wait()
	h.Close()
}

func TestCapsAreSaid(t *testing.T) {
	t.Parallel()
	cfg := live.DefaultConfig()
	cfg.MaxTapsPerUser, cfg.MaxTaps = 1, 2
	h := newHub(cfg)
	s := open(t, h, controlbus.LiveQuery{})
	if _, err := h.Subscribe(controlbus.LiveQuery{}, controlbus.LiveReader{User: "ann"}); !errors.Is(err, controlbus.ErrOverloaded) {
		t.Errorf("second tap of one person: got %v, want ErrOverloaded", err)
	}
	other := openAs(t, h, controlbus.LiveQuery{}, controlbus.LiveReader{User: "bob"})
	if _, err := h.Subscribe(controlbus.LiveQuery{}, controlbus.LiveReader{User: "cid"}); !errors.Is(err, controlbus.ErrUnavailable) {
		t.Errorf("third tap: got %v, want ErrUnavailable", err)
	}
	other.Close(false)
	s.Close(false)
	s.Close(false)
	if h.Active() || h.Taps() != 0 {
		t.Error("hub is active with every tap closed")
	}
	open(t, h, controlbus.LiveQuery{}).Close(false)
}

// Abandoned taps cost their filter: there is a most of them, and the longest
// abandoned goes first.
func TestAbandonedTapsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(live.DefaultConfig())
		var tokens []string
		query := func(i int) controlbus.LiveQuery { return controlbus.LiveQuery{Channels: []string{"c", fmt.Sprint(i)}} }
		for i := range 60 {
			s := open(t, h, query(i))
			tokens = append(tokens, next(t, s).Resume)
			s.Close(true)
		}
		h.Publish(batch(0, 3))
		time.Sleep(time.Second)
		for i, want := range map[int]bool{0: false, 9: false, 10: true, 59: true} {
			s := openAs(t, h, query(i), controlbus.LiveReader{Resume: tokens[i]})
			if f := drain(t, s); f.Resumed == nil || *f.Resumed != want || want && len(f.Rows) != 3 {
				t.Errorf("tap %d: got resumed %v with %d rows, want %v", i, *f.Resumed, len(f.Rows), want)
			}
			s.Close(false)
		}
		h.Close()
	})
}

func TestEndings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(live.DefaultConfig())
		s := open(t, h, controlbus.LiveQuery{})
		next(t, s)
		start := time.Now()
		if b, err := s.Next(t.Context(), 3*time.Second); b != nil || err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("idle tap: got %s, %v after %v, want nothing after 3s", b, err, time.Since(start))
		}
		time.Sleep(2 * time.Hour)
		if _, err := s.Next(t.Context(), time.Second); !errors.Is(err, controlbus.ErrNotFound) {
			t.Errorf("after its lifetime: got %v, want ErrNotFound", err)
		}
		s.Close(false)
		s = open(t, h, controlbus.LiveQuery{})
		next(t, s)
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Next(cancelled, time.Second); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v", err)
		}
		h.Close()
		if _, err := s.Next(t.Context(), time.Second); !errors.Is(err, controlbus.ErrUnavailable) {
			t.Errorf("hub closed: got %v, want ErrUnavailable", err)
		}
		if _, err := h.Subscribe(controlbus.LiveQuery{}, controlbus.LiveReader{}); !errors.Is(err, controlbus.ErrUnavailable) {
			t.Errorf("subscribe to a closed hub: got %v, want ErrUnavailable", err)
		}
		s.Close(false)
	})
}

// One batch of 512 against 100 taps, of which each sees one channel in twenty.
func BenchmarkPublish(b *testing.B) {
	h := newHub(live.DefaultConfig())
	for i := range 100 {
		s, err := h.Subscribe(allowed(controlbus.LiveQuery{Channels: []string{fmt.Sprintf("orders.%d.*", i%20), fmt.Sprintf("x.%d", i)}}), controlbus.LiveReader{User: fmt.Sprint(i)})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close(false)
	}
	benchmarkPublish(b, h)
}

// The same with a filter of five conditions each, which look at every message.
func BenchmarkPublishFiltered(b *testing.B) {
	h := newHub(live.DefaultConfig())
	for i := range 100 {
		q := allowed(controlbus.LiveQuery{Channels: []string{"orders.*"}, Filter: fmt.Sprintf("header.x-tenant = 't%03d' AND size > 10 AND op:tap AND failed:true AND broker:b*", i)})
		s, err := h.Subscribe(q, controlbus.LiveReader{})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close(false)
	}
	benchmarkPublish(b, h)
}

func benchmarkPublish(b *testing.B, h *live.Hub) {
	batch := make([]*controlbus.MessageEvent, 512)
	for i := range batch {
		batch[i] = event(fmt.Sprintf("orders.%d.eu", i%20), `{"orderId":"ORD-7731904","total":"129.90"}`)
		batch[i].Headers = []controlbus.Header{{Key: "x-tenant", Value: fmt.Sprintf("t%03d", i%125)}, {Key: "traceparent", Value: "00-5b8aa5a2d2c872e8321cf37308d69df2-051581bf3cb55c13-01"}}
		batch[i].Op, batch[i].Outcome = controlbus.OpTap, controlbus.OutcomeFailed
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Publish(batch)
	}
	b.ReportMetric(float64(b.N*len(batch))/b.Elapsed().Seconds(), "messages/s")
	h.Close()
}
