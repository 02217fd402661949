package state_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/storage/storagetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("SIGNALBOX_TEST_LEDGER_CHILD"); path != "" {
		if err := ledgerChild(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestLedger(t *testing.T) {
	t.Parallel()
	storagetest.RunLedger(t, func(tb testing.TB) storagetest.LedgerStore {
		s, err := state.Open(tb.Context(), filepath.Join(tb.TempDir(), "state.db"))
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := s.Close(); err != nil {
				tb.Error(err)
			}
		})
		return s
	})
}

func everybody(ctx context.Context) context.Context {
	return access.With(ctx, access.Identity{ID: "u1", Name: "ann", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)})
}

func newLedger(s *state.Store) (*ledger.Ledger, error) {
	cfg := ledger.DefaultConfig()
	cfg.Policies = []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveNone}}
	return ledger.New(cfg, s, slog.New(slog.DiscardHandler))
}

func purgeOf(channel string) ledger.Request {
	s := controlbus.CommandSpec{
		Kind: controlbus.CommandPurge, Reason: "test", Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "e", Broker: "b", Name: channel}},
		Preview: &controlbus.Preview{TakenAt: time.Now(), Env: "e", Effect: "Removes.", Reversible: controlbus.ReversibleNo},
	}
	s.Preview.Seal(s.Kind, s.Target, s.Args)
	return ledger.Request{CommandSpec: s}
}

// ledgerChild takes commands through their lives, eight at a time, and prints
// each step once it has been told that the step is kept.
func ledgerChild(path string) error {
	ctx := everybody(context.Background())
	s, err := state.Open(ctx, path)
	if err != nil {
		return err
	}
	l, err := newLedger(s)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(id controlbus.CommandID, st controlbus.CommandState) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(id, st)
	}
	fmt.Println("ready")
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				c, err := l.Request(ctx, purgeOf(fmt.Sprintf("%d.%d.%d", os.Getpid(), w, n)))
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				say(c.ID, c.State)
				if _, _, _, err := l.Dispatch(ctx, ledger.Session{Agent: "a1", Epoch: 1, Journal: "j"}, c.ID); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				say(c.ID, controlbus.CommandDispatched)
				r := controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}
				if err := l.Merge(ctx, "a1", ledger.AgentEvent{Command: c.ID, Seq: 1, Type: ledger.EventResult, Result: &r}); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				say(c.ID, r.Outcome)
			}
		})
	}
	wg.Wait()
	return nil
}

// What the ledger said is kept outlives kill -9 of its process; the audit trail
// and the events agree, and the signed tree holds.
func TestKilledLedger(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	kills := 6
	if os.Getenv("SIGNALBOX_SOAK") != "" {
		kills = 200
	}
	order := map[controlbus.CommandState]int{controlbus.CommandQueued: 1, controlbus.CommandDispatched: 2, controlbus.CommandSucceeded: 3}
	told := map[controlbus.CommandID]controlbus.CommandState{}
	var heads []string
	for range kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "SIGNALBOX_TEST_LEDGER_CHILD="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var kill *time.Timer
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready" {
				kill = time.AfterFunc(time.Duration(10+rand.IntN(200))*time.Millisecond, func() { _ = cmd.Process.Kill() })
				continue
			}
			id, st, ok := strings.Cut(lines.Text(), " ")
			if ok && controlbus.CommandID(id).Valid() && order[controlbus.CommandState(st)] > 0 {
				told[controlbus.CommandID(id)] = controlbus.CommandState(st)
			}
		}
		if kill == nil {
			t.Fatal("the child did not start: ", cmd.Wait())
		}
		_ = cmd.Wait() // killed
		kill.Stop()

		key, err := state.AuditKey(path)
		if err != nil {
			t.Fatal(err)
		}
		report, err := state.VerifyAudit(t.Context(), path, key, heads)
		if err != nil || len(report.Findings) > 0 {
			t.Fatalf("after kill -9: %v, %v", report.Findings, err)
		}
		s, err := state.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		for id, want := range told {
			c, err := s.Command(t.Context(), id)
			if err != nil {
				t.Fatalf("a command that was told is lost: %v", err)
			}
			if order[c.State] < order[want] {
				t.Fatalf("command %s was told to be %s, and is %s", id, want, c.State)
			}
		}
		if h, _, err := s.AuditHead(t.Context()); err != nil {
			t.Fatal(err)
		} else if h != "" {
			heads = append(heads, h)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) < kills {
		t.Errorf("only %d commands were told of in %d lives", len(told), kills)
	}
	s := open(t, path)
	events, err := s.EventsAfter(t.Context(), 0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	folded := map[controlbus.CommandID]*controlbus.Command{}
	changes := 0
	for _, e := range events {
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
	}
	locked := 0
	for id, c := range folded {
		kept, err := s.Command(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*c, kept); diff != "" {
			t.Fatalf("command %s is not the fold of its events:\n%s", id, diff)
		}
		if !c.State.Terminal() {
			locked++
		}
	}
	key, err := state.AuditKey(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := state.VerifyAudit(t.Context(), path, key, heads)
	if err != nil {
		t.Fatal(err)
	}
	if int(report.Entries) != changes {
		t.Errorf("%d changes of state, %d entries in the audit trail", changes, report.Entries)
	}
	t.Logf("%d kills, %d commands told, %d changes of state, %d left open", kills, len(told), changes, locked)
}

func TestAPersonCannotConsentThroughATokenOfTheirs(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	svc, err := access.New(access.DefaultConfig(), access.DefaultPrivacy(), s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ann := access.User{ID: "u1", Name: "ann", Grants: access.Everywhere(access.Admin), CreatedAt: time.Now()}
	if err := s.AddUser(t.Context(), ann, access.Event{At: time.Now(), Code: access.EventUserAdd}); err != nil {
		t.Fatal(err)
	}
	id := access.Identity{ID: "u1", Name: "ann", Kind: access.KindUser, Grants: ann.Grants}
	_, secret, err := svc.CreateToken(t.Context(), id, access.NewToken{Name: "ci", Grants: access.Everywhere(access.Approver)})
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := svc.FromToken(t.Context(), secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	cfg := ledger.DefaultConfig()
	cfg.Policies = []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveSecond}}
	l, err := ledger.New(cfg, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Request(access.With(t.Context(), id), purgeOf("orders"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Approve(access.With(t.Context(), token), c.ID, c.Preview.Fingerprint); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("consent by the requester's token: got %v, want ErrDenied", err)
	}
}

// trail fills an audit trail and returns its path, key, and the head of the
// moment when it had half of the entries.
func trail(t *testing.T) (path, key string, half string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "state.db")
	s, err := state.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if i == 10 {
			if half, _, err = s.AuditHead(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.AddEvent(t.Context(), access.Event{At: time.Unix(int64(1_700_000_000+i), 0), Actor: access.Actor{Kind: access.KindUser, Name: "ann"}, Code: "test.done", Target: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if key, err = state.AuditKey(path); err != nil {
		t.Fatal(err)
	}
	return path, key, half
}

func TestAuditTamperingIsFound(t *testing.T) {
	t.Parallel()
	// Who can write the file can drop its triggers.
	const free = `DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete;`
	for name, c := range map[string]struct {
		do   string // by someone with the file, without the key
		want string // in the findings
	}{
		"nothing":          {``, ""},
		"edit":             {free + `UPDATE audit SET actor_name = 'bob' WHERE seq = 7`, "entry 7: it is not what was written"},
		"edit the last":    {free + `UPDATE audit SET target = 'x' WHERE seq = 20`, "entry 20"},
		"edit the first":   {free + `UPDATE audit SET at = 1 WHERE seq = 1`, "entry 1"},
		"edit the refusal": {free + `UPDATE audit SET refused = 1 WHERE seq = 3`, "entry 3"},
		"delete":           {free + `DELETE FROM audit WHERE seq = 7`, "entry 7: it was removed"},
		"delete with leaf": {free + `DELETE FROM audit WHERE seq = 7; DELETE FROM audit_leaves WHERE seq = 7`, "the leaf before it is gone"},
		"delete and close the gap": {free + `DELETE FROM audit WHERE seq = 7; DELETE FROM audit_leaves WHERE seq = 7;
			UPDATE audit_leaves SET n = n - 1 WHERE n > 6`, "entry 8: it is not what was written"},
		"reorder":         {free + `UPDATE audit SET seq = 1007 WHERE seq = 7; UPDATE audit SET seq = 7 WHERE seq = 8; UPDATE audit SET seq = 8 WHERE seq = 1007`, "entry 7: it is not what was written"},
		"reorder leaves":  {`UPDATE audit_leaves SET n = 1007 WHERE n = 7; UPDATE audit_leaves SET n = 7 WHERE n = 8; UPDATE audit_leaves SET n = 8 WHERE n = 1007`, "the order was changed"},
		"insert":          {`INSERT INTO audit SELECT 99, at, actor_kind, actor_id, actor_name, code, target, env, channel, refused, detail, address FROM audit WHERE seq = 3`, "entry 99: it was put in beside the console"},
		"truncate":        {free + `DELETE FROM audit WHERE seq > 15`, "entry 16: it was removed"},
		"truncate leaves": {free + `DELETE FROM audit WHERE seq > 15; DELETE FROM audit_leaves WHERE seq > 15; DELETE FROM audit_hashes WHERE i >= 27`, "the end was cut off"},
		"no head":         {`DELETE FROM audit_head`, "the signed head is gone"},
		"everything gone": {free + `DELETE FROM audit; DELETE FROM audit_leaves; DELETE FROM audit_hashes; DELETE FROM audit_head`, "a head kept elsewhere has 20 entries, here are 0"},
		"a forged head":   {`UPDATE audit_head SET note = replace(note, char(10) || '20' || char(10), char(10) || '19' || char(10))`, "not signed with the key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, key, half := trail(t)
			s, err := state.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			full, _, err := s.AuditHead(t.Context())
			if err := errors.Join(err, s.Close()); err != nil {
				t.Fatal(err)
			}
			sqlite(t, path, c.do)
			found(t, path, key, []string{half, full}, c.want)
		})
	}
}

func found(t *testing.T, path, key string, heads []string, want string) {
	t.Helper()
	r, err := state.VerifyAudit(t.Context(), path, key, heads)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range r.Findings {
		all = append(all, f.String())
	}
	text := strings.Join(all, "\n")
	if want == "" && text != "" || !strings.Contains(text, want) {
		t.Errorf("findings:\n%s\nwant %q", text, want)
	}
}

// Who recomputes the chain behind an edit cannot sign; who puts an older head,
// really signed, over a cut trail is found by a head kept elsewhere, and by
// nothing else.
func TestACleverForgerIsFound(t *testing.T) {
	t.Parallel()
	path, key, half := trail(t)
	s, err := state.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	full, size, err := s.AuditHead(t.Context())
	if err := errors.Join(err, s.Close()); err != nil || size != 20 {
		t.Fatal(size, err)
	}
	cut := `DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete; DELETE FROM audit WHERE seq > 10; DELETE FROM audit_leaves WHERE seq > 10;
		DELETE FROM audit_hashes WHERE i >= 18; UPDATE audit_head SET size = 10, note = '` + half + `'`
	sqlite(t, path, cut)
	found(t, path, key, nil, "")
	found(t, path, key, []string{half}, "")
	found(t, path, key, []string{half, full}, "a head kept elsewhere has 20 entries, here are 10")

	// The console goes on over the cut trail with other entries: same size,
	// whole chain, head signed by the console itself.
	s, err = state.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := s.AddEvent(t.Context(), access.Event{At: time.Now(), Code: "test.other"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	found(t, path, key, []string{half}, "")
	found(t, path, key, []string{full}, "a head kept elsewhere has another root for the first 20 entries")

	// Another key signs nothing that counts.
	other, otherKey, _ := trail(t)
	_ = other
	found(t, path, otherKey, nil, "not signed with the key")
	if _, err := state.VerifyAudit(t.Context(), path, "rubbish", nil); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("a key that is none: got %v, want ErrInvalid", err)
	}
	if got := state.SplitHeads(half + full); cmp.Diff([]string{half, full}, got) != "" {
		t.Errorf("heads written one after the other are read as %q", got)
	}
}

// A trail from before the tree is taken into it as it is.
func TestAnOlderTrailIsSealed(t *testing.T) {
	t.Parallel()
	path, _, _ := trail(t)
	sqlite(t, path, `DELETE FROM audit_leaves; DELETE FROM audit_hashes; DELETE FROM audit_head`)
	open(t, path)
	key, err := state.AuditKey(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := state.VerifyAudit(t.Context(), path, key, nil)
	if err != nil || len(r.Findings) > 0 || r.Entries != 20 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestTheKeyFileIsItsOwnersAloneAndChecked(t *testing.T) {
	t.Parallel()
	path, _, _ := trail(t)
	file := filepath.Join(filepath.Dir(path), "audit.key")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
	if err := os.WriteFile(file, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(t.Context(), path); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("open with a broken key: got %v, want ErrInvalid", err)
	}
	if _, err := state.AuditKey(path); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("public half of a broken key: got %v, want ErrInvalid", err)
	}
}

func BenchmarkLedgerLife(b *testing.B) {
	s, err := state.Open(b.Context(), filepath.Join(b.TempDir(), "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	l, err := newLedger(s)
	if err != nil {
		b.Fatal(err)
	}
	ctx := everybody(b.Context())
	n := 0
	for b.Loop() {
		n++
		c, err := l.Request(ctx, purgeOf(strconv.Itoa(n)))
		if err != nil {
			b.Fatal(err)
		}
		if _, _, _, err := l.Dispatch(ctx, ledger.Session{Agent: "a1", Journal: "j"}, c.ID); err != nil {
			b.Fatal(err)
		}
		if err := l.Merge(ctx, "a1", ledger.AgentEvent{Command: c.ID, Seq: 1, Type: ledger.EventResult, Result: &controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Evidence: json.RawMessage(`{}`)}}); err != nil {
			b.Fatal(err)
		}
	}
}
