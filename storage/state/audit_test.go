package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage/state"
)

// trail fills an audit trail and returns its key and the head of the moment when
// it had half of the entries.
func trail(t *testing.T, at place) (key, half string) {
	t.Helper()
	s, err := at.open(t.Context())
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
	if key, err = state.AuditKey(at.path); err != nil {
		t.Fatal(err)
	}
	return key, half
}

func TestAuditTamperingIsFound(t *testing.T) {
	t.Parallel()
	// Who can write the file can drop its triggers.
	each(t, tamper)
}

func tamper(t *testing.T, fresh func(testing.TB) place) {
	const free = `FREE; `
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
		"a forged head":   {`UPDATE audit_head SET note = replace(note, CHAR10 || '20' || CHAR10, CHAR10 || '19' || CHAR10)`, "not signed with the key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := fresh(t)
			key, half := trail(t, p)
			s, err := p.open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			full, _, err := s.AuditHead(t.Context())
			if err := errors.Join(err, s.Close()); err != nil {
				t.Fatal(err)
			}
			p.exec(t, c.do)
			found(t, p, key, []string{half, full}, c.want)
		})
	}
}

func found(t *testing.T, at place, key string, heads []string, want string) {
	t.Helper()
	r, err := at.verify(t.Context(), key, heads)
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
	each(t, cleverForger)
}

func cleverForger(t *testing.T, fresh func(testing.TB) place) {
	p := fresh(t)
	key, half := trail(t, p)
	s, err := p.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	full, size, err := s.AuditHead(t.Context())
	if err := errors.Join(err, s.Close()); err != nil || size != 20 {
		t.Fatal(size, err)
	}
	cut := `FREE; DELETE FROM audit WHERE seq > 10; DELETE FROM audit_leaves WHERE seq > 10;
		DELETE FROM audit_hashes WHERE i >= 18; UPDATE audit_head SET size = 10, note = '` + half + `'`
	p.exec(t, cut)
	found(t, p, key, nil, "")
	found(t, p, key, []string{half}, "")
	found(t, p, key, []string{half, full}, "a head kept elsewhere has 20 entries, here are 10")

	// The console goes on over the cut trail with other entries: same size,
	// whole chain, head signed by the console itself.
	s, err = p.open(t.Context())
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
	found(t, p, key, []string{half}, "")
	found(t, p, key, []string{full}, "a head kept elsewhere has another root for the first 20 entries")

	// Another key signs nothing that counts.
	otherKey, _ := trail(t, fresh(t))
	found(t, p, otherKey, nil, "not signed with the key")
	if _, err := p.verify(t.Context(), "rubbish", nil); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("a key that is none: got %v, want ErrInvalid", err)
	}
	if got := state.SplitHeads(half + full); cmp.Diff([]string{half, full}, got) != "" {
		t.Errorf("heads written one after the other are read as %q", got)
	}
}

// A trail from before the tree is taken into it as it is.
func TestAnOlderTrailIsSealed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, fresh func(testing.TB) place) {
		p := fresh(t)
		key, _ := trail(t, p)
		p.exec(t, `DELETE FROM audit_leaves; DELETE FROM audit_hashes; DELETE FROM audit_head`)
		open(t, p)
		r, err := p.verify(t.Context(), key, nil)
		if err != nil || len(r.Findings) > 0 || r.Entries != 20 {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

func TestTheKeyFileIsItsOwnersAloneAndChecked(t *testing.T) {
	t.Parallel()
	each(t, keyFile)
}

func keyFile(t *testing.T, fresh func(testing.TB) place) {
	p := fresh(t)
	trail(t, p)
	file := filepath.Join(filepath.Dir(p.path), state.KeyFile)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
	if err := os.WriteFile(file, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.open(t.Context()); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("open with a broken key: got %v, want ErrInvalid", err)
	}
	if _, err := state.AuditKey(p.path); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("public half of a broken key: got %v, want ErrInvalid", err)
	}
}
