package link_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

func askOf(kind controlbus.CommandKind, channel string) controlbus.Ask {
	return controlbus.Ask{Kind: kind, Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "e", Broker: "b", Name: channel}}}
}

func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newPlanningRig(t, func(ctx context.Context, a controlbus.Ask) (controlbus.Plan, error) {
			switch a.Target.Channel.Name {
			case "slow":
				time.Sleep(5 * time.Second)
			case "dead":
				<-ctx.Done()
				return controlbus.Plan{}, ctx.Err()
			case "away":
				return controlbus.Plan{}, fmt.Errorf("rabbitmq: %w: connection refused", controlbus.ErrUnavailable)
			case "gone":
				return controlbus.Plan{}, fmt.Errorf("rabbitmq: queue %q: %w", a.Target.Channel.Name, controlbus.ErrNotFound)
			case "large":
				p := controlbus.Plan{Count: 5, Samples: make([]controlbus.PreviewSample, 20)}
				for i := range p.Samples {
					p.Samples[i].Excerpt = strings.Repeat("x", 50<<10)
				}
				return p, nil
			}
			return controlbus.Plan{Count: 3, Technique: "for " + a.Target.Channel.Name}, nil
		}, link.AllowRule{Broker: "b", Channel: "*"})
		synctest.Wait()
		for _, c := range []struct {
			ask     controlbus.Ask
			count   int64
			refused string
			err     error
			took    time.Duration
		}{
			{ask: askOf(controlbus.CommandPurge, "orders"), count: 3},
			{ask: askOf(controlbus.CommandPurge, "slow"), count: 3, took: 5 * time.Second},
			{ask: askOf(controlbus.CommandPurge, "dead"), err: controlbus.ErrUnavailable, took: link.AskWithin},
			{ask: askOf(controlbus.CommandPurge, "away"), err: controlbus.ErrUnavailable},
			{ask: askOf(controlbus.CommandPurge, "gone"), refused: `rabbitmq: queue "gone": not found`},
			{ask: askOf(controlbus.CommandPurge, "large"), count: 5},
			{ask: askOf(controlbus.CommandRedrive, "orders"), refused: "this agent does not know how to redrive"},
			{ask: controlbus.Ask{Kind: controlbus.CommandPurge, Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "e", Broker: "other", Name: "orders"}}},
				refused: "the agent's own configuration does not allow purge on other/orders"},
		} {
			began := time.Now()
			p, err := r.disp.Ask(r.ctx, "a1", c.ask)
			if p.Count != c.count || p.Refused != c.refused || !errors.Is(err, c.err) || time.Since(began) != c.took {
				t.Errorf("%s %s: %+v, %v after %v; want %+v", c.ask.Kind, c.ask.Target.Channel, p, err, time.Since(began), c)
			}
			if len(p.Samples) > controlbus.MaxSamples {
				t.Errorf("%d samples", len(p.Samples))
			}
		}
		if _, err := r.disp.Ask(r.ctx, "a2", askOf(controlbus.CommandPurge, "orders")); !errors.Is(err, controlbus.ErrUnavailable) || !strings.Contains(err.Error(), "agent is not connected") {
			t.Errorf("an agent that is not there: %v", err)
		}
	})
}

// A question survives a cut, and is worked on once however often it is told.
func TestAskAcrossACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var worked atomic.Int32
		r := newPlanningRig(t, func(context.Context, controlbus.Ask) (controlbus.Plan, error) {
			worked.Add(1)
			time.Sleep(7 * time.Second)
			return controlbus.Plan{Count: 3}, nil
		})
		synctest.Wait()
		answer := make(chan error, 1)
		go func() {
			p, err := r.disp.Ask(r.ctx, "a1", askOf(controlbus.CommandPurge, "orders"))
			if p.Count != 3 && err == nil {
				err = fmt.Errorf("answer %+v", p)
			}
			answer <- err
		}()
		time.Sleep(time.Second)
		old := r.cut
		r.connect() // takes over
		synctest.Wait()
		old()
		if err := <-answer; err != nil || worked.Load() != 1 {
			t.Errorf("%v, worked on %d times", err, worked.Load())
		}
		// And ends at once where no session follows.
		go func() {
			_, err := r.disp.Ask(r.ctx, "a1", askOf(controlbus.CommandPurge, "orders"))
			answer <- err
		}()
		time.Sleep(time.Second)
		began := time.Now()
		r.cut()
		if err := <-answer; !errors.Is(err, controlbus.ErrUnavailable) || time.Since(began) > 0 {
			t.Errorf("cut off: %v after %v", err, time.Since(began))
		}
	})
}

func TestAsksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		r := newPlanningRig(t, func(context.Context, controlbus.Ask) (controlbus.Plan, error) {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			time.Sleep(100 * time.Millisecond)
			return controlbus.Plan{Count: 3}, nil
		})
		synctest.Wait()
		var full, answered, late atomic.Int32
		for range link.MaxAsksOfOne + 10 {
			r.wg.Go(func() {
				ctx, over := context.WithTimeout(r.ctx, time.Minute)
				defer over()
				_, err := r.disp.Ask(ctx, "a1", askOf(controlbus.CommandPurge, "orders"))
				switch {
				case errors.Is(err, controlbus.ErrOverloaded):
					full.Add(1)
				case err == nil:
					answered.Add(1)
				default:
					late.Add(1)
				}
			})
		}
		time.Sleep(2 * time.Minute)
		if full.Load() != 10 || answered.Load() != link.MaxAsksOfOne || late.Load() != 0 || most.Load() != 4 {
			t.Errorf("%d refused, %d answered, %d late; %d at a time", full.Load(), answered.Load(), late.Load(), most.Load())
		}
	})
}

// An agent that knows no questions is not waited for.
func TestAskOfAnOlderAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: done})
		synctest.Wait()
		if _, err := r.disp.Ask(r.ctx, "a1", askOf(controlbus.CommandPurge, "orders")); !errors.Is(err, controlbus.ErrUnsupported) {
			t.Errorf("got %v, want ErrUnsupported", err)
		}
	})
}

// A job hears of its rate and its pause while it runs, and the console stops
// telling once it obeys.
func TestControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order link.Dispatch
		r := newRig(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandReplay: func(ctx context.Context, run *link.Run) controlbus.CommandResult {
			order = run.Dispatch
			for n := int64(0); n < 100; n++ {
				wish, changed := run.Control()
				job := &controlbus.JobState{Control: wish.Seq, Paused: wish.Paused, Rate: wish.Rate}
				if err := run.Save(context.WithoutCancel(ctx), json.RawMessage("1"), controlbus.CommandProgress{Counts: controlbus.Counts{Done: n}, Job: job}); err != nil {
					return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Detail: err.Error()}
				}
				wait := time.After(100 * time.Millisecond)
				if wish.Paused {
					wait = nil
					n--
				}
				select {
				case <-changed:
				case <-wait:
				case <-ctx.Done():
					return controlbus.CommandResult{Outcome: controlbus.CommandPartial}
				}
			}
			return done(ctx, run)
		}})
		id := r.request(controlbus.CommandReplay, "orders", time.Hour)
		time.Sleep(time.Second)
		yes, no, rate := true, false, 50.0
		c, err := r.ledger.Control(r.ctx, id, &rate, &yes)
		if err != nil || c.Control != (controlbus.JobControl{Seq: 1, Rate: 50, Paused: true}) {
			t.Fatalf("%+v, %v", c.Control, err)
		}
		synctest.Wait()
		if p := r.command(id).Progress; p.Job == nil || p.Job.Control != 1 || !p.Job.Paused || p.Job.Rate != 50 {
			t.Errorf("progress: %+v", p.Job)
		}
		if box, err := r.ledger.Outbox(r.ctx, ""); err != nil || len(box) > 0 {
			t.Errorf("the job obeys, and the outbox has %+v, %v", box, err)
		}
		time.Sleep(time.Hour / 2)
		if c := r.command(id); c.State != controlbus.CommandRunning || c.Progress.Done > 20 {
			t.Errorf("paused for half an hour: %s, %+v", c.State, c.Progress)
		}
		if c, err = r.ledger.Control(r.ctx, id, nil, &yes); err != nil || c.Control.Seq != 1 {
			t.Errorf("the same wish again: %+v, %v", c.Control, err)
		}
		if c, err = r.ledger.Control(r.ctx, id, nil, &no); err != nil || c.Control != (controlbus.JobControl{Seq: 2, Rate: 50}) {
			t.Errorf("go on: %+v, %v", c.Control, err)
		}
		if c := r.settled(id, time.Minute); c.State != controlbus.CommandSucceeded {
			t.Errorf("%s: %s", c.State, c.Detail)
		}
		if _, err := r.ledger.Control(r.ctx, id, nil, &yes); !errors.Is(err, controlbus.ErrConflict) {
			t.Errorf("after its end: %v", err)
		}
		if order.RequestedBy.Name != "ann" || order.Reason != "test" {
			t.Errorf("order: by %+v, %q", order.RequestedBy, order.Reason)
		}
		events, err := r.ledger.Events(r.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, e := range events {
			if e.Type == ledger.EventControl {
				said = append(said, e.Actor.Name+": "+e.Detail)
			}
		}
		if got := fmt.Sprint(said); got != "[ann: at most 50 messages/s, pause ann: go on]" {
			t.Errorf("events: %s", got)
		}
	})
}

// Who may not request a command may not steer it, and what is no job cannot be
// steered.
func TestControlIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stay := func(ctx context.Context, _ *link.Run) controlbus.CommandResult {
			<-ctx.Done()
			return controlbus.CommandResult{Outcome: controlbus.CommandCancelled}
		}
		r := newRig(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandReplay: stay, controlbus.CommandTest: stay})
		yes, fast := true, -1.0
		id := r.request(controlbus.CommandReplay, "orders", time.Hour)
		other := access.With(r.ctx, access.Identity{ID: "v", Name: "vic", Kind: access.KindUser, Grants: access.Everywhere(access.Reader)})
		if _, err := r.ledger.Control(other, id, nil, &yes); !errors.Is(err, controlbus.ErrDenied) {
			t.Errorf("a reader: %v", err)
		}
		if _, err := r.ledger.Control(r.ctx, id, &fast, nil); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("a rate of %v: %v", fast, err)
		}
		if _, err := r.ledger.Control(r.ctx, id, nil, nil); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("nothing: %v", err)
		}
		former := access.With(r.ctx, access.Identity{ID: "u", Name: "ann", Kind: access.KindUser, Grants: access.Everywhere(access.Reader)})
		no, slow, unlimited := false, 50.0, 0.0
		for _, c := range []struct {
			name   string
			rate   *float64
			paused *bool
			want   error
		}{
			{"slows it down", &slow, nil, nil}, {"takes the limit away", &unlimited, nil, controlbus.ErrDenied},
			{"pauses it", nil, &yes, nil}, {"lets it go on", nil, &no, controlbus.ErrDenied},
		} {
			if _, err := r.ledger.Control(former, id, c.rate, c.paused); !errors.Is(err, c.want) {
				t.Errorf("its requester, a reader by now, %s: got %v, want %v", c.name, err, c.want)
			}
		}
		if _, err := r.ledger.Control(r.ctx, r.request(controlbus.CommandTest, "orders", time.Hour), nil, &yes); !errors.Is(err, controlbus.ErrUnsupported) {
			t.Errorf("a test message: %v", err)
		}
	})
}
