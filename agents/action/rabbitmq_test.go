package action

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/rabbitmq"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// onRabbitMQ is a rig whose broker is a real one, and a channel to it with
// confirms.
func onRabbitMQ(t *testing.T) (*rig, *amqp.Channel) {
	t.Helper()
	s := broker.RabbitMQ(t)
	_, url := s.VHost(t)
	cfg := rabbitmq.DefaultConfig()
	cfg.URL, cfg.ManagementURL = url, s.ManagementURL
	a := rabbitmq.New("b", agents.Identity{Agent: "a1", Incarnation: "i1"}, cfg, slog.New(slog.DiscardHandler))
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
	ch, err := broker.DialAMQP(t, url).Channel()
	check(t, err)
	check(t, ch.Confirm(false))
	r := newRig(t, agenttest.NewQueues("unused"))
	r.real = a
	return r, ch
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func waits(t *testing.T, ch *amqp.Channel, queue string, n int) {
	t.Helper()
	have := 0
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		q, err := ch.QueueDeclarePassive(queue, false, false, false, false, nil)
		check(t, err)
		if have = q.Messages; have == n {
			return
		}
	}
	t.Fatalf("%d messages wait in %s, want %d", have, queue, n)
}

// dieOnRabbitMQ lets n messages die in orders, by expiry and by rejection in
// turns, with everything in them that must not be carried along.
func dieOnRabbitMQ(t *testing.T, ch *amqp.Channel, n int) (bodies [][]byte) {
	t.Helper()
	check(t, ch.ExchangeDeclare("x", "direct", true, false, false, false, nil))
	for name, args := range map[string]amqp.Table{"dead": nil, "elsewhere": nil, "orders": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}} {
		_, err := ch.QueueDeclare(name, true, false, false, false, args)
		check(t, err)
	}
	check(t, ch.QueueBind("orders", "k", "x", false, nil))
	for i := range n {
		m := amqp.Publishing{
			MessageId: fmt.Sprint("m-", i), Body: fmt.Appendf(nil, "%d \xff\x00", i), UserId: "guest", Type: "order", DeliveryMode: amqp.Persistent,
			Headers: amqp.Table{"CC": []any{"elsewhere"}, "n": int16(i), "raw": []byte{0, 0xff}, "price": amqp.Decimal{Scale: 2, Value: -1}, "nested": amqp.Table{"a": []any{true, nil}}},
		}
		if i%2 == 0 {
			m.Expiration = "1"
		}
		c, err := ch.PublishWithDeferredConfirm("x", "k", false, false, m)
		check(t, err)
		c.Wait()
		if i%2 == 1 {
			var d amqp.Delivery
			for ok := false; !ok; { // what expires before it goes by itself
				d, ok, err = ch.Get("orders", false)
				check(t, err)
			}
			check(t, d.Reject(false))
		}
		waits(t, ch, "dead", i+1)
		bodies = append(bodies, m.Body)
	}
	_, err := ch.QueuePurge("elsewhere", false)
	check(t, err)
	return bodies
}

// TestRedriveOnRabbitMQ sends dead letters back to where they died: no death, no
// CC, no user id goes with them, everything else does.
func TestRedriveOnRabbitMQ(t *testing.T) {
	t.Parallel()
	r, ch := onRabbitMQ(t)
	bodies := dieOnRabbitMQ(t, ch, 20)
	_, err := ch.QueuePurge("orders", false)
	check(t, err)
	ev := want(t, r.do(r.dispatch(controlbus.CommandRedrive, "dead", controlbus.RedriveArgs{})), controlbus.CommandSucceeded, 20)
	if ev.SentTo["b/orders"] != 20 {
		t.Errorf("evidence %+v", ev)
	}
	waits(t, ch, "dead", 0)
	waits(t, ch, "orders", 20)
	waits(t, ch, "elsewhere", 0)
	for i := range 20 {
		d, ok, err := ch.Get("orders", true)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if !bytes.Equal(d.Body, bodies[i]) || d.MessageId != fmt.Sprint("m-", i) || d.Type != "order" || d.DeliveryMode != amqp.Persistent || d.UserId != "" || d.Expiration != "" {
			t.Errorf("message %d: %+v", i, d)
		}
		n, _ := d.Headers["n"].(int16)
		raw, _ := d.Headers["raw"].([]byte)
		price, _ := d.Headers["price"].(amqp.Decimal)
		if int(n) != i || !bytes.Equal(raw, []byte{0, 0xff}) || price.Value != -1 || price.Scale != 2 || d.Headers["nested"] == nil {
			t.Errorf("message %d: headers %v", i, d.Headers)
		}
		for k := range d.Headers {
			if strings.HasPrefix(k, "x-death") || strings.HasPrefix(k, "x-first-death") || k == "CC" {
				t.Errorf("message %d carries %s", i, k)
			}
		}
	}
}

// TestPurgeOnRabbitMQ takes out what matches, leaves the rest where it was, and
// brings back what it took.
func TestPurgeOnRabbitMQ(t *testing.T) {
	t.Parallel()
	r, ch := onRabbitMQ(t)
	_, err := ch.QueueDeclare("q", true, false, false, false, nil)
	check(t, err)
	for i := range 300 {
		kind := "keep"
		if i%3 == 0 {
			kind = "drop"
		}
		c, err := ch.PublishWithDeferredConfirm("", "q", false, false, amqp.Publishing{MessageId: fmt.Sprint(i), Type: kind, Body: []byte(kind), Headers: amqp.Table{"i": int32(i), "b": []byte{0xfe}}})
		check(t, err)
		c.Wait()
	}
	d := r.dispatch(controlbus.CommandPurge, "q", controlbus.PurgeArgs{Filter: "body:drop"})
	want(t, r.do(d), controlbus.CommandSucceeded, 100)
	waits(t, ch, "q", 200)
	for i := range 300 {
		if i%3 == 0 {
			continue
		}
		got, ok, err := ch.Get("q", true)
		if err != nil || !ok || got.MessageId != fmt.Sprint(i) {
			t.Fatalf("left: got %q, %v, %v; want %d", got.MessageId, ok, err, i)
		}
	}
	// The undo replays from the agent's own copy.
	undo := r.dispatch(controlbus.CommandReplay, "q", controlbus.ReplayArgs{}, func(u *link.Dispatch) { u.UndoOf = d.Command })
	want(t, r.do(undo), controlbus.CommandSucceeded, 100)
	waits(t, ch, "q", 100)
	for i := 0; i < 300; i += 3 {
		got, ok, err := ch.Get("q", true)
		n, _ := got.Headers["i"].(int32)
		raw, _ := got.Headers["b"].([]byte)
		if err != nil || !ok || got.MessageId != fmt.Sprint(i) || int(n) != i || !bytes.Equal(raw, []byte{0xfe}) {
			t.Fatalf("brought back: got %+v, %v, %v; want %d", got, ok, err, i)
		}
	}
}

// TestTestOnRabbitMQ sends a test message that no consumer gets.
func TestTestOnRabbitMQ(t *testing.T) {
	t.Parallel()
	r, ch := onRabbitMQ(t)
	check(t, ch.ExchangeDeclare("x", "fanout", true, false, false, false, nil))
	_, err := ch.QueueDeclare("q", true, false, false, false, nil)
	check(t, err)
	check(t, ch.QueueBind("q", "", "x", false, nil))
	res := r.do(r.dispatch(controlbus.CommandTest, "q", controlbus.TestArgs{Run: "run-1", Body: "hello", Separate: true}))
	var ev TestEvidence
	check(t, json.Unmarshal(res.Evidence, &ev))
	if res.Outcome != controlbus.CommandSucceeded || ev.SeparatedAt == 0 {
		t.Errorf("got %s, %q, %+v", res.Outcome, res.Detail, ev)
	}
	waits(t, ch, "q", 0)
}
