package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// item is one message on its way through a job.
type item struct {
	msg *agents.Message
	// id is the message's identity within its source, the same whenever it is met.
	id string
	// known says that id tells it from every other message: a position that lasts,
	// or a message id.
	known bool
	n     int64 // its number in the selection, for sources that have numbers
	uid   string
	to    controlbus.ChannelName // where it was sent, once that is known
	at    cursor                 // behind it, for sources that are only read
	skip  error                  // why it cannot be sent at all
}

const (
	// maxPassed bounds how many messages that do not match are held back until the
	// end, where a broker's own holding is the only place for them.
	maxPassed = 200_000
	// batchBytes bounds about how much of a batch is in memory.
	batchBytes = 32 << 20
	// window is how many messages an intake may hold unsettled.
	window = 1000
)

// taking is the job's source for commands that take messages out of a channel. It
// opens its intake when it needs one, and again after the connection was lost:
// then it knows the messages it has dealt with.
type taking struct {
	open    func(context.Context, int) (agents.Intake, error)
	match   func(*agents.Message) bool // nil: everything
	start   int64                      // messages that were there at the beginning: what is looked at; -1 unknown
	lasting bool                       // positions last
	window  func() int                 // how many to hold, at most

	in     agents.Intake
	eof    bool
	looked int64 // of this intake
	size   int64 // bytes of a message, lately
	passed int64 // of this intake: did not match

	last string // position of the last message that was removed
	gone int64  // removed from the channel, or told to be
	// kept stay in the channel, doubt were told to leave it without an answer; now
	// are those of kept that this intake has not yet given out again.
	kept, now, doubt map[string]int64
	stay             int64            // of kept, all in all
	sent             map[string]int64 // by id: settled copies of equal messages, before this intake
	here             map[string]int64 // and given out by this one

	// A broker that dies forgets what it was told last, although it took it: then
	// messages are there again that had left. lately are the ids of those that
	// can be known again; back are those of them that may be there, until as many
	// others as a window has have come, since they would have come first.
	lately []string
	latest int
	back   map[string]int64
	backs  int64
	fresh  int
}

// remembered is how many messages are known again after the broker died.
const remembered = 1 << 16

func newTaking(t taking) *taking {
	t.kept, t.doubt, t.sent = map[string]int64{}, map[string]int64{}, map[string]int64{}
	return &t
}

// ensure opens the intake.
func (t *taking) ensure(ctx context.Context) error {
	if t.in != nil {
		return nil
	}
	opening, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	w := window
	if t.window != nil {
		w = t.window()
	}
	in, err := t.open(opening, w)
	if err != nil {
		return err
	}
	t.in, t.looked, t.passed, t.eof = in, 0, 0, false
	t.now, t.here = make(map[string]int64, len(t.kept)), map[string]int64{}
	for id, n := range t.kept {
		t.now[id] = n
	}
	return nil
}

// Next gives out what matches and was not dealt with before.
func (t *taking) Next(ctx context.Context, most int) ([]*item, error) {
	if t.eof {
		return nil, io.EOF
	}
	if err := t.ensure(ctx); err != nil {
		return nil, err
	}
	if t.size > 0 {
		most = min(most, max(int(batchBytes/t.size), 1))
	}
	for {
		n := most
		if t.start >= 0 {
			n = int(min(int64(n), t.start-t.gone-t.looked+t.doubtful()))
		}
		if n <= 0 {
			t.eof = true
			return nil, io.EOF
		}
		msgs, err := t.in.Next(ctx, n)
		if errors.Is(err, io.EOF) {
			t.eof = true
		}
		if err != nil {
			return nil, err
		}
		out, err := t.sort(ctx, msgs)
		if len(out) > 0 || err != nil {
			return out, err
		}
	}
}

// sort deals with the messages that are not the job's business.
func (t *taking) sort(ctx context.Context, msgs []*agents.Message) ([]*item, error) {
	var out []*item
	var gone, back []*agents.Message
	for _, m := range msgs {
		t.looked++
		t.size = max(t.size*9/10, int64(len(m.Body)+256))
		it := t.item(m)
		t.fresh++
		switch {
		case t.now[it.id] > 0: // it failed before, or was left alone
			t.now[it.id]--
			back = append(back, m)
		case it.known && t.doubt[it.id]+t.back[it.id] > 0: // it is safe elsewhere, and did not leave
			gone = append(gone, m)
			t.fresh = 0
		case t.start >= 0 && t.looked-int64(len(gone)) > t.start-t.gone:
			// Beyond the bound only what is in doubt was looked for.
			back = append(back, m)
		case t.match != nil && !t.match(m):
			if t.passed++; t.passed > maxPassed && !t.lasting {
				return nil, fmt.Errorf("%w: more than %d messages do not match and would have to be held back until the end; use a narrower channel, or no filter", controlbus.ErrTooLarge, maxPassed)
			}
			back = append(back, m)
		default:
			out = append(out, it)
		}
	}
	if len(gone) > 0 {
		if err := t.in.Accept(ctx, gone); err != nil {
			return nil, err
		}
		for _, m := range gone {
			id := t.key(m)
			if t.doubt[id] == 0 {
				t.back[id]--
				t.backs--
				continue
			}
			if t.doubt[id]--; t.doubt[id] == 0 {
				delete(t.doubt, id)
			}
			t.remember(id)
		}
		t.looked -= int64(len(gone)) // counted as gone already
	}
	if len(back) > 0 {
		if err := t.in.Return(ctx, back); err != nil {
			return nil, err
		}
	}
	if t.fresh > window {
		t.back, t.backs = nil, 0
	}
	return out, nil
}

// lost is to be called when the connection went away: the broker may have died.
func (t *taking) lost() {
	t.back, t.backs, t.fresh = make(map[string]int64, len(t.lately)), int64(len(t.lately)), 0
	for _, id := range t.lately {
		t.back[id]++
	}
}

// remember notes that a message that can be known again has left.
func (t *taking) remember(id string) {
	switch {
	case t.lasting: // what left a position cannot come back to it
	case len(t.lately) < remembered:
		t.lately = append(t.lately, id)
	default:
		t.lately[t.latest%remembered] = id
		t.latest++
	}
}

// doubtful is how many messages may come back that are safe elsewhere.
func (t *taking) doubtful() (n int64) {
	for _, d := range t.doubt {
		n += d
	}
	return n + t.backs
}

func (t *taking) key(m *agents.Message) string {
	if t.lasting {
		return m.Position
	}
	return identity(m)
}

// item names a message. Equal messages without an id of their own are told apart
// by their number.
func (t *taking) item(m *agents.Message) *item {
	it := &item{msg: m, id: t.key(m), known: t.lasting || m.MessageID != ""}
	return it
}

// operation is the item's operation id: the same whenever the same message is
// met, another for each of several equal ones.
func (t *taking) operation(it *item) string {
	if t.lasting {
		return it.id
	}
	t.here[it.id]++
	if n := t.sent[it.id] + t.here[it.id]; n > 1 {
		return it.id + "#" + strconv.FormatInt(n, 10)
	}
	return it.id
}

// Settle removes what is done and leaves the rest.
func (t *taking) Settle(ctx context.Context, done, kept []*item) error {
	t.gone += int64(len(done))
	if len(done) > 0 {
		t.last = done[len(done)-1].msg.Position
	}
	t.looked -= int64(len(done))
	for _, it := range kept {
		t.kept[it.id]++
	}
	if err := t.settle(ctx, done, kept); err != nil {
		for _, it := range done {
			if it.known {
				t.doubt[it.id]++
			}
		}
		return err
	}
	if !t.lasting {
		for _, it := range done {
			if it.known {
				t.remember(it.id)
			}
			if len(t.sent) >= 1<<20 {
				clear(t.sent) // equal messages so far apart share an id; a bound is a bound
			}
			t.sent[it.id]++
			t.here[it.id]--
			if t.here[it.id] <= 0 {
				delete(t.here, it.id)
			}
		}
	}
	if t.stay += int64(len(kept)); t.stay > maxPassed {
		return fmt.Errorf("%w: more than %d messages failed or were left alone, and each has to be known until the command ends; a filter leaves them out", controlbus.ErrTooLarge, maxPassed)
	}
	return nil
}

func (t *taking) settle(ctx context.Context, done, kept []*item) error {
	if t.in == nil {
		return fmt.Errorf("%w: the intake is closed", agents.ErrNotConnected)
	}
	if len(done) > 0 {
		if err := t.in.Accept(ctx, messages(done)); err != nil {
			return err
		}
	}
	if len(kept) > 0 {
		return t.in.Return(ctx, messages(kept))
	}
	return nil
}

func messages(items []*item) []*agents.Message {
	out := make([]*agents.Message, len(items))
	for i, it := range items {
		out[i] = it.msg
	}
	return out
}

// Rest gives everything back; the next Next opens the intake again.
func (t *taking) Rest(ctx context.Context) error {
	if t.in == nil {
		return nil
	}
	in := t.in
	t.in = nil
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	return in.Close(closing)
}
