package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

// CommandStore is what commands need of a message store besides.
type CommandStore interface {
	Store
	Selected(ctx context.Context, sel storage.Selection, after string, limit int, maxBytes int64) (storage.SelectionPage, error)
	CountSelected(ctx context.Context, sel storage.Selection) (storage.SelectionCount, error)
	Clock(ctx context.Context) (time.Time, error)
	Outcomes(ctx context.Context, q storage.OutcomeQuery) ([]storage.Outcome, error)
	CopyCommandEvents(ctx context.Context, events []storage.CommandEvent) error
	CommandEventsCopied(ctx context.Context) (int64, error)
}

// RunCommands runs the suite of what commands need. Open returns an empty store
// for one test.
func RunCommands(t *testing.T, open func(testing.TB) CommandStore) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, CommandStore)
	}{
		{"SelectionIsFrozen", frozen},
		{"SelectionSaysWhatIsNotWhole", notWhole},
		{"SelectionIsLimitedToAScope", selectionScope},
		{"SelectionPagesByBytes", selectionBytes},
		{"OutcomesByCommandAndByMessage", outcomes},
		{"LedgerIsCopiedOnce", ledgerCopy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.test(t, open(t))
		})
	}
}

func everything(t *testing.T) context.Context {
	return controlbus.WithScope(t.Context(), controlbus.Everything())
}

func tapOf(channel string, n int, f func(*controlbus.MessageEvent)) *controlbus.MessageEvent {
	body := fmt.Appendf(nil, `{"n":%d}`, n)
	e := &controlbus.MessageEvent{
		UID: uid(channel, n), Time: base().Add(time.Duration(n) * time.Second).UnixNano(), AgentTime: base().UnixNano(), Env: "prod", System: "rabbitmq", Broker: "b",
		Destination: channel, Op: controlbus.OpTap, MessageID: fmt.Sprint("m", n), Body: body, BodySize: int64(len(body)),
	}
	if f != nil {
		f(e)
	}
	return e
}

// walk reads a whole selection, with something done between pages.
func walk(ctx context.Context, t *testing.T, s CommandStore, sel storage.Selection, limit int, between func()) (all []storage.MessageDetail) {
	t.Helper()
	for after, pages := "", 0; ; pages++ {
		page, err := s.Selected(ctx, sel, after, limit, 8<<20)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Messages...)
		if page.Next == "" {
			return all
		}
		if pages > 1000 {
			t.Fatal("the selection does not end")
		}
		after = page.Next
		if between != nil {
			between()
		}
	}
}

// A selection finds the same messages while others are stored before, among and
// behind them; each once, oldest first, with its body.
func frozen(t *testing.T, s CommandStore) {
	var first []*controlbus.MessageEvent
	for n := range 100 {
		first = append(first, tapOf("orders", n*10, nil))
	}
	first = append(first, tapOf("orders", 50, nil)) // by a second agent
	first = append(first, tapOf("orders", 55, func(e *controlbus.MessageEvent) { e.Op = controlbus.OpProcess }))
	write(t, s, "first", first...)
	at, err := s.Clock(everything(t))
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(at).Abs(); d > time.Minute {
		t.Errorf("the store's clock is %v off", d)
	}
	f, err := filter.Parse("channel:orders", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sel := storage.Selection{Env: "prod", Range: around(base()), Filter: f, StoredBefore: at}
	for now := at; !now.After(at); { // stamps are of milliseconds
		if now, err = s.Clock(everything(t)); err != nil {
			t.Fatal(err)
		}
	}
	n, err := s.CountSelected(everything(t), sel)
	if err != nil || n.Messages != 100 || n.AtLeast || n.AtMost || !n.Oldest.Equal(base()) || !n.Newest.Equal(base().Add(990*time.Second)) {
		t.Errorf("counted: %+v, %v", n, err)
	}
	later := 0
	all := walk(everything(t), t, s, sel, 7, func() {
		later++
		write(t, s, fmt.Sprint("later", later), tapOf("orders", rand.IntN(1000)*10+1, func(e *controlbus.MessageEvent) { e.UID = uid("later", later) }))
	})
	if len(all) != 100 {
		t.Fatalf("%d messages, want 100", len(all))
	}
	for i := range all {
		if m := &all[i]; m.MessageID != fmt.Sprint("m", i*10) || string(m.Body) != fmt.Sprintf(`{"n":%d}`, i*10) || !m.BodyStored {
			t.Fatalf("message %d: %s %q", i, m.MessageID, m.Body)
		}
	}
	if n, err := s.CountSelected(everything(t), sel); err != nil || n.Messages != 100 {
		t.Errorf("counted again: %+v, %v", n, err)
	}
	sel = storage.Selection{Env: "prod", Range: around(base()), UIDs: []controlbus.ID{uid("orders", 50), uid("orders", 55), uid("nothing")}, StoredBefore: at}
	if all := walk(everything(t), t, s, sel, 100, nil); len(all) != 2 || all[1].MessageID != "m55" {
		t.Errorf("by uid: %d messages", len(all))
	}
	if n, err := s.CountSelected(everything(t), sel); err != nil || n.Messages != 2 {
		t.Errorf("counted by uid: %+v, %v", n, err)
	}
	// Conditions on bodies select by what is in them.
	if sel.Filter, err = filter.Parse("body.n >= 500 AND body.n < 520", time.Now()); err != nil {
		t.Fatal(err)
	}
	sel.UIDs = nil
	if all := walk(everything(t), t, s, sel, 1, nil); len(all) != 2 || all[0].MessageID != "m500" {
		t.Errorf("by body: %d messages", len(all))
	}
	if _, err := s.Selected(everything(t), sel, "nonsense", 1, 1); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("a cursor that is none: %v", err)
	}
}

func notWhole(t *testing.T, s CommandStore) {
	write(t, s, "t",
		tapOf("orders", 1, nil),
		tapOf("orders", 2, func(e *controlbus.MessageEvent) { e.Truncated, e.BodySize = true, 5000 }),
		tapOf("orders", 3, func(e *controlbus.MessageEvent) { e.Redacted = []string{"pan"} }),
		tapOf("orders", 4, func(e *controlbus.MessageEvent) { e.Body, e.BodyPolicy = nil, controlbus.BodyMetadata }),
		tapOf("orders", 5, func(e *controlbus.MessageEvent) { e.Op = controlbus.OpSend }),
		tapOf("orders", 6, func(e *controlbus.MessageEvent) { e.Body, e.BodySize = nil, 0 }),
	)
	sel := storage.Selection{Env: "prod", Range: around(base())}
	n, err := s.CountSelected(everything(t), sel)
	if err != nil || n.Messages != 6 || n.Truncated != 1 || n.Redacted != 1 || n.Bodyless != 1 || n.Told != 1 {
		t.Errorf("counted: %+v, %v", n, err)
	}
	all := walk(everything(t), t, s, sel, 100, nil)
	if len(all) != 6 || !all[1].Truncated || len(all[2].Redacted) != 1 || all[3].BodyPolicy != controlbus.BodyMetadata || all[3].BodyStored {
		t.Errorf("selected: %+v", all)
	}
	ctx, cancel := context.WithTimeout(everything(t), time.Nanosecond)
	defer cancel()
	if n, err := s.CountSelected(ctx, sel); err != nil || !n.AtLeast {
		t.Errorf("past the deadline: %+v, %v", n, err)
	}
}

func selectionScope(t *testing.T, s CommandStore) {
	write(t, s, "t", tapOf("orders", 1, nil), tapOf("salaries", 2, nil), tapOf("orders", 3, func(e *controlbus.MessageEvent) { e.Env = "dev" }))
	sel := storage.Selection{Range: around(base())}
	for name, c := range map[string]struct {
		scope controlbus.Scope
		want  int
	}{
		"everything":  {controlbus.Everything(), 3},
		"nothing":     {controlbus.Scope{}, 0},
		"one channel": {controlbus.NewScope([]controlbus.ScopeRule{{Env: "prod", Channel: "orders"}}), 1},
		"a pattern":   {controlbus.NewScope([]controlbus.ScopeRule{{Env: "*", Channel: "ord*"}}), 2},
		"both sets":   {controlbus.NewScope([]controlbus.ScopeRule{{Env: "*", Channel: "ord*"}}, []controlbus.ScopeRule{{Env: "dev", Channel: "*"}}), 1},
	} {
		ctx := controlbus.WithScope(t.Context(), c.scope)
		if n, err := s.CountSelected(ctx, sel); err != nil || n.Messages != uint64(c.want) {
			t.Errorf("%s: counted %d, %v; want %d", name, n.Messages, err, c.want)
		}
		if all := walk(ctx, t, s, sel, 10, nil); len(all) != c.want {
			t.Errorf("%s: selected %d, want %d", name, len(all), c.want)
		}
	}
}

func selectionBytes(t *testing.T, s CommandStore) {
	var events []*controlbus.MessageEvent
	for n := range 10 {
		events = append(events, tapOf("orders", n, func(e *controlbus.MessageEvent) { e.Body = make([]byte, 1000); e.BodySize = 1000 }))
	}
	write(t, s, "t", events...)
	sel := storage.Selection{Env: "prod", Range: around(base())}
	for most, want := range map[int64]int{1: 1, 2500: 2, 100_000: 10} {
		page, err := s.Selected(everything(t), sel, "", 100, most)
		if err != nil || len(page.Messages) != want || (page.Next == "") != (want == 10) {
			t.Errorf("at most %d bytes: %d messages, next %q, %v", most, len(page.Messages), page.Next, err)
			continue
		}
		if want < 10 {
			if page, err = s.Selected(everything(t), sel, page.Next, 100, 100_000); err != nil || len(page.Messages) != 10-want || page.Messages[0].MessageID != fmt.Sprint("m", want) {
				t.Errorf("behind it: %d messages, %v", len(page.Messages), err)
			}
		}
	}
}

// OutcomeLog is the log record of an outcome as an agent sends it.
func OutcomeLog(o storage.Outcome) *storage.Log {
	l := &storage.Log{
		Time: o.At.UnixNano(), AgentTime: o.At.UnixNano(), UID: controlbus.HashID(string(o.Command), fmt.Sprint(o.Number), o.Outcome, fmt.Sprint(o.At.UnixNano())), Env: o.Env,
		EventName: controlbus.EventCommandMessage, Destination: o.Destination, CorrelationID: o.CorrelationID,
	}
	for k, v := range map[string]string{
		controlbus.AttrCommand: string(o.Command), controlbus.AttrCommandKind: string(o.Kind), controlbus.AttrCommandOutcome: o.Outcome, controlbus.AttrCommandNumber: fmt.Sprint(o.Number),
		controlbus.AttrCommandSource: o.Source, controlbus.AttrCommandDetail: o.Detail, controlbus.AttrBroker: o.Broker, controlbus.AttrMessageID: o.MessageID,
	} {
		if v != "" {
			l.Attrs = append(l.Attrs, storage.Attr{Key: k, Value: v})
		}
	}
	if !o.UID.IsZero() {
		l.Attrs = append(l.Attrs, storage.Attr{Key: controlbus.AttrUID, Value: o.UID.String()})
	}
	return l
}

func outcomes(t *testing.T, s CommandStore) {
	id, other := controlbus.NewCommandID(base()), controlbus.NewCommandID(base())
	b := s.NewBatch()
	for n := range 25 {
		o := storage.Outcome{
			Command: id, Kind: controlbus.CommandRedrive, At: base().Add(time.Duration(n) * time.Second), Number: int64(n + 1), Outcome: "sent", Env: "prod", Broker: "b",
			Destination: "orders", Source: "orders.dead", MessageID: fmt.Sprint("m", n), CorrelationID: "c", UID: uid("dead", n),
		}
		b.AppendLog(OutcomeLog(o))
		if n == 3 { // told again after a crash, otherwise
			o.Outcome, o.Detail, o.At = "failed", "no route", o.At.Add(time.Minute)
			b.AppendLog(OutcomeLog(o))
		}
	}
	b.AppendLog(OutcomeLog(storage.Outcome{Command: other, Kind: controlbus.CommandPurge, At: base().Add(time.Hour), Number: 1, Outcome: "removed", Env: "prod", Broker: "b", Source: "salaries", MessageID: "m7"}))
	b.AppendLog(&storage.Log{Time: base().UnixNano(), AgentTime: base().UnixNano(), EventName: controlbus.EventCommandMessage, Env: "prod"}) // names no command
	if err := s.Write(t.Context(), "outcomes", b); err != nil {
		t.Fatal(err)
	}
	var numbers []int64
	for after := int64(0); ; {
		page, err := s.Outcomes(everything(t), storage.OutcomeQuery{Range: around(base()), Command: id, After: after, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page {
			numbers = append(numbers, o.Number)
			want := "sent"
			if o.Number == 4 {
				want = "failed"
			}
			if o.Outcome != want || o.Command != id || o.Kind != controlbus.CommandRedrive || o.Source != "orders.dead" || o.Destination != "orders" || o.UID != uid("dead", o.Number-1) || o.CorrelationID != "c" {
				t.Errorf("outcome: %+v", o)
			}
		}
		if len(page) < 10 {
			break
		}
		after = page[len(page)-1].Number
	}
	if len(numbers) != 25 || !slices.IsSorted(numbers) {
		t.Errorf("numbers: %v", numbers)
	}
	got, err := s.Outcomes(everything(t), storage.OutcomeQuery{Range: around(base()), MessageID: "m7"})
	if err != nil || len(got) != 2 || got[0].Command != other || got[1].Command != id {
		t.Errorf("by message id: %+v, %v", got, err)
	}
	if got, err = s.Outcomes(everything(t), storage.OutcomeQuery{Range: around(base()), UID: uid("dead", 3)}); err != nil || len(got) != 1 || got[0].Detail != "no route" {
		t.Errorf("by uid: %+v, %v", got, err)
	}
	narrow := controlbus.WithScope(t.Context(), controlbus.NewScope([]controlbus.ScopeRule{{Env: "prod", Channel: "orders*"}}))
	if got, err = s.Outcomes(narrow, storage.OutcomeQuery{Range: around(base()), MessageID: "m7"}); err != nil || len(got) != 1 || got[0].Command != id {
		t.Errorf("by message id, limited to orders: %+v, %v", got, err)
	}
	if _, err = s.Outcomes(everything(t), storage.OutcomeQuery{Range: around(base())}); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("of nothing: %v", err)
	}
}

func ledgerCopy(t *testing.T, s CommandStore) {
	if at, err := s.CommandEventsCopied(t.Context()); err != nil || at != 0 {
		t.Fatalf("an empty store: %d, %v", at, err)
	}
	var events []storage.CommandEvent
	for n := range int64(50) {
		events = append(events, storage.CommandEvent{
			Seq: n + 1, At: base(), Command: controlbus.NewCommandID(base()), N: 1, Type: "requested", Kind: controlbus.CommandPurge, Actor: controlbus.Actor{Kind: "user", ID: "u", Name: "ann"},
			Target: controlbus.Target{Agent: "a", Channel: controlbus.ChannelName{Env: "prod", Broker: "b", Name: "orders"}}, Body: `{"x":1}`,
		})
	}
	for range 2 { // an answer that was lost
		if err := s.CopyCommandEvents(t.Context(), events[:20]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CopyCommandEvents(t.Context(), events[20:]); err != nil {
		t.Fatal(err)
	}
	if at, err := s.CommandEventsCopied(t.Context()); err != nil || at != 50 {
		t.Errorf("copied up to %d, %v; want 50", at, err)
	}
	sizes, err := s.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range sizes {
		if table.Name == "command_events" && table.Rows != 50 {
			t.Errorf("%d rows for 50 events", table.Rows)
		}
	}
}
