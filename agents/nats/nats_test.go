package nats_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/nats"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

func TestMain(m *testing.M) {
	if os.Getenv("SIGNALBOX_TAP_PROCESS") != "" {
		tapProcess()
		return
	}
	broker.Main(m)
}

var serial atomic.Int64

func identity() agents.Identity {
	return agents.Identity{Agent: "test", Incarnation: fmt.Sprintf("i%d", serial.Add(1))}
}

func config(url string) nats.Config {
	c := nats.DefaultConfig()
	c.URLs = []string{url}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bench is a server with a client.
type bench struct {
	url, monitor string
	nc           *natsgo.Conn
	js           jetstream.JetStream
}

func newBench(t *testing.T, url, monitor string) *bench {
	t.Helper()
	b := &bench{url: url, monitor: monitor, nc: broker.DialNATS(t, url)}
	var err error
	b.js, err = jetstream.New(b.nc)
	must(t, err)
	return b
}

// servers runs a test against the packaged server and the linked one.
func servers(t *testing.T, run func(t *testing.T, b *bench)) {
	t.Run("packaged", func(t *testing.T) {
		s := broker.NATS(t)
		run(t, newBench(t, s.URL, s.ManagementURL))
	})
	t.Run("embedded", func(t *testing.T) {
		run(t, newBench(t, broker.NATSEmbedded(t, nil).URL, ""))
	})
}

func (b *bench) stream(t *testing.T, retention jetstream.RetentionPolicy, edit func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	name := fmt.Sprintf("S%d", serial.Add(1))
	c := jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}, Retention: retention, Storage: jetstream.MemoryStorage}
	if edit != nil {
		edit(&c)
	}
	s, err := b.js.CreateStream(t.Context(), c)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = b.js.DeleteStream(ctx, name)
	})
	return s
}

func (b *bench) publish(t *testing.T, subject string, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		_, err := b.js.Publish(t.Context(), subject, []byte(body))
		must(t, err)
	}
}

func (b *bench) consumers(t *testing.T) []string {
	t.Helper()
	var out []string
	streams := b.js.ListStreams(t.Context())
	for info := range streams.Info() {
		s, err := b.js.Stream(t.Context(), info.Config.Name)
		if err != nil {
			continue
		}
		for n := range s.ConsumerNames(t.Context()).Name() {
			out = append(out, info.Config.Name+"/"+n)
		}
	}
	must(t, streams.Err())
	return out
}

func message(m agenttest.Message, subject string) *natsgo.Msg {
	out := &natsgo.Msg{Subject: subject, Data: m.Body, Header: natsgo.Header{natsgo.MsgIdHdr: {m.ID}}}
	for _, h := range m.Headers {
		out.Header[h.Key] = append(out.Header[h.Key], h.Value)
	}
	return out
}

func connected(t *testing.T, id agents.Identity, cfg nats.Config) *nats.Adapter {
	t.Helper()
	must(t, cfg.Validate())
	a := nats.New("nats-test", id, cfg, slog.New(slog.DiscardHandler))
	if _, err := a.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := a.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return a
}

type running struct {
	*agenttest.Sink
	stop context.CancelFunc
	done chan error
}

func startTap(t *testing.T, a *nats.Adapter, channel string, from agents.Position, sink agents.TapSink) *running {
	t.Helper()
	plan, err := a.PlanTap(t.Context(), channel)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{stop: cancel, done: make(chan error, 1)}
	if sink == nil {
		r.Sink = agenttest.NewSink()
		sink = r.Sink
	}
	ready := make(chan struct{})
	var once atomic.Bool
	go func() {
		r.done <- a.Tap(ctx, plan, from, sink, func() {
			if !once.Swap(true) {
				close(ready)
			}
		})
	}()
	t.Cleanup(cancel)
	select {
	case <-ready:
	case err := <-r.done:
		t.Fatalf("tap ended before it was ready: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("tap is not ready after 20s")
	}
	return r
}

func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the tap does not end")
		return nil
	}
}

func (r *running) saw(t *testing.T, n int) []*controlbus.MessageEvent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if !r.Wait(ctx, n) {
		t.Fatalf("tap saw %d of %d messages", len(r.Events()), n)
	}
	return r.Events()
}

func eventually(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestConformance(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		for name, retention := range map[string]jetstream.RetentionPolicy{
			"limits": jetstream.LimitsPolicy, "work queue": jetstream.WorkQueuePolicy, "interest": jetstream.InterestPolicy,
		} {
			t.Run(name, func(t *testing.T) {
				u, err := url.Parse(b.url)
				must(t, err)
				proxy := agenttest.NewProxy(t, u.Host)
				agenttest.TestAdapter(t, agenttest.Broker{
					New: func(t *testing.T) agents.Adapter {
						return nats.New("nats-test", identity(), config("nats://"+proxy.Addr()), slog.New(slog.DiscardHandler))
					},
					Channel: func(t *testing.T) string {
						return b.stream(t, retention, nil).CachedInfo().Config.Name
					},
					Publish: func(t *testing.T, channel string, msgs ...agenttest.Message) {
						for _, m := range msgs {
							_, err := b.js.PublishMsgAsync(message(m, channel+".a"))
							must(t, err)
						}
						select {
						case <-b.js.PublishAsyncComplete():
						case <-time.After(10 * time.Second):
							t.Fatal("publishing takes more than 10s")
						}
					},
					Artefacts: b.consumers,
					Cut:       func(*testing.T) { proxy.Cut() },
					Heal:      func(*testing.T) { proxy.Heal() },
				})
			})
		}
	})
}
