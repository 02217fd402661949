package state_test

import (
	"bufio"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// stages are what a child says of a command, in their order.
var stages = map[controlbus.CommandState]int{controlbus.CommandQueued: 1, controlbus.CommandDispatched: 2, controlbus.CommandSucceeded: 3}

// told is what processes have said is kept.
type told struct {
	mu  sync.Mutex
	all map[controlbus.CommandID]controlbus.CommandState
}

func (d *told) size() int { d.mu.Lock(); defer d.mu.Unlock(); return len(d.all) }

// child is a console's ledger in a process of its own.
type child struct {
	cmd   *exec.Cmd
	ready chan struct{} // closed once it begins
	done  chan struct{} // closed once it has ended
}

// spawn starts a child that works until it is killed or its store is gone.
func spawn(t *testing.T, at place, d *told, errs io.Writer) *child {
	t.Helper()
	c := &child{cmd: exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$"), ready: make(chan struct{}), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), "SIGNALBOX_TEST_LEDGER_CHILD="+at.path, "SIGNALBOX_TEST_LEDGER_DSN="+at.dsn.Reveal())
	c.cmd.Stderr = errs
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready" {
				close(c.ready)
				continue
			}
			id, st, ok := strings.Cut(lines.Text(), " ")
			if ok && controlbus.CommandID(id).Valid() && stages[controlbus.CommandState(st)] > 0 {
				d.mu.Lock()
				d.all[controlbus.CommandID(id)] = controlbus.CommandState(st)
				d.mu.Unlock()
			}
		}
		_ = c.cmd.Wait() // killed
	}()
	t.Cleanup(func() { _ = c.cmd.Process.Kill(); <-c.done })
	select {
	case <-c.ready:
	case <-c.done:
		t.Fatal("the child did not start")
	}
	return c
}

func (c *child) kill() { _ = c.cmd.Process.Kill(); <-c.done }

// check says that everything told is kept and that the trail is whole; it returns
// the newest head.
func (d *told) check(t *testing.T, at place, heads []string) (head string) {
	t.Helper()
	key, err := state.AuditKey(at.path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := at.verify(t.Context(), key, heads)
	if err != nil || len(report.Findings) > 0 {
		t.Fatalf("audit trail: %v, %v", report.Findings, err)
	}
	s, err := at.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for id, want := range d.all {
		c, err := s.Command(t.Context(), id)
		if err != nil {
			t.Fatalf("a command that was told is lost: %v", err)
		}
		if stages[c.State] < stages[want] {
			t.Fatalf("command %s was told to be %s, and is %s", id, want, c.State)
		}
	}
	head, _, err = s.AuditHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// whole says that commands are the fold of their events, that the audit trail has
// each change of state, and that never two commands had the contended channel.
func whole(t *testing.T, at place, heads []string) (events []ledger.Event, changes, open int) {
	t.Helper()
	s, err := at.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if events, err = s.EventsAfter(t.Context(), 0, 1<<30); err != nil {
		t.Fatal(err)
	}
	folded := map[controlbus.CommandID]*controlbus.Command{}
	var holder controlbus.CommandID
	contests := 0
	for i, e := range events {
		if i > 0 && e.Seq <= events[i-1].Seq {
			t.Fatalf("event %d is numbered %d behind %d", i, e.Seq, events[i-1].Seq)
		}
		c := folded[e.Command]
		if c == nil {
			c = &controlbus.Command{}
			folded[e.Command] = c
		}
		before := c.State
		if err := ledger.Fold(c, e); err != nil {
			t.Fatal(err)
		}
		if c.State != before {
			changes++
		}
		if c.Target.Channel.Name == contended {
			switch {
			case holder == "":
				holder = e.Command
				contests++
			case holder != e.Command:
				t.Fatalf("command %s got the channel that %s had", e.Command, holder)
			}
			if c.State.Terminal() {
				holder = ""
			}
		}
	}
	for id, c := range folded {
		kept, err := s.Command(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*c, kept); diff != "" {
			t.Fatalf("command %s is not the fold of its events:\n%s", id, diff)
		}
		if !c.State.Terminal() {
			open++
		}
	}
	key, err := state.AuditKey(at.path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := at.verify(t.Context(), key, heads)
	if err != nil || len(report.Findings) > 0 {
		t.Fatalf("audit trail: %v, %v", report.Findings, err)
	}
	if int(report.Entries) != changes {
		t.Errorf("%d changes of state, %d entries in the audit trail", changes, report.Entries)
	}
	if contests == 0 {
		t.Error("nobody had the contended channel")
	}
	return events, changes, open
}

// What the ledger said is kept outlives kill -9 of its process; the audit trail
// and the events agree, and the signed tree holds.
func TestKilledLedger(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, fresh func(testing.TB) place) {
		at := fresh(t)
		kills := 6
		if os.Getenv("SIGNALBOX_SOAK") != "" {
			kills = 200
		}
		d := told{all: map[controlbus.CommandID]controlbus.CommandState{}}
		var heads []string
		for life := range kills {
			before := d.size()
			c := spawn(t, at, &d, os.Stderr)
			if life%2 == 1 { // at work, however slow the machine is
				for end := time.Now().Add(30 * time.Second); d.size() == before && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
			}
			time.Sleep(time.Duration(10+rand.IntN(200)) * time.Millisecond) // any moment of its life
			c.kill()
			if h := d.check(t, at, heads); h != "" {
				heads = append(heads, h)
			}
		}
		if len(d.all) < kills/2 {
			t.Errorf("only %d commands were told of in %d lives", len(d.all), kills)
		}
		_, changes, open := whole(t, at, heads)
		t.Logf("%d kills, %d commands told, %d changes of state, %d left open", kills, len(d.all), changes, open)
	})
}

// PostgreSQL itself dies, all its processes at once, while two consoles write.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	server := broker.PostgreSQLAlone(t)
	at := place{path: filepath.Join(t.TempDir(), "state.db"), dsn: controlbus.Secret(server.URL)}
	cuts := 2
	if os.Getenv("SIGNALBOX_SOAK") != "" {
		cuts = 30
	}
	d := told{all: map[controlbus.CommandID]controlbus.CommandState{}}
	var heads []string
	for range cuts {
		before := d.size()
		a := spawn(t, at, &d, io.Discard) // its workers say what they miss
		b := spawn(t, at, &d, io.Discard)
		await(t, "commands told of", func() bool { return d.size() > before+20 })
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond) // any moment
		server.PowerCut(t)
		server.Start(t)
		a.kill()
		b.kill()
		heads = append(heads, d.check(t, at, heads))
	}
	_, changes, open := whole(t, at, heads)
	t.Logf("%d power cuts, %d commands told, %d changes of state, %d left open", cuts, len(d.all), changes, open)
}

// Two consoles, each with a copy of the key, write to one database, and a third
// follows: the trail is one and whole, no command is lost, one command at a time
// has a channel, and the follower sees every event.
func TestTwoConsolesOnOneDatabase(t *testing.T) {
	t.Parallel()
	one := postgresAt(t)
	s := open(t, one)
	two := place{path: filepath.Join(t.TempDir(), "state.db"), dsn: one.dsn}
	key, err := os.ReadFile(filepath.Join(filepath.Dir(one.path), state.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(two.path), state.KeyFile), key, 0o600); err != nil {
		t.Fatal(err)
	}
	d := told{all: map[controlbus.CommandID]controlbus.CommandState{}}
	ctx, enough := context.WithCancel(t.Context())
	var followed []int64
	var wg sync.WaitGroup
	follow := func(ctx context.Context) (n int) {
		last := int64(0)
		if len(followed) > 0 {
			last = followed[len(followed)-1]
		}
		events, err := s.EventsAfter(ctx, last, 1000)
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		for _, e := range events {
			followed = append(followed, e.Seq)
		}
		return len(events)
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			follow(ctx)
		}
	})
	a, b := spawn(t, one, &d, os.Stderr), spawn(t, two, &d, os.Stderr)
	await(t, "commands told of", func() bool { return d.size() > 150 })
	a.kill()
	b.kill()
	enough()
	wg.Wait()
	// A killed console's commit may still be on its way: it has the writers' lock.
	if err := s.ChangeLedger(t.Context(), func(ledger.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	head := d.check(t, one, nil)
	for follow(t.Context()) > 0 {
	}
	events, changes, left := whole(t, two, []string{head})
	if len(followed) != len(events) {
		t.Errorf("the follower saw %d events of %d", len(followed), len(events))
	}
	for i := range min(len(events), len(followed)) {
		if events[i].Seq != followed[i] {
			t.Fatalf("the follower saw event %d where %d is", followed[i], events[i].Seq)
		}
	}
	t.Logf("%d commands told, %d events, %d changes of state, %d left open", len(d.all), len(events), changes, left)
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no ", what)
		}
	}
}
