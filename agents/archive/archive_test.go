package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/spool"
)

func newID() controlbus.CommandID { return controlbus.NewCommandID(time.Now()) }

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 1 << 30
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = time.Hour
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readAll(t *testing.T, s *Store, id controlbus.CommandID) (out []*agents.Message) {
	t.Helper()
	r, err := s.Open(id, Cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
}

// everyKind has a header of each kind that a message may have.
func everyKind() *agents.Message {
	return &agents.Message{
		Position: "17", Time: time.Unix(1_700_000_000, 123).UTC(), MessageID: "m-1", CorrelationID: "c", ReplyTo: "r", Type: "t", AppID: "a",
		ContentType: "application/json", ContentEncoding: "gzip", Key: "orders.eu",
		Headers: []agents.Field{
			{Key: "nil", Value: nil}, {Key: "bool", Value: true}, {Key: "i8", Value: int8(-128)}, {Key: "i16", Value: int16(-5)}, {Key: "i32", Value: int32(math.MinInt32)},
			{Key: "i64", Value: int64(math.MaxInt64)}, {Key: "int", Value: -3}, {Key: "u8", Value: uint8(255)}, {Key: "u16", Value: uint16(9)}, {Key: "u32", Value: uint32(math.MaxUint32)},
			{Key: "u64", Value: uint64(math.MaxUint64)}, {Key: "f32", Value: float32(1.5)}, {Key: "f64", Value: math.Inf(-1)}, {Key: "s", Value: "text\x00\xff"},
			{Key: "b", Value: []byte{0, 1, 255}}, {Key: "t", Value: time.Date(9999, 12, 31, 0, 0, 0, 7, time.UTC)}, {Key: "t0", Value: time.Time{}},
			{Key: "l", Value: []any{int8(1), "x", []any{nil, map[string]any{"k": []byte{}}}}},
			{Key: "twice", Value: "1"}, {Key: "twice", Value: int64(2)},
		},
		Body: []byte{0, 255, '\n'}, TTL: 90 * time.Second, Priority: 7, Persistent: true, Deliveries: -1,
	}
}

func TestCopyIsTrue(t *testing.T) {
	t.Parallel()
	s, id := open(t, Config{}), newID()
	w, err := s.Create(Meta{Command: id, Kind: controlbus.CommandPurge, Channel: controlbus.ChannelName{Env: "e", Broker: "b", Name: "q"}})
	if err != nil {
		t.Fatal(err)
	}
	big := &agents.Message{Body: bytes.Repeat([]byte{7}, 1<<20)}
	want := []*agents.Message{everyKind(), {Body: []byte{}}, big}
	if err := w.Append(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(id, Cursor{}); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("a copy that is being written is opened: %v", err)
	}
	w.Removed()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, readAll(t, s, id)); diff != "" {
		t.Error(diff)
	}
	i, err := s.Info(id)
	if err != nil || i.Count != 3 || i.Doubtful != 0 || i.Bytes != 3+1<<20 || i.Kind != controlbus.CommandPurge || i.Channel.Name != "q" || i.Ended.IsZero() {
		t.Errorf("%+v, %v", i, err)
	}
	if _, err := s.Create(Meta{Command: id}); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("a second copy of one command: %v", err)
	}
	if _, err := s.Info(newID()); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("a copy that is not there: %v", err)
	}
	// What is of no known kind must not be kept as something else.
	id = newID()
	if w, err = s.Create(Meta{Command: id}); err != nil {
		t.Fatal(err)
	}
	err = w.Append(t.Context(), []*agents.Message{{Headers: []agents.Field{{Key: "x", Value: struct{}{}}}}})
	if !errors.Is(err, controlbus.ErrUnsupported) {
		t.Errorf("a header of an unknown kind: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Info(id); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("an empty copy stays: %v", err)
	}
}

func anyValue(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		most := 14
		if depth == 0 {
			most = 12
		}
		switch rapid.IntRange(0, most).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "v")
		case 2:
			return rapid.Int8().Draw(t, "v")
		case 3:
			return rapid.Int16().Draw(t, "v")
		case 4:
			return rapid.Int32().Draw(t, "v")
		case 5:
			return rapid.Int64().Draw(t, "v")
		case 6:
			return rapid.Uint8().Draw(t, "v")
		case 7:
			return rapid.Uint64().Draw(t, "v")
		case 8:
			return rapid.Float32().Draw(t, "v")
		case 9:
			return rapid.Float64().Draw(t, "v")
		case 10:
			return rapid.String().Draw(t, "v")
		case 11:
			return append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "v")...)
		case 12:
			return time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
		case 13:
			return append([]any{}, rapid.SliceOfN(anyValue(depth-1), 0, 4).Draw(t, "v")...)
		}
		return rapid.MapOfN(rapid.String(), anyValue(depth-1), 0, 4).Draw(t, "v")
	})
}

func TestEveryMessageComesBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := &agents.Message{
			MessageID: rapid.String().Draw(rt, "id"), Key: rapid.String().Draw(rt, "key"), Priority: rapid.Int().Draw(rt, "priority"),
			Body: append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(rt, "body")...), TTL: time.Duration(rapid.Int64().Draw(rt, "ttl")),
		}
		for _, k := range rapid.SliceOfN(rapid.String(), 0, 6).Draw(rt, "headers") {
			m.Headers = append(m.Headers, agents.Field{Key: k, Value: anyValue(3).Draw(rt, "value")})
		}
		b, err := appendMessage(nil, m)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := parseMessage(b)
		if err != nil {
			rt.Fatal(err)
		}
		nan := cmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b })
		nan32 := cmp.Comparer(func(a, b float32) bool { return a == b || a != a && b != b })
		if diff := cmp.Diff(m, got, nan, nan32); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func FuzzParse(f *testing.F) {
	b, err := appendMessage(nil, everyKind())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{version, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err != nil {
			return
		}
		again, err := appendMessage(nil, m)
		if err != nil {
			t.Fatalf("read and not written: %v", err)
		}
		if _, err := parseMessage(again); err != nil {
			t.Fatalf("written and not read: %v", err)
		}
	})
}

// Whatever of the last append a power cut leaves, what was acknowledged before is
// there, in order, and nothing half.
func TestTornTail(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	s, id := open(t, Config{Dir: base}), newID()
	w, err := s.Create(Meta{Command: id})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := w.Append(t.Context(), []*agents.Message{{MessageID: strconv.Itoa(2 * i)}, {MessageID: strconv.Itoa(2*i + 1)}}); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			w.Removed()
		}
	}
	// The process dies here: what is on disk is what it is.
	segs, err := filepath.Glob(filepath.Join(base, string(id), "*.seg"))
	if err != nil || len(segs) != 1 {
		t.Fatal(segs, err)
	}
	whole, err := os.ReadFile(segs[0])
	if err != nil {
		t.Fatal(err)
	}
	meta, err := os.ReadFile(filepath.Join(base, string(id), metaFile))
	if err != nil {
		t.Fatal(err)
	}
	logID, err := os.ReadFile(filepath.Join(base, string(id), "id"))
	if err != nil {
		t.Fatal(err)
	}
	for cut := len(whole); cut > len(whole)/2; cut -= 3 {
		dir := t.TempDir()
		at := filepath.Join(dir, string(id))
		if err := os.MkdirAll(at, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{filepath.Base(segs[0]): whole[:cut], metaFile: meta, "id": logID} {
			if err := os.WriteFile(filepath.Join(at, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		again := open(t, Config{Dir: dir})
		got := readAll(t, again, id)
		for i, m := range got {
			if m.MessageID != strconv.Itoa(i) {
				t.Fatalf("cut at %d: message %d is %q", cut, i, m.MessageID)
			}
		}
		info, err := again.Info(id)
		if err != nil || info.Count != int64(len(got)) || info.Doubtful > 4 {
			t.Fatalf("cut at %d: %+v, %v", cut, info, err)
		}
		if cut == len(whole) && (info.Count != 6 || info.Doubtful != 2) {
			t.Errorf("whole: %+v", info)
		}
	}
}

func TestBoundsAndAge(t *testing.T) {
	t.Parallel()
	now := time.Now()
	dir := t.TempDir()
	cfg := Config{Dir: dir, MaxBytes: 1 << 20, MaxAge: time.Hour, Now: func() time.Time { return now }}
	s, old := open(t, cfg), newID()
	body := bytes.Repeat([]byte("x"), 100_000)
	fill := func(id controlbus.CommandID, n int) (err error) {
		t.Helper()
		w, err := s.Create(Meta{Command: id})
		if err != nil {
			return err
		}
		for range n {
			if err = w.Append(t.Context(), []*agents.Message{{Body: body}}); err != nil {
				break
			}
			w.Removed()
		}
		return errors.Join(err, w.Close())
	}
	if err := fill(old, 7); err != nil {
		t.Fatal(err)
	}
	if free := s.Free(); free > 1<<20-700_000 || free < 1<<20-701_000 {
		t.Errorf("%d bytes free", free)
	}
	// A younger copy is not sacrificed: what does not fit is refused, with a reason
	// that says what to do.
	second := newID()
	err := fill(second, 7)
	if !errors.Is(err, controlbus.ErrOverloaded) || !strings.Contains(err.Error(), "commands.archive.max_bytes") {
		t.Errorf("over the limit: %v", err)
	}
	if got := len(readAll(t, s, old)); got != 7 {
		t.Errorf("the older copy has %d messages left", got)
	}
	if got := len(readAll(t, s, second)); got != 3 {
		t.Errorf("%d messages of the refused one are kept, want the 3 that fitted", got)
	}
	if err := s.CheckRoom(500_000); !errors.Is(err, controlbus.ErrOverloaded) {
		t.Errorf("room for 500,000: %v", err)
	}
	// A restart knows the sizes again.
	free := s.Free()
	s = open(t, cfg)
	if got := s.Free(); got > free+1000 || got < free-10_000 {
		t.Errorf("after a restart %d bytes are free, before it %d", got, free)
	}
	// Past its age a copy is deleted, but not while somebody reads it.
	now = now.Add(61 * time.Minute)
	r, err := s.Open(old, Cursor{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Info(second); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("an old copy stays: %v", err)
	}
	if _, err := r.Next(); err != nil {
		t.Errorf("a copy was deleted under its reader: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if s.Free() != cfg.MaxBytes {
		t.Errorf("%d bytes free of %d", s.Free(), cfg.MaxBytes)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left on disk: %v", left)
	}
}

func TestCursorGoesOn(t *testing.T) {
	t.Parallel()
	s, id := open(t, Config{}), newID()
	w, err := s.Create(Meta{Command: id})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := w.Append(t.Context(), []*agents.Message{{MessageID: strconv.Itoa(i)}}); err != nil {
			t.Fatal(err)
		}
		w.Removed()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var at spool.Position
	for i := range 10 {
		r, err := s.Open(id, Cursor{Position: at})
		if err != nil {
			t.Fatal(err)
		}
		m, err := r.Next()
		if err != nil || m.MessageID != strconv.Itoa(i) {
			t.Fatalf("at %d: %+v, %v", i, m, err)
		}
		at = r.Position()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// The program that TestKilled kills: it archives numbered messages and says on
// stdout what is acknowledged.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ARCHIVE_TEST_DIR"); dir != "" {
		s, err := Open(Config{Dir: dir, MaxBytes: 1 << 30, MaxAge: time.Hour})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		w, err := s.Create(Meta{Command: controlbus.CommandID(os.Getenv("ARCHIVE_TEST_ID"))})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		for n := uint64(0); ; n++ {
			if err := w.Append(context.Background(), []*agents.Message{{Body: binary.BigEndian.AppendUint64(nil, n)}}); err != nil {
				os.Exit(1)
			}
			w.Removed()
			fmt.Println(n)
		}
	}
	os.Exit(m.Run())
}

func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 5 {
		id := newID()
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "ARCHIVE_TEST_DIR="+dir, "ARCHIVE_TEST_ID="+string(id))
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(60+40*round) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		lines := strings.Fields(out.String())
		s := open(t, Config{Dir: dir})
		if len(lines) == 0 {
			continue // it was killed before its first message
		}
		last, err := strconv.Atoi(lines[len(lines)-1])
		if err != nil {
			t.Fatal(out.String())
		}
		got := readAll(t, s, id)
		if len(got) < last+1 || len(got) > last+2 {
			t.Errorf("%d messages, %d acknowledged", len(got), last+1)
		}
		if !slices.IsSortedFunc(got, func(a, b *agents.Message) int { return bytes.Compare(a.Body, b.Body) }) {
			t.Error("out of order")
		}
		if i, err := s.Info(id); err != nil || i.Doubtful > 2 {
			t.Errorf("%+v, %v", i, err)
		}
	}
}
