package spool

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// TestModelSurvivesCrashes drives a log through appends, trims, full disks,
// failing fsyncs and power cuts. After each restart everything acknowledged
// and not trimmed is there, at its position and in order; nothing else than
// what was once appended is; and no position was given out twice.
func TestModelSurvivesCrashes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ctx := t.Context()
		fs := newSimFS()
		cfg := Config{Dir: "/wal", SegmentBytes: minSegment, FS: fs}
		l, _, err := Open(cfg)
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		id := l.ID()
		acked := map[Position]string{}
		var order []Position
		tried := map[string]bool{}
		var trimmed Position
		serial := 0

		payload := func() []byte {
			serial++
			size := rapid.SampledFrom([]int{1, 7, 40, 600, 3000, 9000}).Draw(t, "size")
			b := make([]byte, size)
			rng := rand.New(rand.NewPCG(uint64(serial), 1))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			tried[string(b)] = true
			return b
		}
		check := func() {
			got := map[Position]string{}
			var gotOrder []Position
			err := l.All(0, func(r Record) error {
				if !tried[string(r.Payload)] {
					t.Fatalf("record at %d was never appended", r.Position)
				}
				if want, ok := acked[r.Position]; ok && want != string(r.Payload) {
					t.Fatalf("position %d holds another record", r.Position)
				}
				got[r.Position] = string(r.Payload)
				gotOrder = append(gotOrder, r.Position)
				return nil
			})
			if err != nil {
				t.Fatalf("read: %v", err)
			}
			for _, pos := range order {
				if _, ok := got[pos]; !ok && pos >= trimmed {
					t.Fatalf("acknowledged record at %d is gone", pos)
				}
			}
			for i := 1; i < len(gotOrder); i++ {
				if gotOrder[i] <= gotOrder[i-1] {
					t.Fatalf("out of order: %d after %d", gotOrder[i], gotOrder[i-1])
				}
			}
		}
		reopen := func() {
			fs.failAt = nil
			fs.space = 1 << 40
			var rec Recovery
			if l, rec, err = Open(cfg); err != nil {
				t.Fatalf("reopen: %v", err)
			}
			if l.ID() != id {
				t.Fatalf("id changed")
			}
			_ = rec
			check()
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(*rapid.T) {
				n := rapid.IntRange(1, 4).Draw(t, "n")
				var batch [][]byte
				for range n {
					batch = append(batch, payload())
				}
				first, err := l.AppendBatch(ctx, batch)
				if err != nil {
					if !errors.Is(err, controlbus.ErrUnavailable) {
						t.Fatalf("append: %v is not retryable", err)
					}
					return
				}
				if len(order) > 0 && first <= order[len(order)-1] {
					t.Fatalf("position %d after %d", first, order[len(order)-1])
				}
				// The records' positions are where a reader finds them.
				r := l.Reader(first)
				for _, want := range batch {
					rec, ok, err := r.TryNext()
					if err != nil || !ok || string(rec.Payload) != string(want) {
						t.Fatalf("read back at %d: ok=%v err=%v", first, ok, err)
					}
					if _, taken := acked[rec.Position]; taken {
						t.Fatalf("position %d given out twice", rec.Position)
					}
					acked[rec.Position] = string(want)
					order = append(order, rec.Position)
				}
			},
			"trim": func(*rapid.T) {
				if len(order) == 0 {
					return
				}
				pos := rapid.SampledFrom(order).Draw(t, "before")
				trimmed = max(trimmed, pos)
				if err := l.Trim(pos); err != nil && fs.failAt == nil {
					t.Fatalf("trim: %v", err)
				}
			},
			"disk full": func(*rapid.T) { fs.space = int64(rapid.IntRange(0, 5000).Draw(t, "free")) },
			"disk free": func(*rapid.T) { fs.space = 1 << 40 },
			"broken disk": func(*rapid.T) {
				op := rapid.SampledFrom([]string{"write", "sync", "syncdir", "create", "truncate", "remove", ""}).Draw(t, "op")
				fs.failAt = func(o, name string) error {
					if o == op {
						return errors.New("input/output error")
					}
					return nil
				}
			},
			"restart": func(*rapid.T) {
				if err := l.Close(); err != nil {
					t.Fatalf("close: %v", err)
				}
				reopen()
			},
			"power cut": func(*rapid.T) {
				fs.crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2)))
				reopen()
			},
			"": func(*rapid.T) { check() },
		})
	})
}

// TestModelBitFlips flips bits anywhere in the segments. Every record whose
// own bytes were spared is still there, and none has wrong content.
func TestModelBitFlips(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		fs := newSimFS()
		cfg := Config{Dir: "/wal", SegmentBytes: minSegment, FS: fs}
		l, _, err := Open(cfg)
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		type rec struct {
			next    Position
			payload string
		}
		want := map[Position]rec{}
		for range rapid.IntRange(1, 30).Draw(t, "records") {
			p := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "payload")
			pos, err := l.Append(t.Context(), p)
			if err != nil {
				t.Fatalf("append: %v", err)
			}
			want[pos] = rec{pos + Position(recordSize(len(p))), string(p)}
		}
		l.Close()
		var hit []Position
		d := fs.dir("/wal")
		for range rapid.IntRange(1, 6).Draw(t, "flips") {
			segs := []string{}
			for name := range d.live {
				if _, ok := parseSegmentName(name); ok {
					segs = append(segs, name)
				}
			}
			slices.Sort(segs)
			name := segs[rapid.IntRange(0, len(segs)-1).Draw(t, "seg")%len(segs)]
			base, _ := parseSegmentName(name)
			data := d.live[name].data
			off := rapid.IntRange(0, len(data)-1).Draw(t, "off")
			data[off] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			hit = append(hit, base+Position(off))
		}
		l, recovery, err := Open(cfg)
		if err != nil {
			t.Fatalf("reopen: %v", err)
		}
		got := map[Position]string{}
		if err := l.All(0, func(r Record) error { got[r.Position] = string(r.Payload); return nil }); err != nil {
			t.Fatalf("read: %v", err)
		}
		lost := 0
	next:
		for pos, w := range want {
			have, ok := got[pos]
			if ok && have != w.payload {
				t.Fatalf("record at %d has wrong content", pos)
			}
			if ok {
				continue
			}
			lost++
			for _, h := range hit {
				if h >= pos && h < w.next {
					continue next
				}
			}
			t.Fatalf("record at %d was not touched and is gone", pos)
		}
		if len(got) > len(want) {
			t.Fatalf("%d records, wrote %d", len(got), len(want))
		}
		if lost > 0 && len(recovery.Damaged) == 0 {
			t.Fatalf("%d records lost without a report", lost)
		}
		// Damage is reported once: what was put aside stays aside.
		l.Close()
		l, recovery, err = Open(cfg)
		if err != nil || len(recovery.Damaged) != 0 {
			t.Fatalf("second open: %v, %v", recovery.Damaged, err)
		}
		if pos, err := l.Append(t.Context(), []byte("on")); err != nil || want[pos].next != 0 {
			t.Fatalf("append after damage: %d, %v", pos, err)
		}
	})
}
