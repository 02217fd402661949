package agenttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Verbs is a running broker and an adapter for it, as the suite of the verbs
// that commands are built of needs them. The functions are called from the
// test's goroutine and fail the test themselves. An ability that the adapter
// lacks is left out.
type Verbs struct {
	// New returns an adapter that is not connected. The suite closes it.
	New func(t *testing.T) agents.Adapter
	// Channel makes an empty channel that messages can be put into and taken out
	// of, with a name of its own, and removes it when the test ends.
	Channel func(t *testing.T) string
	// Waiting is how many messages wait in the channel, as the broker itself has it.
	Waiting func(t *testing.T, channel string) int64
	// Remove removes the channel, so that what is sent into it leads nowhere. Nil
	// leaves that test out.
	Remove func(t *testing.T, channel string)
	// Missing is a channel that is not there.
	Missing string
	// Fields are headers of all the kinds that the broker carries, each of which
	// must come out as it went in.
	Fields []agents.Field
	// NoProperties: the broker has a body and headers, and nothing beside them.
	NoProperties bool
	// NoEmptyBody says that this broker has no empty messages.
	NoEmptyBody bool
	// LosesPlace: messages that are given back come after those that waited.
	LosesPlace bool
	// Cut breaks the adapter's connections and keeps new ones from succeeding until
	// Heal. Nil leaves the tests of broken connections out.
	Cut, Heal func(t *testing.T)
	// Messages is how many messages the order test sends; 0 means 1,000.
	Messages int
	// Patience is how long the suite waits for anything; 0 means 15 s.
	Patience time.Duration
}

// TestVerbs runs the suite.
func TestVerbs(t *testing.T, v Verbs) {
	if v.Messages == 0 {
		v.Messages = 1000
	}
	if v.Patience == 0 {
		v.Patience = 15 * time.Second
	}
	for _, c := range []struct {
		name string
		run  func(*testing.T, Verbs)
	}{
		{"inspect counts", testInspect},
		{"a channel that is not there is ErrNotFound", testMissing},
		{"plans touch nothing", testPlans},
		{"order is kept from outlet to intake", testOrder},
		{"messages come out as they went in", testTrue},
		{"a removed channel is ErrUnroutable", testUnroutable},
		{"an intake ends at its bound", testBound},
		{"an intake of nothing ends", testNothing},
		{"accepted is gone, the rest is given back", testGiveBack},
		{"a window bounds what is held", testWindow},
		{"following waits and can be called off", testFollow},
		{"a broken connection is ErrNotConnected and loses nothing", testBrokenVerbs},
		{"peek takes nothing", testPeek},
		{"purge removes what was there", testPurge},
		{"a parked channel holds what is in it", testPark},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, v) })
	}
}

func testInspect(t *testing.T, v Verbs) {
	a := ability[agents.Inspector](t, v.connected(t))
	ch := v.Channel(t)
	view := v.inspect(t, a, ch)
	if view.Ready != 0 || view.Kind == "" {
		t.Errorf("an empty channel: %+v, want a kind and nothing ready", view)
	}
	v.send(t, a, ch, numbered(7)...)
	if view = v.inspect(t, a, ch); view.Ready != 7 {
		t.Errorf("after seven messages %d are ready", view.Ready)
	}
	in := v.intake(t, a, ch, agents.IntakeOptions{UpTo: view.UpTo})
	got := v.next(t, in, 3)
	v.must(t, in.Accept(v.ctx(t), got))
	v.must(t, in.Close(v.ctx(t)))
	v.eventually(t, "four messages to be ready again", func() bool { return v.inspect(t, a, ch).Ready == 4 })
}

func testMissing(t *testing.T, v Verbs) {
	a := v.connected(t)
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, controlbus.ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", what, err)
		}
	}
	if i, ok := a.(agents.Inspector); ok {
		_, err := i.Inspect(v.ctx(t), v.Missing)
		check("Inspect", err)
	}
	if s, ok := a.(agents.Sender); ok {
		_, err := s.Outlet(v.ctx(t), v.Missing)
		check("Outlet", err)
	}
	if s, ok := a.(agents.Taker); ok {
		_, err := s.Intake(v.ctx(t), v.Missing, agents.IntakeOptions{})
		check("Intake", err)
	}
	if p, ok := a.(agents.Peeker); ok {
		_, _, err := p.Peek(v.ctx(t), v.Missing, 1, true)
		check("Peek", err)
	}
	if p, ok := a.(agents.Purger); ok {
		_, err := p.Purge(v.ctx(t), v.Missing, "")
		check("Purge", err)
	}
	if p, ok := a.(agents.Planner); ok {
		_, err := p.PlanCommand(v.ctx(t), controlbus.CommandPurge, v.Missing)
		check("PlanCommand", err)
	}
}

func testPlans(t *testing.T, v Verbs) {
	a := v.connected(t)
	p := ability[agents.Planner](t, a)
	ch := v.Channel(t)
	if s, ok := a.(agents.Sender); ok {
		v.send(t, s, ch, numbered(3)...)
	}
	abilities := p.Abilities()
	if len(abilities) == 0 {
		t.Fatal("no abilities")
	}
	seen := map[controlbus.CommandKind]bool{}
	for _, can := range abilities {
		if _, known := can.Kind.Info(); !known || seen[can.Kind] {
			t.Errorf("ability %q: unknown or listed twice", can.Kind)
		}
		seen[can.Kind] = true
		if can.Kind == controlbus.CommandTap || can.Kind == controlbus.CommandUntap {
			continue // PlanTap is for these
		}
		plan, err := p.PlanCommand(v.ctx(t), can.Kind, ch)
		switch {
		case err == nil && plan.Technique == "":
			t.Errorf("plan of %s has no technique", can.Kind)
		case err != nil && !errors.Is(err, controlbus.ErrUnsupported):
			t.Errorf("plan of %s: %v, want a plan or ErrUnsupported with the reason", can.Kind, err)
		case err == nil && can.Reason != "":
			t.Errorf("%s has a plan, though it cannot be done: %s", can.Kind, can.Reason)
		}
	}
	if n := v.Waiting(t, ch); n != 3 {
		t.Errorf("after planning %d messages wait, want 3", n)
	}
}

func testOrder(t *testing.T, v Verbs) {
	a, ch := v.both(t), v.Channel(t)
	want := numbered(v.Messages)
	v.send(t, a, ch, want...)
	in := v.intake(t, a, ch, agents.IntakeOptions{UpTo: v.upTo(t, a, ch)})
	var positions []string
	for i := 0; i < len(want); {
		batch, err := in.Next(v.ctx(t), 100)
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", i, len(want), err)
		}
		if len(batch) == 0 || len(batch) > 100 {
			t.Fatalf("a batch of %d, want 1 to 100", len(batch))
		}
		for _, m := range batch {
			if i >= len(want) || !bytes.Equal(m.Body, want[i].Body) {
				t.Fatalf("message %d has body %q", i, m.Body)
			}
			positions = append(positions, m.Position)
			i++
		}
		v.must(t, in.Accept(v.ctx(t), batch))
	}
	if _, err := in.Next(v.ctx(t), 1); !errors.Is(err, io.EOF) {
		t.Errorf("after the last message: got %v, want io.EOF", err)
	}
	slices.Sort(positions)
	if slices.Contains(positions, "") || len(slices.Compact(positions)) != len(want) {
		t.Error("positions are empty or not distinct")
	}
	v.must(t, in.Close(v.ctx(t)))
	v.waits(t, ch, 0)
}

func testTrue(t *testing.T, v Verbs) {
	a, ch := v.both(t), v.Channel(t)
	big := make([]byte, 1<<20)
	for i := range big {
		big[i] = byte(i * 7)
	}
	msgs := []*agents.Message{{Body: big, Headers: v.Fields}, {Body: []byte{0xff, 0, 0xfe}, Persistent: true, Headers: v.Fields}}
	if !v.NoProperties {
		msgs = append(msgs, &agents.Message{
			Body: []byte("p"), MessageID: "m-1", CorrelationID: "c-1", ReplyTo: "answers", Type: "order", AppID: "shop",
			ContentType: "application/json", ContentEncoding: "identity", Time: time.Unix(1_700_000_000, 0), Priority: 3, TTL: time.Hour, Persistent: true,
		})
	}
	if !v.NoEmptyBody {
		msgs = append(msgs, &agents.Message{Headers: v.Fields})
	}
	// Twice, so that what comes out is what goes in again.
	sent := msgs
	for round := range 2 {
		v.send(t, a, ch, sent...)
		in := v.intake(t, a, ch, agents.IntakeOptions{UpTo: v.upTo(t, a, ch)})
		got := v.all(t, in)
		v.must(t, in.Accept(v.ctx(t), got))
		v.must(t, in.Close(v.ctx(t)))
		if len(got) != len(msgs) {
			t.Fatalf("round %d: %d messages, want %d", round, len(got), len(msgs))
		}
		for i, m := range got {
			if !bytes.Equal(m.Body, msgs[i].Body) {
				t.Errorf("round %d: body %d of %d bytes is another", round, i, len(m.Body))
			}
			if diff := cmp.Diff(sorted(msgs[i].Headers), sorted(m.Headers)); diff != "" {
				t.Errorf("round %d: headers of message %d (-want +got):\n%s", round, i, diff)
			}
			if v.NoProperties {
				continue
			}
			if diff := cmp.Diff(properties(msgs[i]), properties(m)); diff != "" {
				t.Errorf("round %d: properties of message %d (-want +got):\n%s", round, i, diff)
			}
		}
		sent = got
	}
}

func properties(m *agents.Message) []any {
	return []any{
		m.MessageID, m.CorrelationID, m.ReplyTo, m.Type, m.AppID, m.ContentType, m.ContentEncoding,
		m.Time.UTC(), m.Priority, m.TTL, m.Persistent,
	}
}

func sorted(fs []agents.Field) []agents.Field {
	out := slices.Clone(fs)
	slices.SortStableFunc(out, func(a, b agents.Field) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	if len(out) == 0 {
		return nil
	}
	return out
}

func testUnroutable(t *testing.T, v Verbs) {
	if v.Remove == nil {
		t.Skip("channels of this broker cannot be removed under an outlet")
	}
	a, ch := ability[agents.Sender](t, v.connected(t)), v.Channel(t)
	o := v.outlet(t, a, ch)
	for i, err := range o.Send(v.ctx(t), numbered(3)) {
		v.must(t, err)
		_ = i
	}
	v.Remove(t, ch)
	for i, err := range o.Send(v.ctx(t), numbered(300)) {
		if !errors.Is(err, agents.ErrUnroutable) && !errors.Is(err, controlbus.ErrNotFound) {
			t.Fatalf("message %d into a removed channel: got %v, want ErrUnroutable", i, err)
		}
	}
}

func testBound(t *testing.T, v Verbs) {
	a, ch := v.both(t), v.Channel(t)
	v.send(t, a, ch, numbered(40)...)
	in := v.intake(t, a, ch, agents.IntakeOptions{UpTo: v.upTo(t, a, ch), Window: 16})
	v.send(t, a, ch, &agents.Message{Body: []byte("later")}, &agents.Message{Body: []byte("later still")})
	n := 0
	for {
		batch, err := in.Next(v.ctx(t), 5)
		if errors.Is(err, io.EOF) {
			break
		}
		v.must(t, err)
		n += len(batch)
		v.must(t, in.Accept(v.ctx(t), batch))
	}
	if n != 40 {
		t.Errorf("took %d messages, want the 40 that were there", n)
	}
	if _, err := in.Next(v.ctx(t), 1); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: got %v, want io.EOF again", err)
	}
	v.must(t, in.Close(v.ctx(t)))
	v.waits(t, ch, 2)
	again := v.intake(t, a, ch, agents.IntakeOptions{UpTo: v.upTo(t, a, ch)})
	if got := v.all(t, again); len(got) != 2 || string(got[0].Body) != "later" {
		t.Errorf("what came later: %d messages", len(got))
	}
}

func testNothing(t *testing.T, v Verbs) {
	a, ch := v.both(t), v.Channel(t)
	in := v.intake(t, a, ch, agents.IntakeOptions{UpTo: v.upTo(t, a, ch)})
	start := time.Now()
	if _, err := in.Next(v.ctx(t), 10); !errors.Is(err, io.EOF) {
		t.Errorf("Next of an empty channel: got %v, want io.EOF", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %s to find that out", d)
	}
}

func testGiveBack(t *testing.T, v Verbs) {
	a, ch := v.both(t), v.Channel(t)
	v.send(t, a, ch, numbered(12)...)
	in := v.intake(t, a, ch, agents.IntakeOptions{UpTo: v.upTo(t, a, ch)})
	got := v.next(t, in, 9)
	// Every second of the first six is done with, the other three are returned,
	// three more are held, three not asked for.
	v.must(t, in.Accept(v.ctx(t), []*agents.Message{got[0], got[2], got[4]}))
	v.must(t, in.Return(v.ctx(t), []*agents.Message{got[1], got[3], got[5]}))
	v.must(t, in.Close(v.ctx(t)))
	v.must(t, in.Close(v.ctx(t)))
	if err := in.Accept(v.ctx(t), got[6:7]); err == nil {
		t.Error("a closed intake still accepts")
	}
	v.waits(t, ch, 9)
	again := v.intake(t, a, ch, agents.IntakeOptions{UpTo: v.upTo(t, a, ch)})
	var bodies []string
	for _, m := range v.all(t, again) {
		bodies = append(bodies, string(m.Body))
	}
	want := []string{"m-00001", "m-00003", "m-00005", "m-00006", "m-00007", "m-00008", "m-00009", "m-00010", "m-00011"}
	if v.LosesPlace {
		slices.Sort(bodies)
	}
	if diff := cmp.Diff(want, bodies); diff != "" {
		t.Errorf("what was given back (-want +got):\n%s", diff)
	}
}

func testWindow(t *testing.T, v Verbs) {
	a, ch := v.both(t), v.Channel(t)
	v.send(t, a, ch, numbered(10)...)
	in := v.intake(t, a, ch, agents.IntakeOptions{UpTo: v.upTo(t, a, ch), Window: 4})
	held := v.next(t, in, 4)
	ctx, cancel := context.WithTimeout(v.ctx(t), 500*time.Millisecond)
	defer cancel()
	if more, err := in.Next(ctx, 1); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("with a full window: got %d messages and %v, want an error", len(more), err)
	}
	v.must(t, in.Accept(v.ctx(t), held))
	v.next(t, in, 4)
}

func testFollow(t *testing.T, v Verbs) {
	a, ch := v.both(t), v.Channel(t)
	in := v.intake(t, a, ch, agents.IntakeOptions{Follow: true, Name: "suite"})
	ctx, cancel := context.WithTimeout(v.ctx(t), 300*time.Millisecond)
	defer cancel()
	if _, err := in.Next(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("following an empty channel: got %v, want the context's end", err)
	}
	for round := range 3 { // it goes on after that
		v.send(t, a, ch, &agents.Message{Body: fmt.Appendf(nil, "%d", round)})
		got := v.next(t, in, 1)
		if string(got[0].Body) != fmt.Sprint(round) {
			t.Fatalf("round %d: got %q", round, got[0].Body)
		}
		if round == 1 { // given back, it comes again
			v.must(t, in.Return(v.ctx(t), got))
			if got = v.next(t, in, 1); string(got[0].Body) != "1" {
				t.Fatalf("after giving back: got %q", got[0].Body)
			}
		}
		v.must(t, in.Accept(v.ctx(t), got))
	}
	v.must(t, in.Close(v.ctx(t)))
	v.waits(t, ch, 0)
}

func testBrokenVerbs(t *testing.T, v Verbs) {
	if v.Cut == nil {
		t.Skip("connections to this broker cannot be cut")
	}
	a := v.connected(t)
	both, ok := a.(sendTaker)
	if !ok {
		t.Skip("not among its abilities")
	}
	ch := v.Channel(t)
	v.send(t, both, ch, numbered(20)...)
	o := v.outlet(t, both, ch)
	in := v.intake(t, both, ch, agents.IntakeOptions{Follow: true, Name: "broken"})
	v.must(t, in.Accept(v.ctx(t), v.next(t, in, 5)))
	held := v.next(t, in, 5)
	v.Cut(t)
	healed := false
	heal := func() {
		if !healed {
			healed = true
			v.Heal(t)
		}
	}
	defer heal()
	for i, err := range o.Send(v.ctx(t), numbered(10)) {
		if !errors.Is(err, agents.ErrNotConnected) {
			t.Fatalf("message %d over a cut connection: got %v, want ErrNotConnected", i, err)
		}
	}
	v.eventually(t, "taking to say that the connection is gone", func() bool {
		if _, err := in.Next(v.ctx(t), 1); err != nil {
			if !errors.Is(err, agents.ErrNotConnected) {
				t.Fatalf("Next over a cut connection: got %v, want ErrNotConnected", err)
			}
			return true
		}
		return false
	})
	if err := in.Accept(v.ctx(t), held); !errors.Is(err, agents.ErrNotConnected) {
		t.Errorf("Accept over a cut connection: got %v, want ErrNotConnected", err)
	}
	closing := time.Now()
	_ = in.Close(v.ctx(t))
	_ = o.Close(v.ctx(t))
	if d := time.Since(closing); d > v.Patience {
		t.Errorf("closing took %s", d)
	}
	heal()
	v.eventually(t, "Connect to succeed again", func() bool {
		_, err := a.Connect(v.ctx(t))
		return err == nil
	})
	// What was accepted right before the cut may come back; nothing else is lost.
	var n int64
	v.eventually(t, "what was held to wait again", func() bool { n = v.Waiting(t, ch); return n >= 15 })
	if n > 30 { // 20, and at most 10 that were sent without an answer
		t.Errorf("%d messages wait after the connection was cut", n)
	}
	again := v.intake(t, both, ch, agents.IntakeOptions{UpTo: v.upTo(t, both, ch)})
	have := map[string]bool{}
	for _, m := range v.all(t, again) {
		have[string(m.Body)] = true
	}
	for _, m := range numbered(20)[5:] {
		if !have[string(m.Body)] {
			t.Errorf("%s, which was not accepted, is lost", m.Body)
		}
	}
}

func testPeek(t *testing.T, v Verbs) {
	a := v.connected(t)
	p := ability[agents.Peeker](t, a)
	ch := v.Channel(t)
	if msgs, traces, err := p.Peek(v.ctx(t), ch, 10, false); err != nil || len(msgs) > 0 || traces != "" {
		t.Errorf("peek of nothing: %d messages, traces %q, %v", len(msgs), traces, err)
	}
	v.send(t, a.(agents.Sender), ch, numbered(60)...)
	msgs, traces, err := p.Peek(v.ctx(t), ch, 5, false)
	switch {
	case err == nil && traces != "":
		t.Errorf("without being allowed to, peek left: %s", traces)
	case err != nil && !errors.Is(err, controlbus.ErrConflict):
		t.Errorf("peek that may leave nothing: got %v, want ErrConflict", err)
	case err == nil && len(msgs) != 5:
		t.Errorf("peek at 5: got %d messages", len(msgs))
	}
	start := time.Now()
	msgs, _, err = p.Peek(v.ctx(t), ch, 1000, true)
	v.must(t, err)
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("the look took %s, want less than 2s", d)
	}
	if len(msgs) != 50 {
		t.Errorf("peek at 1000: got %d messages, want the 50 that are the most", len(msgs))
	}
	for i, m := range msgs {
		if want := fmt.Sprintf("m-%05d", i); string(m.Body) != want {
			t.Fatalf("message %d: got %q, want %q", i, m.Body, want)
		}
	}
	v.waits(t, ch, 60)
	taker, ok := a.(agents.Taker)
	if !ok {
		return
	}
	in := v.intake(t, taker, ch, agents.IntakeOptions{UpTo: v.upTo(t, a, ch)})
	for i, m := range v.all(t, in) {
		if want := fmt.Sprintf("m-%05d", i); !v.LosesPlace && string(m.Body) != want {
			t.Fatalf("after the look message %d is %q, want %q", i, m.Body, want)
		}
	}
}

func testPurge(t *testing.T, v Verbs) {
	a := v.connected(t)
	p := ability[agents.Purger](t, a)
	ch := v.Channel(t)
	v.send(t, a.(agents.Sender), ch, numbered(25)...)
	n, err := p.Purge(v.ctx(t), ch, v.upTo(t, a, ch))
	if err != nil || n != 25 {
		t.Errorf("purge: removed %d, %v; want 25", n, err)
	}
	v.waits(t, ch, 0)
	if n, err := p.Purge(v.ctx(t), ch, v.upTo(t, a, ch)); err != nil || n != 0 {
		t.Errorf("purge of nothing: removed %d, %v", n, err)
	}
}

func testPark(t *testing.T, v Verbs) {
	a := v.connected(t)
	p := ability[agents.Parker](t, a)
	id := fmt.Sprintf("suite-%d", time.Now().UnixNano())
	ch, err := p.Park(v.ctx(t), id)
	v.must(t, err)
	again, err := p.Park(v.ctx(t), id)
	if err != nil || again != ch {
		t.Errorf("parking twice: got %q, %v; want %q again", again, err, ch)
	}
	v.send(t, a.(agents.Sender), ch, numbered(2)...)
	if err := p.Unpark(v.ctx(t), id); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("removing a channel that holds messages: got %v, want ErrConflict", err)
	}
	if taker, ok := a.(agents.Taker); ok {
		in := v.intake(t, taker, ch, agents.IntakeOptions{UpTo: v.upTo(t, a, ch)})
		got := v.next(t, in, 2)
		if err := p.Unpark(v.ctx(t), id); !errors.Is(err, controlbus.ErrConflict) {
			t.Errorf("removing a channel whose messages are being worked on: got %v, want ErrConflict", err)
		}
		v.must(t, in.Accept(v.ctx(t), got))
		v.must(t, in.Close(v.ctx(t)))
		v.eventually(t, "the emptied channel to be removable", func() bool { return p.Unpark(v.ctx(t), id) == nil })
		v.must(t, p.Unpark(v.ctx(t), id))
	}
}

// sendTaker is an adapter that moves messages.
type sendTaker interface {
	agents.Sender
	agents.Taker
}

// ability skips the test where the adapter has none of the kind.
func ability[T any](t *testing.T, a any) T {
	t.Helper()
	v, ok := a.(T)
	if !ok {
		t.Skip("not among the adapter's abilities")
	}
	return v
}

func (v Verbs) connected(t *testing.T) agents.Adapter {
	t.Helper()
	a := v.New(t)
	if _, err := a.Connect(v.ctx(t)); err != nil {
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

func (v Verbs) both(t *testing.T) sendTaker {
	t.Helper()
	return ability[sendTaker](t, v.connected(t))
}

func (v Verbs) ctx(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), v.Patience)
	t.Cleanup(cancel)
	return ctx
}

func (v Verbs) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (v Verbs) inspect(t *testing.T, a any, channel string) agents.ChannelView {
	t.Helper()
	view, err := a.(agents.Inspector).Inspect(v.ctx(t), channel)
	v.must(t, err)
	return view
}

// upTo is the bound of a command that begins now.
func (v Verbs) upTo(t *testing.T, a any, channel string) string {
	t.Helper()
	if _, ok := a.(agents.Inspector); !ok {
		return ""
	}
	return v.inspect(t, a, channel).UpTo
}

func (v Verbs) outlet(t *testing.T, a any, channel string) agents.Outlet {
	t.Helper()
	o, err := a.(agents.Sender).Outlet(v.ctx(t), channel)
	v.must(t, err)
	t.Cleanup(func() { _ = o.Close(context.Background()) })
	return o
}

func (v Verbs) send(t *testing.T, a any, channel string, msgs ...*agents.Message) {
	t.Helper()
	o := v.outlet(t, a, channel)
	for _, err := range o.Send(v.ctx(t), msgs) {
		v.must(t, err)
	}
	v.must(t, o.Close(v.ctx(t)))
}

func (v Verbs) intake(t *testing.T, a any, channel string, o agents.IntakeOptions) agents.Intake {
	t.Helper()
	in, err := a.(agents.Taker).Intake(v.ctx(t), channel, o)
	v.must(t, err)
	t.Cleanup(func() { _ = in.Close(context.Background()) })
	return in
}

// next takes exactly n messages.
func (v Verbs) next(t *testing.T, in agents.Intake, n int) []*agents.Message {
	t.Helper()
	var out []*agents.Message
	for len(out) < n {
		batch, err := in.Next(v.ctx(t), n-len(out))
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(out), n, err)
		}
		out = append(out, batch...)
	}
	return out
}

// all takes what there is; its window holds all of it.
func (v Verbs) all(t *testing.T, in agents.Intake) []*agents.Message {
	t.Helper()
	var out []*agents.Message
	for {
		batch, err := in.Next(v.ctx(t), 100)
		if errors.Is(err, io.EOF) {
			return out
		}
		v.must(t, err)
		out = append(out, batch...)
	}
}

// waits checks how many messages wait. What is given back arrives a moment later.
func (v Verbs) waits(t *testing.T, channel string, want int64) {
	t.Helper()
	var n int64
	deadline := time.Now().Add(v.Patience)
	for {
		if n = v.Waiting(t, channel); n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages wait in %s, want %d", n, channel, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (v Verbs) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(v.Patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", v.Patience, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func numbered(n int) []*agents.Message {
	out := make([]*agents.Message, n)
	for i := range out {
		out[i] = &agents.Message{Body: fmt.Appendf(nil, "m-%05d", i), Persistent: true}
	}
	return out
}
