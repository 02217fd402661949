package rabbitmq_test

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
)

// TestFilteredTakingKeepsOrder takes every third of many messages, through a
// window much smaller than what is given back, while others come in.
func TestFilteredTakingKeepsOrder(t *testing.T) {
	t.Parallel()
	quorum := amqp.Table{amqp.QueueTypeArg: "quorum"}
	for _, c := range []struct { // ordered unless a quorum queue has had more than 32 consumers
		name   string
		args   amqp.Table
		window int
		order  bool
	}{
		{"classic", nil, 20, true}, {"quorum", quorum, 80, true}, {"quorum, many consumers", quorum, 20, false},
		{"quorum with a limit", amqp.Table{amqp.QueueTypeArg: "quorum", "x-delivery-limit": 100}, 80, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			a := connected(t, identity(), config(b.Server, b.url))
			ctx := t.Context()
			_, err := b.ch.QueueDeclare("q", true, false, false, false, c.args)
			must(t, err)
			const n = 900
			var msgs []amqp.Publishing
			for i := range n {
				msgs = append(msgs, amqp.Publishing{Body: fmt.Appendf(nil, "%d", i)})
			}
			b.publish(t, "", "q", msgs...)
			in, err := a.Intake(ctx, "q", agents.IntakeOptions{Window: c.window})
			must(t, err)
			seen, extra := 0, int64(0)
			for {
				batch, err := in.Next(ctx, 20)
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
				if seen%200 < 20 {
					b.publish(t, "", "q", amqp.Publishing{Body: []byte("later")})
					extra++
				}
				var yes, no []*agents.Message
				for _, m := range batch {
					if string(m.Body) != fmt.Sprint(seen) || m.Position != fmt.Sprint(seen+1) {
						t.Fatalf("message %d is %q at %s", seen, m.Body, m.Position)
					}
					if seen%3 == 0 {
						yes = append(yes, m)
					} else {
						no = append(no, m)
					}
					seen++
				}
				must(t, in.Accept(ctx, yes))
				must(t, in.Return(ctx, no))
			}
			must(t, in.Close(ctx))
			if seen != n {
				t.Fatalf("took %d messages, want the %d that were there", seen, n)
			}
			eventually(t, "all that was given back", 10*time.Second, func() bool { return b.waiting(t, "q") == n*2/3+extra })
			again, err := a.Intake(ctx, "q", agents.IntakeOptions{Window: 2000})
			must(t, err)
			want, later := 1, 0
			for {
				batch, err := again.Next(ctx, 500)
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
				for _, m := range batch {
					if string(m.Body) == "later" {
						later++
						continue
					}
					if c.order && (string(m.Body) != fmt.Sprint(want) || later > 0) {
						t.Fatalf("after %d later ones: got %q, want %d", later, m.Body, want)
					}
					if want++; want%3 == 0 {
						want++
					}
				}
			}
			must(t, again.Close(ctx))
			if want != n+1 || later == 0 {
				t.Errorf("given back: up to %d and %d later ones, want all", want, later)
			}
		})
	}
}
