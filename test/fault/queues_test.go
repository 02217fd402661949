package fault

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/test/broker"
)

// queues is a RabbitMQ as an onlooker sees it. Its connection comes back after
// the broker was away.
type queues struct {
	t      *testing.T
	server *broker.Server
	url    string
	conn   *amqp.Connection
	ch     *amqp.Channel
}

func newQueues(t *testing.T, server *broker.Server) *queues {
	t.Helper()
	_, url := server.VHost(t)
	q := &queues{t: t, server: server, url: url}
	t.Cleanup(func() {
		if q.conn != nil {
			_ = q.conn.CloseDeadline(time.Now().Add(time.Second)) // the broker may be away
		}
	})
	return q
}

// channel is one that is open.
func (q *queues) channel() *amqp.Channel {
	q.t.Helper()
	if q.ch != nil && !q.ch.IsClosed() {
		return q.ch
	}
	await(q.t, 30*time.Second, func(context.Context) error {
		if q.conn == nil || q.conn.IsClosed() {
			conn, err := amqp.DialConfig(q.url, amqp.Config{Heartbeat: 10 * time.Second})
			if err != nil {
				return err
			}
			q.conn = conn
		}
		ch, err := q.conn.Channel()
		if err != nil {
			return err
		}
		q.ch = ch
		return ch.Confirm(false)
	})
	return q.ch
}

// declare makes durable queues.
func (q *queues) declare(names ...string) {
	q.t.Helper()
	for _, name := range names {
		q.declareWith(name, nil)
	}
}

func (q *queues) declareWith(name string, args amqp.Table) {
	q.t.Helper()
	if _, err := q.channel().QueueDeclare(name, true, false, false, false, args); err != nil {
		q.t.Fatal(err)
	}
}

// body of the message with a number.
func body(prefix string, i int) string {
	return fmt.Sprintf(`{"%s":%d,"text":"a body of about the size that messages have, so that batches are real"}`, prefix, i)
}

// publish sends n persistent messages, named by prefix and number, and returns
// when the broker has them. expire lets them die at once.
func (q *queues) publish(queue, prefix string, n int, expire ...bool) {
	q.t.Helper()
	ch := q.channel()
	confirms := make([]*amqp.DeferredConfirmation, 0, n)
	for i := range n {
		p := amqp.Publishing{
			DeliveryMode: amqp.Persistent, ContentType: "application/json", MessageId: prefix + "-" + strconv.Itoa(i), Timestamp: time.Now(), Body: []byte(body(prefix, i)),
		}
		if len(expire) > 0 {
			p.Expiration = "0"
		}
		c, err := ch.PublishWithDeferredConfirm("", queue, true, false, p)
		if err != nil {
			q.t.Fatal(err)
		}
		confirms = append(confirms, c)
	}
	ctx, cancel := context.WithTimeout(q.t.Context(), time.Minute)
	defer cancel()
	for _, c := range confirms {
		if ok, err := c.WaitContext(ctx); !ok || err != nil {
			q.t.Fatalf("publish to %s: not confirmed: %v", queue, err)
		}
	}
}

// ready is how many messages wait, not counting those that somebody holds.
func (q *queues) ready(queue string) int {
	q.t.Helper()
	st, err := q.channel().QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		q.t.Fatal(err)
	}
	return st.Messages
}

// depth waits until a queue has so many messages.
func (q *queues) depth(queue string, want int) {
	q.t.Helper()
	await(q.t, 30*time.Second, func(context.Context) error {
		if got := q.ready(queue); got != want {
			return fmt.Errorf("queue %s: %d messages, want %d", queue, got, want)
		}
		return nil
	})
}

// below waits until a queue has fewer messages than most.
func (q *queues) below(queue string, most int) {
	q.t.Helper()
	for end := time.Now().Add(time.Minute); q.ready(queue) >= most; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			q.t.Fatalf("queue %s still has %d messages or more", queue, most)
		}
	}
}

// drain takes everything out of a queue that nobody sends to any more.
func (q *queues) drain(queue string) []amqp.Delivery {
	q.t.Helper()
	var all []amqp.Delivery
	for end := time.Now().Add(time.Minute); q.ready(queue) > 0; {
		if time.Now().After(end) {
			q.t.Fatalf("queue %s: %d messages taken, and still %d left", queue, len(all), q.ready(queue))
		}
		all = q.gulp(queue, all)
	}
	return all
}

// gulp takes messages until none comes for a while: on a busy machine that is not
// the end.
func (q *queues) gulp(queue string, all []amqp.Delivery) []amqp.Delivery {
	q.t.Helper()
	ch := q.channel()
	arrivals, err := ch.Consume(queue, "drain", true, false, false, false, nil)
	if err != nil {
		q.t.Fatal(err)
	}
	for quiet := time.NewTimer(500 * time.Millisecond); ; {
		select {
		case d, ok := <-arrivals:
			if !ok {
				return all
			}
			all = append(all, d)
			quiet.Reset(500 * time.Millisecond)
		case <-quiet.C:
			if err := ch.Cancel("drain", false); err != nil { // which ends arrivals
				q.t.Fatal(err)
			}
		}
	}
}

// copies are the values of a header, by the message they are on.
type copies map[string][]string

func count(all []amqp.Delivery, header string) copies {
	c := copies{}
	for _, d := range all {
		v, _ := d.Headers[header].(string)
		c[string(d.Body)] = append(c[string(d.Body)], v)
	}
	return c
}

// distinct is how many different messages there are, and extra how many more
// copies of them.
func (c copies) distinct() (distinct, extra int) {
	for _, v := range c {
		extra += len(v) - 1
	}
	return len(c), extra
}

// whole checks that every message of a prefix is there.
func (c copies) whole(t *testing.T, prefix string, n int) {
	t.Helper()
	missing := 0
	for i := range n {
		if len(c[body(prefix, i)]) == 0 {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d messages %s are lost", missing, n, prefix)
	}
}

// shared checks that every extra copy of a message has the operation id of the
// others.
func (c copies) shared(t *testing.T, what string) {
	t.Helper()
	bad := 0
	for text, ids := range c {
		for _, id := range ids {
			if id == "" || id != ids[0] {
				if bad++; bad <= 3 {
					t.Errorf("%s: copies of %.40s have the operation ids %q", what, text, ids)
				}
				break
			}
		}
	}
	if bad > 3 {
		t.Errorf("%s: so have %d messages in all", what, bad)
	}
}
