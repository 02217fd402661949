package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/rabbitmq"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// fields are headers of every kind that RabbitMQ's AMQP has.
var fields = []agents.Field{
	{Key: "text", Value: "grün"}, {Key: "broken text", Value: "\xff\xfe"}, {Key: "bytes", Value: []byte{0, 0xff, 7}},
	{Key: "none", Value: nil}, {Key: "yes", Value: true}, {Key: "i8", Value: int8(-8)}, {Key: "u8", Value: uint8(200)},
	{Key: "i16", Value: int16(-16)}, {Key: "u16", Value: uint16(60_000)}, {Key: "i32", Value: int32(-32)}, {Key: "u32", Value: uint32(4e9)},
	{Key: "i64", Value: int64(-1 << 62)}, {Key: "f32", Value: float32(0.1)}, {Key: "f64", Value: 0.1},
	{Key: "time", Value: time.Unix(1_700_000_000, 0)},
	{Key: "decimal", Value: map[string]any{"amqp:decimal-scale": uint8(2), "amqp:decimal-value": int32(-1999)}},
	{Key: "list", Value: []any{"a", int64(1), []byte{1}, []any{true}, map[string]any{"in": int16(3)}}},
	{Key: "table", Value: map[string]any{"a": "b", "deep": map[string]any{"x": int32(1), "none": nil}}},
}

func TestVerbs(t *testing.T) {
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) { verbs(t, kind) })
	}
}

func verbs(t *testing.T, kind string) {
	b := newBench(t)
	u, err := url.Parse(b.url)
	must(t, err)
	proxy := agenttest.NewProxy(t, u.Host)
	u.Host = proxy.Addr()
	cfg := config(b.Server, u.String())
	n := 0
	agenttest.TestVerbs(t, agenttest.Verbs{
		New: func(t *testing.T) agents.Adapter {
			return rabbitmq.New("rabbit-test", identity(), cfg, slog.New(slog.DiscardHandler))
		},
		Channel: func(t *testing.T) string {
			n++
			name := fmt.Sprintf("verbs.%d", n)
			args := amqp.Table{amqp.QueueTypeArg: kind}
			_, err := b.ch.QueueDeclare(name, true, false, false, false, args)
			must(t, err)
			return name
		},
		Waiting: func(t *testing.T, channel string) int64 { return b.waiting(t, channel) },
		Remove: func(t *testing.T, channel string) {
			_, err := b.ch.QueueDelete(channel, false, false, false)
			must(t, err)
		},
		Missing: "no.such.queue",
		Fields:  fields,
		Cut:     func(*testing.T) { proxy.Cut() },
		Heal:    func(*testing.T) { proxy.Heal() },
	})
}

// waiting is the exact count of ready messages.
func (b *bench) waiting(t *testing.T, queue string) int64 {
	t.Helper()
	st, err := b.ch.QueueDeclarePassive(queue, false, false, false, false, nil)
	must(t, err)
	return int64(st.Messages)
}

// TestMoveRate moves messages from one queue to another, each confirmed before
// it is acknowledged. 5,000 a second are asked for on a machine that does
// nothing else; the bound leaves room for one that tests share.
func TestMoveRate(t *testing.T) {
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	n := 10_000
	for _, q := range []string{"from", "to"} {
		_, err := b.ch.QueueDeclare(q, true, false, false, false, nil)
		must(t, err)
	}
	body := make([]byte, 512)
	msgs := make([]*agents.Message, n)
	for i := range msgs {
		msgs[i] = &agents.Message{Body: body, Persistent: true, MessageID: fmt.Sprint(i)}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	from, err := a.Outlet(ctx, "from")
	must(t, err)
	start := time.Now()
	for _, err := range from.Send(ctx, msgs) {
		must(t, err)
	}
	sent := time.Since(start)
	must(t, from.Close(ctx))
	to, err := a.Outlet(ctx, "to")
	must(t, err)
	in, err := a.Intake(ctx, "from", agents.IntakeOptions{Window: 512})
	must(t, err)
	start = time.Now()
	for moved := 0; moved < n; {
		batch, err := in.Next(ctx, 256)
		must(t, err)
		for _, err := range to.Send(ctx, batch) {
			must(t, err)
		}
		must(t, in.Accept(ctx, batch))
		moved += len(batch)
	}
	moved := time.Since(start)
	must(t, in.Close(ctx))
	must(t, to.Close(ctx))
	if got := b.waiting(t, "to"); got != int64(n) {
		t.Errorf("%d messages arrived, want %d", got, n)
	}
	rate := func(d time.Duration) float64 { return float64(n) / d.Seconds() }
	t.Logf("%d messages of 512 B: sent with confirms %.0f/s, moved %.0f/s", n, rate(sent), rate(moved))
	if rate(sent) < 1000 || rate(moved) < 1000 {
		t.Errorf("sent %.0f/s, moved %.0f/s: is the window used?", rate(sent), rate(moved))
	}
}

// A queue that refuses messages when it is full gives nacks, which are no loss
// of the connection.
func TestFullQueueIsUnavailable(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	_, err := b.ch.QueueDeclare("full", true, false, false, false, amqp.Table{"x-max-length": 3, "x-overflow": "reject-publish"})
	must(t, err)
	o, err := a.Outlet(t.Context(), "full")
	must(t, err)
	defer o.Close(context.Background())
	refused := 0
	msgs := make([]*agents.Message, 20)
	for i := range msgs {
		msgs[i] = &agents.Message{Body: []byte("x")}
	}
	for _, err := range o.Send(t.Context(), msgs) {
		if err != nil && !errors.Is(err, controlbus.ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		if err != nil {
			refused++
		}
	}
	if waits := int(b.waiting(t, "full")); refused == 0 || refused+waits != 20 {
		t.Errorf("%d refused and %d waiting of 20", refused, waits)
	}
}

// What AMQP cannot carry is refused for that message alone.
func TestInvalidMessagesAreRefusedAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	_, err := b.ch.QueueDeclare("q", true, false, false, false, nil)
	must(t, err)
	o, err := a.Outlet(t.Context(), "q")
	must(t, err)
	defer o.Close(context.Background())
	long := string(make([]byte, 256))
	bad := []*agents.Message{
		{MessageID: long}, {ContentType: long}, {Headers: []agents.Field{{Key: long}}}, {Priority: 256},
		{Headers: []agents.Field{{Key: "n", Value: uint64(1 << 63)}}}, {Headers: []agents.Field{{Key: "n", Value: struct{}{}}}},
		{Headers: []agents.Field{{Key: "h", Value: make([]byte, 200_000)}}},
		{Headers: []agents.Field{{Key: "h", Value: map[string]any{long: "x"}}}},
	}
	msgs := []*agents.Message{{Body: []byte("first")}}
	for _, m := range bad {
		msgs = append(msgs, m, &agents.Message{Body: []byte("good"), Headers: []agents.Field{{Key: "h", Value: make([]byte, 100_000)}, {Key: "CC", Value: []any{"q"}}}})
	}
	for i, err := range o.Send(t.Context(), msgs) {
		if wantBad := i%2 == 1; wantBad != errors.Is(err, controlbus.ErrInvalid) || !wantBad && err != nil {
			t.Errorf("message %d: got %v", i, err)
		}
	}
	// CC would have routed copies.
	if n := b.waiting(t, "q"); n != int64(len(bad)+1) {
		t.Errorf("%d messages arrived, want %d", n, len(bad)+1)
	}
}

// Messages that others took meanwhile are not waited for.
func TestIntakeEndsWhenOthersEmptyTheQueue(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	_, err := b.ch.QueueDeclare("q", true, false, false, false, nil)
	must(t, err)
	b.publish(t, "", "q", make([]amqp.Publishing, 100)...)
	in, err := a.Intake(t.Context(), "q", agents.IntakeOptions{Window: 10})
	must(t, err)
	defer in.Close(context.Background())
	_, err = b.ch.QueuePurge("q", false)
	must(t, err)
	n := 0
	for {
		batch, err := in.Next(t.Context(), 50)
		if err != nil {
			break
		}
		n += len(batch)
		must(t, in.Accept(t.Context(), batch))
	}
	if n != 0 {
		t.Errorf("took %d messages from a queue that was emptied", n)
	}
}

// A producer can write headers that the library refuses to read: the intake says
// so instead of trying for ever. The queue can still be emptied.
func TestUnreadableHeaders(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	_, err := b.ch.QueueDeclare("q", true, false, false, false, nil)
	must(t, err)
	b.publish(t, "", "q", amqp.Publishing{Headers: amqp.Table{"list": make([]any, 15_000)}})
	for range 2 { // the connection breaks each time
		in, err := a.Intake(t.Context(), "q", agents.IntakeOptions{})
		must(t, err)
		if _, err := in.Next(t.Context(), 10); !errors.Is(err, controlbus.ErrInvalid) || errors.Is(err, agents.ErrNotConnected) || !strings.Contains(err.Error(), "purge") {
			t.Errorf("take a message that cannot be read: got %v, want ErrInvalid and what to do", err)
		}
		_ = in.Close(t.Context())
	}
	eventually(t, "the message to be the queue's again", 10*time.Second, func() bool { return b.waiting(t, "q") == 1 })
	if n, err := a.Purge(t.Context(), "q", ""); err != nil || n != 1 {
		t.Errorf("purge: removed %d, %v", n, err)
	}
}

// Beside an exclusive consumer, and on a queue with a single active consumer
// that is somebody else, messages are got one by one.
func TestIntakeBesideOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	for name, args := range map[string]amqp.Table{"exclusive": nil, "single": {"x-single-active-consumer": true}} {
		_, err := b.ch.QueueDeclare(name, true, false, false, false, args)
		must(t, err)
		other := channel(t, broker.DialAMQP(t, b.url))
		must(t, other.Qos(1, 0, false))
		_, err = other.Consume(name, "app", false, name == "exclusive", false, false, nil)
		must(t, err)
		b.publish(t, "", name, make([]amqp.Publishing, 31)...)
		eventually(t, "the consumer to hold its message", 10*time.Second, func() bool { return b.waiting(t, name) == 30 })
		in, err := a.Intake(t.Context(), name, agents.IntakeOptions{})
		must(t, err)
		n := 0
		for {
			batch, err := in.Next(t.Context(), 50)
			if err != nil {
				break
			}
			n += len(batch)
			must(t, in.Accept(t.Context(), batch))
		}
		must(t, in.Close(t.Context()))
		if n != 30 {
			t.Errorf("%s: took %d messages, want the 30 that waited", name, n)
		}
	}
}

// Looking into a quorum queue with a delivery limit must never cost a message.
func TestLookDoesNotCostMessages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	ctx := t.Context()
	for name, limit := range map[string]int{"low": 3, "some": 8} {
		_, err := b.ch.QueueDeclare(name, true, false, false, false, amqp.Table{amqp.QueueTypeArg: "quorum", "x-delivery-limit": limit})
		must(t, err)
		b.publish(t, "", name, amqp.Publishing{Body: []byte("1")}, amqp.Publishing{Body: []byte("2")})
		looked := 0
		for range 20 {
			// What a look gives back arrives a moment later.
			eventually(t, "both messages to wait in "+name, 10*time.Second, func() bool { return b.waiting(t, name) == 2 })
			msgs, traces, err := a.Peek(ctx, name, 10, true)
			if err == nil && (traces == "" || len(msgs) != 2) {
				t.Errorf("a look at %d messages that says it leaves %q", len(msgs), traces)
			}
			if err == nil {
				looked++
			} else if !errors.Is(err, controlbus.ErrUnsupported) {
				t.Fatal(err)
			}
		}
		t.Logf("delivery limit %d: %d of 20 looks allowed", limit, looked)
		eventually(t, "both messages to wait in "+name, 10*time.Second, func() bool { return b.waiting(t, name) == 2 })
		if limit == 3 && looked > 0 || limit == 8 && looked != 4 {
			t.Errorf("delivery limit %d: %d looks", limit, looked)
		}
	}
}

// A stream is read as often as one likes, and nothing is taken out of it.
func TestStreamIsReadNotTaken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	ctx := t.Context()
	_, err := b.ch.QueueDeclare("log", true, false, false, false, amqp.Table{amqp.QueueTypeArg: "stream"})
	must(t, err)
	var msgs []amqp.Publishing
	for i := range 30 {
		msgs = append(msgs, amqp.Publishing{Body: fmt.Appendf(nil, "%d", i)})
	}
	b.publish(t, "", "log", msgs...)
	view, err := a.Inspect(ctx, "log")
	must(t, err)
	if view.Kind != "stream" || view.UpTo == "" {
		t.Errorf("inspect: %+v", view)
	}
	if msgs, traces, err := a.Peek(ctx, "log", 5, false); err != nil || len(msgs) != 5 || traces != "" || string(msgs[0].Body) != "0" {
		t.Errorf("peek: %d messages, %q, %v", len(msgs), traces, err)
	}
	if _, err := a.Intake(ctx, "log", agents.IntakeOptions{}); !errors.Is(err, controlbus.ErrUnsupported) {
		t.Errorf("taking: got %v, want ErrUnsupported", err)
	}
	if _, err := a.Purge(ctx, "log", ""); !errors.Is(err, controlbus.ErrUnsupported) {
		t.Errorf("purge: got %v, want ErrUnsupported", err)
	}
	for _, kind := range []controlbus.CommandKind{controlbus.CommandPurge, controlbus.CommandRedrive, controlbus.CommandDiscard} {
		if _, err := a.PlanCommand(ctx, kind, "log"); !errors.Is(err, controlbus.ErrUnsupported) {
			t.Errorf("plan of %s: got %v, want ErrUnsupported", kind, err)
		}
	}
	b.publish(t, "", "log", amqp.Publishing{Body: []byte("later")})
	after := ""
	for _, want := range []int{30, 20} {
		in, err := a.Intake(ctx, "log", agents.IntakeOptions{Copy: true, UpTo: view.UpTo, After: after, Window: 8})
		must(t, err)
		n := 0
		for {
			batch, err := in.Next(ctx, 5)
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			for _, m := range batch {
				if n++; n == 10 {
					after = m.Position
				}
			}
			must(t, in.Accept(ctx, batch))
		}
		must(t, in.Close(ctx))
		if n != want {
			t.Errorf("copied %d messages, want %d", n, want)
		}
	}
	q, err := b.ch.QueueDeclare("plain", true, false, false, false, nil)
	must(t, err)
	if _, err := a.Intake(ctx, q.Name, agents.IntakeOptions{Copy: true}); !errors.Is(err, controlbus.ErrUnsupported) {
		t.Errorf("copying from a queue: got %v, want ErrUnsupported", err)
	}
}

// A purge leaves what a consumer holds.
func TestPurgeLeavesUnacknowledged(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	_, err := b.ch.QueueDeclare("q", true, false, false, false, nil)
	must(t, err)
	b.publish(t, "", "q", make([]amqp.Publishing, 10)...)
	app := channel(t, broker.DialAMQP(t, b.url))
	for range 3 {
		_, ok, err := app.Get("q", false)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	if n, err := a.Purge(t.Context(), "q", ""); err != nil || n != 7 {
		t.Errorf("purged %d, %v; want 7", n, err)
	}
	must(t, app.Close())
	eventually(t, "the consumer's messages to be back", 10*time.Second, func() bool { return b.waiting(t, "q") == 3 })
}
