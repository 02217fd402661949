package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/signalbox-dev/signalbox/storage/engine"
	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
)

const benchRows = 20_000

// benchBlock is a Native block much like a batch of messages.
func benchBlock(tb testing.TB) []byte {
	tb.Helper()
	var ts proto.ColDateTime64
	ts.WithPrecision(proto.PrecisionNano)
	var id proto.ColUInt64
	dest := new(proto.ColStr).LowCardinality()
	var body proto.ColStr
	begin := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	for i := range benchRows {
		ts.Append(begin.Add(time.Duration(i) * time.Millisecond))
		id.Append(uint64(i) * 0x9e3779b97f4a7c15)
		dest.Append("orders." + strconv.Itoa(i%20))
		body.Append(fmt.Sprintf(`{"order":%d,"total":%d.50,"customer":"acme-%d","note":"%s"}`, i, i%977, i%311, strings.Repeat("x", 60)))
	}
	in := proto.Input{{Name: "ts", Data: &ts}, {Name: "id", Data: &id}, {Name: "dest", Data: dest}, {Name: "body", Data: &body}}
	var buf proto.Buffer
	if err := (proto.Block{Rows: benchRows, Columns: len(in)}).EncodeRawBlock(&buf, 0, in); err != nil {
		tb.Fatal(err)
	}
	return buf.Buf
}

func benchEngine(b *testing.B) *engine.Supervisor {
	s := enginetest.Start(b)
	post(b, s, `CREATE TABLE t (ts DateTime64(9,'UTC'), id UInt64, dest LowCardinality(String), body String)
		ENGINE=MergeTree PARTITION BY toDate(ts) ORDER BY (dest, ts)`, nil, "")
	return s
}

func sendBlock(tb testing.TB, s *engine.Supervisor, block []byte) {
	q := url.Values{"query": {"INSERT INTO t (ts, id, dest, body) FORMAT Native"}}
	res, err := s.HTTPClient().Post("http://engine/?"+q.Encode(), "", bytes.NewReader(block))
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	if msg, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		tb.Fatalf("insert: %s %s", res.Status, msg)
	}
}

func BenchmarkInsertNative(b *testing.B) {
	s := benchEngine(b)
	block := benchBlock(b)
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		sendBlock(b, s, block)
	}
	b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkScanNative(b *testing.B) {
	s := benchEngine(b)
	block := benchBlock(b)
	const blocks = 20
	for range blocks {
		sendBlock(b, s, block)
	}
	b.ReportAllocs()
	for b.Loop() {
		res, err := s.HTTPClient().Post("http://engine/?default_format=Native", "", strings.NewReader("SELECT * FROM t"))
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
	}
	b.ReportMetric(float64(b.N)*blocks*benchRows/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkPointQuery is the cost of a statement that reads nothing, on a
// connection kept for it, on one kept with its settings, and on a new one.
func BenchmarkPointQuery(b *testing.B) {
	s := enginetest.Start(b)
	for name, args := range map[string]url.Values{"plain": nil, "settings": {"max_threads": {"1"}, "database": {"system"}}, "new": {"insert_deduplication_token": {"1"}}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				post(b, s, "SELECT 1", args, "")
			}
		})
	}
}

// residentMiB is the child's resident memory.
func residentMiB(tb testing.TB, pid int) int {
	tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		tb.Skipf("needs /proc: %v", err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		tb.Fatal(err)
	}
	return pages * os.Getpagesize() >> 20
}

// A result far larger than the memory at hand goes through in pieces.
func TestLargeResultNeedsLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("streams 1 GB")
	}
	s := enginetest.Start(t)
	idle := residentMiB(t, s.Status().PID)
	if idle > 450 {
		t.Errorf("idle engine: got %d MiB resident, want at most 450", idle)
	}
	q := url.Values{"query": {"SELECT number, repeat('x', 100) FROM numbers(10000000)"}, "default_format": {"RowBinary"}}
	res, err := s.HTTPClient().Post("http://engine/?"+q.Encode(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var total int64
	most := 0
	begin := time.Now()
	for {
		n, err := io.CopyN(io.Discard, res.Body, 32<<20)
		total += n
		most = max(most, residentMiB(t, s.Status().PID))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("streamed %d MiB in %v: %d MiB resident idle, %d at most", total>>20, time.Since(begin).Round(time.Millisecond), idle, most)
	if want := int64(10000000 * 109); total != want {
		t.Errorf("streamed %d bytes, want %d", total, want)
	}
	if most > idle+200 {
		t.Errorf("memory grew from %d to %d MiB", idle, most)
	}
}

func TestInsertLoadStaysWithinCaps(t *testing.T) {
	if testing.Short() {
		t.Skip("inserts 1,000,000 rows")
	}
	s := enginetest.Start(t)
	post(t, s, `CREATE TABLE t (ts DateTime64(9,'UTC'), id UInt64, dest LowCardinality(String), body String)
		ENGINE=MergeTree PARTITION BY toDate(ts) ORDER BY (dest, ts)`, nil, "")
	block := benchBlock(t)
	most := 0
	for range 50 {
		sendBlock(t, s, block)
		most = max(most, residentMiB(t, s.Status().PID))
	}
	if got := post(t, s, "SELECT count() FROM t", nil, ""); got != "1000000\n" {
		t.Errorf("rows: got %s", got)
	}
	t.Logf("%d MiB resident at most", most)
	if most > 1024 {
		t.Errorf("got %d MiB resident, want at most the cap of 1024", most)
	}
	for name, want := range map[string]string{"max_server_memory_usage": "1073741824", "mark_cache_size": "67108864", "background_common_pool_size": "2", "max_thread_pool_size": "1000"} {
		if got := post(t, s, "SELECT value FROM system.server_settings WHERE name = {n:String}", url.Values{"param_n": {name}}, ""); got != want+"\n" {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
