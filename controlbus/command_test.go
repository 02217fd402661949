package controlbus_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func purge() controlbus.CommandSpec {
	s := controlbus.CommandSpec{
		Kind:   controlbus.CommandPurge,
		Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "prod", System: "rabbitmq", Broker: "r1", Name: "orders"}},
		Args:   json.RawMessage(`{"backup":true}`), Reason: "poisoned",
		Preview: &controlbus.Preview{TakenAt: time.Unix(1_700_000_000, 0).UTC(), Env: "prod", Effect: "Removes 3 messages.", Count: 3,
			Reversible: controlbus.ReversiblePartly, Expect: controlbus.Expect{MaxCount: 5, Topology: "t1"}},
	}
	s.Preview.Seal(s.Kind, s.Target, s.Args)
	return s
}

func TestACommandIsBoundToItsPreview(t *testing.T) {
	t.Parallel()
	good := purge()
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	// The preview travels as JSON between browser, console and agent.
	b, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	var back controlbus.CommandSpec
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(good, back); diff != "" {
		t.Errorf("after JSON (-want +got):\n%s", diff)
	}
	if err := back.Check(); err != nil {
		t.Errorf("after JSON: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*controlbus.CommandSpec)
		want   error
	}{
		"another channel":    {func(s *controlbus.CommandSpec) { s.Target.Channel.Name = "payments" }, controlbus.ErrConflict},
		"another agent":      {func(s *controlbus.CommandSpec) { s.Target.Agent = "a2" }, controlbus.ErrConflict},
		"other arguments":    {func(s *controlbus.CommandSpec) { s.Args = json.RawMessage(`{"backup":false}`) }, controlbus.ErrConflict},
		"a larger count":     {func(s *controlbus.CommandSpec) { s.Preview.Expect.MaxCount = 500 }, controlbus.ErrConflict},
		"another effect":     {func(s *controlbus.CommandSpec) { s.Preview.Effect = "Removes nothing." }, controlbus.ErrConflict},
		"a destination":      {func(s *controlbus.CommandSpec) { s.Destination = &controlbus.ChannelName{Name: "x"} }, controlbus.ErrConflict},
		"no preview":         {func(s *controlbus.CommandSpec) { s.Preview = nil }, controlbus.ErrInvalid},
		"no reason":          {func(s *controlbus.CommandSpec) { s.Reason = " " }, controlbus.ErrInvalid},
		"no kind":            {func(s *controlbus.CommandSpec) { s.Kind = "explode" }, controlbus.ErrInvalid},
		"broken arguments":   {func(s *controlbus.CommandSpec) { s.Args = json.RawMessage(`{`) }, controlbus.ErrInvalid},
		"no time":            {func(s *controlbus.CommandSpec) { s.RunWithin = time.Millisecond }, controlbus.ErrInvalid},
		"eleven samples":     {func(s *controlbus.CommandSpec) { s.Preview.Samples = make([]controlbus.PreviewSample, 11) }, controlbus.ErrInvalid},
		"nothing on undoing": {func(s *controlbus.CommandSpec) { s.Preview.Reversible = "" }, controlbus.ErrInvalid},
	} {
		s := purge()
		c.change(&s)
		if err := s.Check(); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestExpectationsAreCompared(t *testing.T) {
	t.Parallel()
	e := controlbus.Expect{MaxCount: 5, Topology: "t1"}
	if got := e.Mismatch(5, "t1"); got != "" {
		t.Errorf("5 of 5: got %q", got)
	}
	if e.Mismatch(6, "t1") == "" || e.Mismatch(5, "t2") == "" {
		t.Error("more messages, or another topology, go unnoticed")
	}
	if got := (controlbus.Expect{MaxCount: -1}).Mismatch(1e9, "x"); got != "" {
		t.Errorf("no expectation: got %q", got)
	}
}

// Whatever happens to a command, it can end; and what has ended stays ended,
// except that the truth may replace not knowing.
func TestStatesLeadToAnEnd(t *testing.T) {
	t.Parallel()
	for _, s := range controlbus.CommandStates() {
		reach := map[controlbus.CommandState]bool{s: true}
		for grew := true; grew; {
			grew = false
			for _, next := range controlbus.CommandStates() {
				for from := range reach {
					if from.CanBecome(next) && !reach[next] {
						reach[next], grew = true, true
					}
				}
			}
		}
		ends := false
		for end := range reach {
			ends = ends || end.Terminal()
			if s.Sent() && (end == controlbus.CommandExpired || end == controlbus.CommandRefused) {
				t.Errorf("%s can become %s: it may have been done", s, end)
			}
			if s.Terminal() && !end.Terminal() {
				t.Errorf("%s has ended, and can become %s", s, end)
			}
			if !s.Sent() && !s.Terminal() && end.Sent() && !reach[controlbus.CommandDispatched] {
				t.Errorf("%s can become %s without being sent", s, end)
			}
		}
		if !ends {
			t.Errorf("%s never ends", s)
		}
		if s.Terminal() && s != controlbus.CommandIndeterminate && len(reach) > 1 {
			t.Errorf("%s has ended, and can still become another state", s)
		}
	}
	if controlbus.CommandState("").CanBecome(controlbus.CommandSucceeded) || controlbus.CommandQueued.CanBecome(controlbus.CommandSucceeded) {
		t.Error("a command that was never sent can succeed")
	}
}

func TestCommandIDsSortByTime(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a, b := controlbus.NewCommandID(now), controlbus.NewCommandID(now.Add(time.Millisecond))
	if !a.Valid() || !b.Valid() || a >= b {
		t.Errorf("ids %q, %q: want valid ones, in order", a, b)
	}
	for _, bad := range []controlbus.CommandID{"", a[1:], a + "0", "G" + a[1:]} {
		if bad.Valid() {
			t.Errorf("%q is valid", bad)
		}
	}
}

func TestOnlyWhatWasDoneIsUndone(t *testing.T) {
	t.Parallel()
	c := controlbus.Command{CommandSpec: purge(), State: controlbus.CommandSucceeded}
	if k, err := c.Undoable(); err != nil || k != controlbus.CommandReplay {
		t.Errorf("undo of a purge: got %v, %v", k, err)
	}
	for _, s := range []controlbus.CommandState{controlbus.CommandRunning, controlbus.CommandRejected, controlbus.CommandExpired} {
		c.State = s
		if _, err := c.Undoable(); !errors.Is(err, controlbus.ErrConflict) {
			t.Errorf("undo of a command that is %s: got %v, want ErrConflict", s, err)
		}
	}
	c.Kind, c.State = controlbus.CommandRedrive, controlbus.CommandSucceeded
	if _, err := c.Undoable(); !errors.Is(err, controlbus.ErrUnsupported) {
		t.Errorf("undo of a redrive: got %v, want ErrUnsupported", err)
	}
}
