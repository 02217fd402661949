package rabbitmq_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/rabbitmq"
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

// config is what an agent needs to reach the test's virtual host.
func config(s *broker.Server, url string) rabbitmq.Config {
	c := rabbitmq.DefaultConfig()
	c.URL, c.ManagementURL = url, s.ManagementURL
	c.Tap.PollInterval = 200 * time.Millisecond
	return c
}

func identity() agents.Identity {
	return agents.Identity{Agent: "test", Incarnation: fmt.Sprintf("i%d", serial.Add(1))}
}

// bench is a virtual host with a publisher.
type bench struct {
	*broker.Server
	vhost, url string
	ch         *amqp.Channel
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s := broker.RabbitMQ(t)
	b := &bench{Server: s}
	b.vhost, b.url = s.VHost(t)
	b.ch = channel(t, broker.DialAMQP(t, b.url))
	if err := b.ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return b
}

func channel(t *testing.T, c *amqp.Connection) *amqp.Channel {
	t.Helper()
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// queue declares a durable queue bound to an exchange of the given kind.
func (b *bench) queue(t *testing.T, queue, exchange, kind, key string) {
	t.Helper()
	must(t, b.ch.ExchangeDeclare(exchange, kind, true, false, false, false, nil))
	_, err := b.ch.QueueDeclare(queue, true, false, false, false, nil)
	must(t, err)
	must(t, b.ch.QueueBind(queue, key, exchange, false, nil))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// publish sends and waits for all confirmations.
func (b *bench) publish(t *testing.T, exchange, key string, msgs ...amqp.Publishing) {
	t.Helper()
	must(t, publish(b.ch, exchange, key, msgs...))
}

func publish(ch *amqp.Channel, exchange, key string, msgs ...amqp.Publishing) error {
	var pending []*amqp.DeferredConfirmation
	for _, m := range msgs {
		c, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, m)
		if err != nil {
			return err
		}
		pending = append(pending, c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for _, c := range pending {
		if ok, err := c.WaitContext(ctx); err != nil || !ok {
			return fmt.Errorf("not confirmed: %w", err)
		}
	}
	return nil
}

// ours lists the agents' queues of the virtual host.
func (b *bench) ours(t *testing.T) []string {
	t.Helper()
	var qs []struct{ Name string }
	b.API(t, http.MethodGet, "/api/queues/"+url.PathEscape(b.vhost)+"?columns=name", nil, &qs)
	var out []string
	for _, q := range qs {
		if strings.HasPrefix(q.Name, "sb.") {
			out = append(out, q.Name)
		}
	}
	return out
}

func connected(t *testing.T, id agents.Identity, cfg rabbitmq.Config) *rabbitmq.Adapter {
	t.Helper()
	must(t, cfg.Validate())
	a := rabbitmq.New("rabbit-test", id, cfg, slog.New(slog.DiscardHandler))
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

// running is a tap in its goroutine.
type running struct {
	*agenttest.Sink
	stop context.CancelFunc
	done chan error
}

func startTap(t *testing.T, a *rabbitmq.Adapter, channel string, sink agents.TapSink) *running {
	t.Helper()
	plan, err := a.PlanTap(t.Context(), channel)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{stop: cancel, done: make(chan error, 1)}
	if sink == nil {
		r.Sink = agenttest.NewSink()
		sink = r.Sink
	}
	ready := make(chan struct{})
	go func() { r.done <- a.Tap(ctx, plan, agents.Position{}, sink, func() { close(ready) }) }()
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

// eventually polls another process.
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
	for _, technique := range []string{"mirrored-binding", "stream"} {
		t.Run(technique, func(t *testing.T) { conformance(t, technique == "stream") })
	}
}

func conformance(t *testing.T, stream bool) {
	b := newBench(t)
	cfg := config(b.Server, "")
	if stream {
		cfg.StreamTap.Channels = []string{"orders.*"}
	}
	u, err := url.Parse(b.url)
	must(t, err)
	proxy := agenttest.NewProxy(t, u.Host)
	u.Host = proxy.Addr()
	cfg.URL = u.String()
	n := 0
	agenttest.TestAdapter(t, agenttest.Broker{
		New: func(t *testing.T) agents.Adapter {
			return rabbitmq.New("rabbit-test", identity(), cfg, slog.New(slog.DiscardHandler))
		},
		Channel: func(t *testing.T) string {
			n++
			name := fmt.Sprintf("orders.%d", n)
			b.queue(t, name, "x."+name, "topic", "key.#")
			return name
		},
		Publish: func(t *testing.T, channel string, msgs ...agenttest.Message) {
			out := make([]amqp.Publishing, len(msgs))
			for i, m := range msgs {
				out[i] = amqp.Publishing{MessageId: m.ID, Body: m.Body, Headers: amqp.Table{}}
				for _, h := range m.Headers {
					out[i].Headers[h.Key] = h.Value
				}
			}
			b.publish(t, "x."+channel, "key.a", out...)
		},
		Artefacts: func(t *testing.T) []string {
			// The stream of a stream tap stays on purpose.
			return slices.DeleteFunc(b.ours(t), func(q string) bool { return strings.HasPrefix(q, "sb.tapstream.") })
		},
		Cut:           func(*testing.T) { proxy.Cut() },
		Heal:          func(*testing.T) { proxy.Heal() },
		UniqueHeaders: true, // the client library reads headers into a map
	})
}
