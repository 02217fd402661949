package rabbitmq_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/rabbitmq"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

func streamConfig(b *bench) rabbitmq.Config {
	cfg := config(b.Server, b.url)
	cfg.StreamTap.Channels = []string{"orders*"}
	return cfg
}

// startTapFrom is startTap with a position.
func startTapFrom(t *testing.T, a *rabbitmq.Adapter, channel string, from agents.Position) *running {
	t.Helper()
	plan, err := a.PlanTap(t.Context(), channel)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Sink: agenttest.NewSink(), stop: cancel, done: make(chan error, 1)}
	ready := make(chan struct{})
	go func() { r.done <- a.Tap(ctx, plan, from, r.Sink, func() { close(ready) }) }()
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

func TestStreamTapIsPlannedAndListed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "topic", "orders.#")
	b.queue(t, "other", "x", "topic", "other.#")
	a := connected(t, identity(), streamConfig(b))
	plan, err := a.PlanTap(t.Context(), "orders")
	must(t, err)
	if plan.Technique != "stream" || !plan.Resumable || !strings.Contains(plan.Artefacts[0], "sb.tapstream.test.orders") {
		t.Errorf("plan: %+v", plan)
	}
	if plan, err := a.PlanTap(t.Context(), "other"); err != nil || plan.Technique != "mirrored-binding" || plan.Resumable {
		t.Errorf("plan of a channel that is not configured: %+v, %v", plan, err)
	}
	tap := startTapFrom(t, a, "orders", agents.Position{})
	b.publish(t, "x", "orders.new", messages(3)...)
	b.publish(t, "x", "other.new", amqp.Publishing{Body: []byte("not ours")})
	tap.saw(t, 3)
	var q struct {
		Durable   bool           `json:"durable"`
		Arguments map[string]any `json:"arguments"`
	}
	b.API(t, http.MethodGet, "/api/queues/"+b.vhost+"/sb.tapstream.test.orders", nil, &q)
	if !q.Durable || q.Arguments["x-queue-type"] != "stream" || q.Arguments["x-max-length-bytes"] != float64(1<<30) || q.Arguments["x-max-age"] != "86400s" {
		t.Errorf("stream: %+v", q)
	}
	tap.stop()
	must(t, tap.wait(t))
	if ours := b.ours(t); len(ours) != 1 {
		t.Errorf("after the tap there are %q, want the stream", ours)
	}
	// It is no channel, cannot be tapped itself, and is listed with its reason.
	if list, err := a.Channels(t.Context(), "*"); err != nil || fmt.Sprint(list) != "[orders other]" {
		t.Errorf("channels: %q, %v", list, err)
	}
	if left, err := a.Leftovers(t.Context()); err != nil || len(left) != 1 || !strings.Contains(left[0], "on purpose") {
		t.Errorf("leftovers while configured: %q, %v", left, err)
	}
	if left, err := connected(t, identity(), config(b.Server, b.url)).Leftovers(t.Context()); err != nil || len(left) != 1 || !strings.Contains(left[0], "not configured any more") {
		t.Errorf("leftovers when not configured: %q, %v", left, err)
	}
}

// A queue of the name that somebody else made is left alone.
func TestStreamNameIsTaken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "fanout", "")
	_, err := b.ch.QueueDeclare("sb.tapstream.test.orders", true, false, false, false, nil)
	must(t, err)
	a := connected(t, identity(), streamConfig(b))
	plan, err := a.PlanTap(t.Context(), "orders")
	must(t, err)
	if err := a.Tap(t.Context(), plan, agents.Position{}, agenttest.NewSink(), func() {}); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("tap: got %v, want ErrConflict", err)
	}
}

// The same message read by two taps has one uid, a stream deleted and made anew
// is noticed, and bindings changed while nobody tapped are put right.
func TestStreamIdentityAndBindings(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "direct", "a")
	cfg := streamConfig(b)
	a := connected(t, identity(), cfg)
	tap := startTapFrom(t, a, "orders", agents.Position{})
	begun := tap.Begun()
	b.publish(t, "x", "a", messages(2)...)
	first := tap.saw(t, 2)
	tap.stop()
	must(t, tap.wait(t))
	again := startTapFrom(t, connected(t, identity(), cfg), "orders", begun)
	second := again.saw(t, 2)
	if first[0].UID != second[0].UID || first[1].UID != second[1].UID || first[0].UID == first[1].UID {
		t.Errorf("uids %s %s, read again %s %s", first[0].UID, first[1].UID, second[0].UID, second[1].UID)
	}
	for _, h := range second[0].Headers {
		if strings.HasPrefix(h.Key, "x-stream") {
			t.Errorf("the tap's own header %s is on the message", h.Key)
		}
	}
	pos := again.Positions()[1]
	again.stop()
	must(t, again.wait(t))

	must(t, b.ch.QueueUnbind("orders", "a", "x", nil))
	must(t, b.ch.QueueBind("orders", "b", "x", false, nil))
	tap = startTapFrom(t, a, "orders", pos)
	b.publish(t, "x", "a", amqp.Publishing{Body: []byte("old key")})
	b.publish(t, "x", "b", amqp.Publishing{Body: []byte("new key")})
	if got := string(tap.saw(t, 1)[0].Body); got != "new key" {
		t.Errorf("after its bindings changed the tap saw %q", got)
	}
	_, err := b.ch.QueueDelete("sb.tapstream.test.orders", false, false, false)
	must(t, err)
	if err := tap.wait(t); err == nil {
		t.Error("the tap outlived its stream")
	}
	tap = startTapFrom(t, a, "orders", tap.Positions()[0])
	b.publish(t, "x", "b", amqp.Publishing{Body: []byte("anew")})
	if got := string(tap.saw(t, 1)[0].Body); got != "anew" || tap.Lost() != -1 || tap.Positions()[0].Stream == pos.Stream {
		t.Errorf("on the new stream: %q, lost %d, position %+v after %+v", got, tap.Lost(), tap.Positions()[0], pos)
	}
}

// What a stream keeps of a message.
func TestStreamKeepsProperties(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "topic", "#")
	tap := startTapFrom(t, connected(t, identity(), streamConfig(b)), "orders", agents.Position{})
	b.publish(t, "x", "orders.new", amqp.Publishing{
		MessageId: "m", CorrelationId: "c", ReplyTo: "r", AppId: "shop", ContentType: "text/plain", Timestamp: time.Now().Add(-time.Minute), Priority: 3, DeliveryMode: 2,
		Headers: amqp.Table{"s": "text", "n": int64(1) << 60, "b": true, "x-error-type": "Late", "list": []any{amqp.Table{"k": "v"}}}, Body: []byte{0, 255},
	})
	ev := tap.saw(t, 1)[0]
	if ev.MessageID != "m" || ev.CorrelationID != "c" || ev.ReplyTo != "r" || ev.Service != "shop" || ev.ContentType != "text/plain" ||
		ev.RoutingKey != "orders.new" || ev.TimeSource != controlbus.TimeProducer || string(ev.Body) != "\x00\xff" || ev.ErrorType != "Late" || ev.Position != 0 {
		t.Errorf("event: %+v", ev)
	}
	have := map[string]string{}
	for _, h := range ev.Headers {
		have[h.Key] = h.Value
	}
	for k, want := range map[string]string{"s": "text", "n": "1152921504606846976", "b": "true", "exchange": "x", "priority": "3"} {
		if have[k] != want {
			t.Errorf("header %s: got %q, want %q", k, have[k], want)
		}
	}
	if nested, kept := have["list[0].k"]; kept {
		t.Errorf("a nested header came as %q: the plan says that streams do not keep them", nested)
	}
}

// Dead letters reach a stream from 4.0 on alone; the plan warns before.
func TestStreamOfDeadLetters(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders.dead", "dlx", "fanout", "")
	_, err := b.ch.QueueDeclare("work", true, false, false, false, amqp.Table{"x-dead-letter-exchange": "dlx", "x-message-ttl": int32(1)})
	must(t, err)
	a := connected(t, identity(), streamConfig(b))
	plan, err := a.PlanTap(t.Context(), "orders.dead")
	must(t, err)
	old := !strings.HasPrefix(b.Version, "4.")
	if warned := strings.Contains(strings.Join(plan.Impact, " "), "do not tap dead letter channels"); warned != old {
		t.Errorf("RabbitMQ %s: warned %v: %q", b.Version, warned, plan.Impact)
	}
	tap := startTapFrom(t, a, "orders.dead", agents.Position{})
	b.publish(t, "", "work", amqp.Publishing{MessageId: "late", Body: []byte("late")})
	eventually(t, "the dead letter", 10*time.Second, func() bool { return b.depth(t, "orders.dead") == 1 })
	b.publish(t, "dlx", "", amqp.Publishing{MessageId: "direct", Body: []byte("direct")})
	if old {
		if got := tap.saw(t, 1)[0]; got.MessageID != "direct" {
			t.Errorf("first came %q: the plan says that dead letters do not", got.MessageID)
		}
		return
	}
	got := tap.saw(t, 2)[0]
	if got.MessageID != "late" || got.Outcome != controlbus.OutcomeDeadLettered || got.DeadLetterReason != "expired" || got.DeadLetterSource != "work" {
		t.Errorf("dead letter: %q, outcome %v, reason %q, source %q", got.MessageID, got.Outcome, got.DeadLetterReason, got.DeadLetterSource)
	}
}

// What the stream's limits took while no agent read it is told, and the offsets
// that the broker takes for itself are no loss.
func TestStreamLimitIsTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "fanout", "")
	cfg := streamConfig(b)
	cfg.StreamTap.MaxBytes = 10 << 20
	a := connected(t, identity(), cfg)
	tap := startTapFrom(t, a, "orders", agents.Position{})
	begun := tap.Begun()
	tap.stop()
	must(t, tap.wait(t))
	const n, size = 4000, 10 << 10 // 40 MiB
	body := make([]byte, size)
	for i := 0; i < n; i += 100 {
		msgs := make([]amqp.Publishing, 100)
		for k := range msgs {
			msgs[k] = amqp.Publishing{MessageId: strconv.Itoa(i + k), Body: body}
		}
		b.publish(t, "x", "", msgs...)
	}
	tap = startTapFrom(t, a, "orders", begun)
	b.publish(t, "x", "", amqp.Publishing{MessageId: "last"})
	eventually(t, "the last message", 20*time.Second, func() bool {
		evs := tap.Events()
		return len(evs) > 0 && evs[len(evs)-1].MessageID == "last"
	})
	got := int64(len(tap.Events()))
	t.Logf("of %d messages of %d bytes a stream of %d bytes kept %d", n, size, cfg.StreamTap.MaxBytes, got-1)
	if got-1 > 2*cfg.StreamTap.MaxBytes/size || got < 100 {
		t.Errorf("the stream kept %d messages of %d bytes", got-1, size)
	}
	if lost := tap.Lost(); lost != -1 {
		t.Errorf("lost %d, want -1 for an unknown number", lost)
	}

	b.queue(t, "orders.2", "y", "fanout", "")
	cfg.StreamTap.MaxBytes = 64 << 20
	tap = startTapFrom(t, connected(t, identity(), cfg), "orders.2", agents.Position{})
	for range n / 100 {
		msgs := make([]amqp.Publishing, 100)
		for k := range msgs {
			msgs[k].Body = body
		}
		b.publish(t, "y", "", msgs...)
	}
	evs := tap.saw(t, n)
	if taken := evs[n-1].Position + 1 - n; tap.Lost() != 0 || taken == 0 {
		t.Errorf("%d of %d messages read as they came are told lost; the broker took %d offsets for itself", tap.Lost(), n, taken)
	}
}

// A stream keeps what was read: that is no backlog.
func TestObserveStream(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.ch.QueueDeclare("log", true, false, false, false, amqp.Table{"x-queue-type": "stream"})
	must(t, err)
	b.publish(t, "", "log", messages(5)...)
	a := connected(t, identity(), config(b.Server, b.url))
	observe := func() (ready, stored int64) {
		md := pmetric.NewMetrics()
		must(t, a.Observe(t.Context(), md))
		ready, stored = -1, -1
		for _, m := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
			if m.Type() != pmetric.MetricTypeGauge {
				continue
			}
			for _, dp := range m.Gauge().DataPoints().All() {
				switch state, _ := dp.Attributes().Get(controlbus.AttrMessageState); {
				case m.Name() == controlbus.MetricChannelStored:
					stored = dp.IntValue()
				case m.Name() == controlbus.MetricChannelMessages && state.Str() == "ready":
					ready = dp.IntValue()
				}
			}
		}
		return ready, stored
	}
	eventually(t, "5 stored and waiting for somebody", 20*time.Second, func() bool {
		ready, stored := observe()
		return ready == 5 && stored == 5
	})
	reader := channel(t, broker.DialAMQP(t, b.url))
	must(t, reader.Qos(10, 0, false))
	_, err = reader.Consume("log", "", false, false, false, false, amqp.Table{"x-stream-offset": "first"})
	must(t, err)
	eventually(t, "nothing to be said of what waits", 20*time.Second, func() bool {
		ready, stored := observe()
		return ready == -1 && stored == 5
	})
}

// TestStreamResumeAfterKillIsExact kills the tap's process again and again,
// the first time before it saw a message, and resumes after the last position
// it told: nothing is missing and nothing comes twice.
func TestStreamResumeAfterKillIsExact(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "fanout", "")
	const n, kills = 3000, 4
	start := func(from agents.Position) (*os.Process, *bufio.Scanner, agents.Position) {
		t.Helper()
		job, err := json.Marshal(tapJob{Config: streamConfig(b), ID: identity(), Channel: "orders", From: from})
		must(t, err)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SIGNALBOX_TAP_PROCESS="+string(job))
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var p agents.Position
			if c, _ := fmt.Sscanf(lines.Text(), "begin %s %d", &p.Stream, &p.Seq); c == 2 {
				from = p
				continue
			}
			if lines.Text() != "ready" {
				t.Fatalf("tap process said %q", lines.Text())
			}
			break
		}
		return cmd.Process, lines, from
	}
	p, _, pos := start(agents.Position{})
	must(t, p.Kill()) // before its first message
	publisher := channel(t, broker.DialAMQP(t, b.url))
	must(t, publisher.Confirm(false))
	sent := make(chan error, 1)
	go func() {
		for i := 0; i < n; i += 50 {
			if err := publish(publisher, "x", "", bodies(i, i+50)...); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	p, lines, _ := start(pos)
	for next := 0; next < n; {
		if !lines.Scan() {
			t.Fatalf("tap process ended after %d messages: %v", next, lines.Err())
		}
		f := strings.Fields(lines.Text())
		if len(f) != 3 || f[2] != strconv.Itoa(next) {
			t.Fatalf("message %d came as %q", next, lines.Text())
		}
		seq, err := strconv.ParseUint(f[1], 10, 64)
		must(t, err)
		pos = agents.Position{Stream: f[0], Seq: seq}
		next++
		if next%(n/(kills+1)) == 0 && next < n {
			must(t, p.Kill())
			p, lines, _ = start(pos)
		}
	}
	must(t, <-sent)
	must(t, p.Kill())
	if ours := b.ours(t); len(ours) != 1 || ours[0] != "sb.tapstream.test.orders" {
		t.Errorf("left behind: %q, want the stream alone", ours)
	}
}

func bodies(from, to int) []amqp.Publishing {
	out := make([]amqp.Publishing, 0, to-from)
	for i := from; i < to; i++ {
		out = append(out, amqp.Publishing{Body: []byte(strconv.Itoa(i))})
	}
	return out
}
