package action

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

const many = 24

// run orders a command whose process may die at one of its steps, and says whether
// it did.
func (r *rig) run(d link.Dispatch, at int) bool {
	var died bool
	r.dieAt(at, &died)
	r.order(d)
	ended := make(chan struct{})
	go func() { r.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		r.t.Fatal("it neither ends nor dies")
	}
	return died
}

// A purge that dies at any step is begun once. What it removed is in the archive,
// and the undo puts everything back.
func TestPurgeDiesAnywhere(t *testing.T) {
	t.Parallel()
	for _, lasting := range []bool{false, true} {
		indeterminate := 0
		for step := 1; ; step++ {
			b := agenttest.NewQueues("orders")
			b.Lasting = lasting
			r := newRig(t, b)
			b.Put("orders", numbered(many)...)
			d := r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{})
			died := r.run(d, step)
			taken := b.Calls("Accept")
			r.restart()
			r.order(d) // the console repeats what was not answered
			res := r.await(d.Command)
			if b.Calls("Accept") != taken {
				t.Fatalf("step %d: it took more messages after the restart", step)
			}
			left := b.In("orders")
			switch {
			case !died && res.Outcome != controlbus.CommandSucceeded:
				t.Fatalf("step %d: %+v", step, res)
			case res.Outcome == controlbus.CommandIndeterminate:
				indeterminate++
			case res.Outcome != controlbus.CommandSucceeded || len(left) != 0:
				t.Fatalf("step %d: %+v, %d left", step, res, len(left))
			}
			info, err := r.a.archive.Info(d.Command)
			if err != nil && len(left) < many {
				t.Fatalf("step %d: %d are gone, and there is no copy: %v", step, many-len(left), err)
			}
			if err == nil {
				if gone := int64(many - len(left)); gone > info.Count || gone < info.Count-info.Doubtful {
					t.Fatalf("step %d: %d are gone; the copy has %d, %d of them in doubt", step, gone, info.Count, info.Doubtful)
				}
				res = r.do(r.dispatch(controlbus.CommandReplay, "orders", controlbus.ReplayArgs{}, undoOf(d.Command)))
				want(t, res, controlbus.CommandSucceeded, info.Count)
				back := b.In("orders")[len(left):]
				if !slices.IsSortedFunc(back, func(a, b *agents.Message) int {
					x, _ := strconv.Atoi(a.MessageID)
					y, _ := strconv.Atoi(b.MessageID)
					return x - y
				}) {
					t.Fatalf("step %d: out of order: %v", step, ids(back))
				}
			}
			seen := map[string]bool{}
			for _, m := range b.In("orders") {
				seen[m.MessageID] = true
			}
			if len(seen) != many {
				t.Fatalf("step %d: %d of %d messages after the undo", step, len(seen), many)
			}
			r.stop()
			if !died {
				if step < many || indeterminate < many {
					t.Fatalf("%d steps, %d indeterminate", step, indeterminate)
				}
				t.Logf("lasting %v: killed at each of %d steps, %d indeterminate, all undone", lasting, step-1, indeterminate)
				break
			}
		}
	}
}

// Redrive, replay and undo go on where they were: nothing is lost, and what comes
// twice comes under the same operation id.
func TestResumableDiesAnywhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		lasting bool
		begin   func(*rig) link.Dispatch
		mark    string
	}{
		{"redrive", false, redriveMany, controlbus.HeaderRedriveID},
		{"redrive of a stream", true, redriveMany, controlbus.HeaderRedriveID},
		{"replay", false, func(r *rig) link.Dispatch {
			r.pages = func(after string, limit int) (link.FetchPage, error) {
				p, err := store(many)(after, limit)
				for i := range p.Messages {
					p.Messages[i].Truncated, p.Messages[i].Redacted, p.Messages[i].BodyStored, p.Messages[i].BodySize = false, nil, true, int64(len(p.Messages[i].Body))
				}
				return p, err
			}
			return r.dispatch(controlbus.CommandReplay, "orders", replayArgs())
		}, controlbus.HeaderReplay},
		{"undo", false, func(r *rig) link.Dispatch {
			r.b.Put("orders", numbered(many)...)
			d := r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{})
			want(r.t, r.do(d), controlbus.CommandSucceeded, many)
			return r.dispatch(controlbus.CommandReplay, "orders", controlbus.ReplayArgs{}, undoOf(d.Command))
		}, controlbus.HeaderReplay},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			worst, resumed := 0, 0
			for step := 1; ; step++ {
				b := agenttest.NewQueues("dlq", "orders")
				b.Lasting = c.lasting
				r := newRig(t, b)
				d := c.begin(r)
				died := r.run(d, step)
				r.restart()
				r.order(d)
				res := r.await(d.Command)
				if res.Outcome != controlbus.CommandSucceeded || len(b.In("dlq")) != 0 || res.Counts.Done != many {
					t.Fatalf("step %d: %+v; %d left", step, res, len(b.In("dlq")))
				}
				worst = max(worst, once(t, b.In("orders"), many, c.mark))
				if t.Failed() {
					t.Fatalf("step %d", step)
				}
				r.stop()
				if !died {
					if step < many {
						t.Fatalf("%d steps", step)
					}
					t.Logf("killed at each of %d steps: none lost, at most %d of %d sent twice, each under one id", step-1, worst, many)
					break
				}
				resumed++
			}
		})
	}
}

func redriveMany(r *rig) link.Dispatch {
	r.b.Put("dlq", dead(many, "orders")...)
	return r.dispatch(controlbus.CommandRedrive, "dlq", controlbus.RedriveArgs{})
}

// The broker loses its connections at any step, before or after an effect, or dies
// and has forgotten the last messages that were accepted: the command waits, goes
// on, and says so.
func TestBrokerBreaksAnywhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		begin func(*rig) link.Dispatch
		mark  string
	}{
		{"purge", func(r *rig) link.Dispatch {
			r.b.Put("orders", numbered(many)...)
			return r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{})
		}, ""},
		{"redrive", redriveMany, controlbus.HeaderRedriveID},
	} {
		for name, how := range map[string]struct {
			lasting bool
			forgets int
		}{"breaks": {}, "stream breaks": {lasting: true}, "dies": {forgets: 7}} {
			lasting := how.lasting
			t.Run(c.name+" "+name, func(t *testing.T) {
				t.Parallel()
				waited, worst := 0, 0
				for step := 1; ; step++ {
					b := agenttest.NewQueues("dlq", "orders")
					b.Lasting = lasting
					r := newRig(t, b)
					d := c.begin(r)
					n, broke := step, false
					r.step = func(what string) {
						if n--; n == 0 {
							broke = true
							b.Crash(how.forgets)
							r.lose = !strings.HasPrefix(what, "checkpoint") && what != "done" && what != "noted"
						}
					}
					r.order(d)
					res := r.await(d.Command)
					r.stop()
					if res.Outcome != controlbus.CommandSucceeded {
						t.Fatalf("step %d: %+v", step, res)
					}
					ev := want(t, res, controlbus.CommandSucceeded, res.Counts.Done)
					left := 0 // where nobody noticed that the broker died
					if ev.Reconnects == 0 {
						left = how.forgets
					}
					if c.mark != "" {
						worst = max(worst, once(t, b.In("orders"), many, c.mark))
						if len(b.In("dlq")) > left {
							t.Fatalf("step %d: %d left", step, len(b.In("dlq")))
						}
					} else {
						info, err := r.a.archive.Info(d.Command)
						if err != nil || info.Count != many || len(b.In("orders")) > left {
							t.Fatalf("step %d: copy %+v, %v; %d left", step, info, err, len(b.In("orders")))
						}
					}
					if t.Failed() {
						t.Fatalf("step %d", step)
					}
					if ev.Reconnects > 0 {
						waited++
					}
					if !broke {
						if waited < many/2 {
							t.Fatalf("it waited in %d of %d runs", waited, step)
						}
						t.Logf("broken at each of %d steps, waited in %d: none lost, at most %d sent twice", step-1, waited, worst)
						break
					}
				}
			})
		}
	}
}
