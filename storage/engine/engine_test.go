package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/engine"
	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(enginetest.M{M: m}) }

// dial opens the stock driver over s, in a database of the test's own.
func dial(tb testing.TB, s *engine.Supervisor, edit ...func(*clickhouse.Options)) driver.Conn {
	tb.Helper()
	opt := &clickhouse.Options{
		Protocol:    clickhouse.HTTP,
		Addr:        []string{"engine:80"},
		DialContext: s.DialContext,
		DialTimeout: time.Minute,
	}
	for _, f := range edit {
		f(opt)
	}
	c, err := clickhouse.Open(opt)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// database creates one for the test and returns its name.
func database(tb testing.TB, s *engine.Supervisor) string {
	tb.Helper()
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r == '#' || r == '-' {
			return '_'
		}
		return r
	}, "db_"+tb.Name())
	post(tb, s, "CREATE DATABASE `"+name+"`", nil, "")
	return name
}

func inDatabase(name string) func(*clickhouse.Options) {
	return func(o *clickhouse.Options) { o.Auth.Database = name }
}

type reply struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

func do(tb testing.TB, client *http.Client, base, method, query string, args url.Values, body string) reply {
	tb.Helper()
	v := url.Values{"query": {query}}
	for k, a := range args {
		v[k] = a
	}
	req, err := http.NewRequestWithContext(tb.Context(), method, base+"/?"+v.Encode(), strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, string(b), err}
}

// post runs a statement that must succeed and returns the body.
func post(tb testing.TB, s *engine.Supervisor, query string, args url.Values, body string) string {
	tb.Helper()
	r := do(tb, s.HTTPClient(), "http://engine", http.MethodPost, query, args, body)
	if r.status != http.StatusOK || r.err != nil {
		tb.Fatalf("%s: status %d, %s, %v", query, r.status, r.body, r.err)
	}
	return r.body
}

type typesRow struct {
	TS      time.Time           `ch:"ts"`
	TS3     time.Time           `ch:"ts3"`
	Env     string              `ch:"env"`
	Headers map[string]string   `ch:"headers"`
	UID     string              `ch:"uid"`
	Op      string              `ch:"op"`
	Items   []string            `ch:"items"`
	ID      uuid.UUID           `ch:"id"`
	Hits    uint64              `ch:"hits"`
	Dry     bool                `ch:"dry"`
	Value   float64             `ch:"value"`
	Maybe   *int64              `ch:"maybe"`
	Day     time.Time           `ch:"day"`
	Buckets map[uint8]uint64    `ch:"buckets"`
	Names   []string            `ch:"ev.name"`
	Attrs   []map[string]string `ch:"ev.attrs"`
}

func TestDriverRoundTrip(t *testing.T) {
	t.Parallel()
	s := enginetest.Shared(t)
	for _, method := range []clickhouse.CompressionMethod{clickhouse.CompressionNone, clickhouse.CompressionGZIP, clickhouse.CompressionDeflate, clickhouse.CompressionLZ4, clickhouse.CompressionZSTD} {
		t.Run(method.String(), func(t *testing.T) {
			t.Parallel()
			c := dial(t, s, inDatabase(database(t, s)), func(o *clickhouse.Options) {
				o.Compression = &clickhouse.Compression{Method: method, Level: 1}
			})
			ctx := t.Context()
			if err := c.Exec(ctx, `CREATE TABLE t (
				ts DateTime64(9,'UTC'), ts3 DateTime64(3,'UTC'), env LowCardinality(String), headers Map(LowCardinality(String),String),
				uid FixedString(16), op Enum8('unknown'=0,'send'=2,'tap'=6), items Array(String), id UUID,
				hits SimpleAggregateFunction(sum,UInt64), dry Bool, value Float64, maybe Nullable(Int64), day Date,
				buckets SimpleAggregateFunction(sumMap,Map(UInt8,UInt64)),
				ev Nested(name LowCardinality(String), attrs Map(LowCardinality(String),String))
			) ENGINE = MergeTree ORDER BY ts`); err != nil {
				t.Fatal(err)
			}
			minus := int64(-5)
			var want []typesRow
			for i := range 100 {
				row := typesRow{
					TS:  time.Date(2026, 11, 21, 4, 5, 6, 123456789+i, time.UTC),
					TS3: time.Date(2026, 11, 21, 4, 5, 6, 123e6, time.UTC),
					Env: []string{"prod", "test", ""}[i%3], Headers: map[string]string{"x-tenant": "acme", "größe": "\x00\xff"},
					UID: "0123456789abcdef", Op: []string{"unknown", "send", "tap"}[i%3], Items: []string{"a=b", "", "c'd"},
					ID: uuid.MustParse("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), Hits: 1<<63 + 1, Dry: i%2 == 0, Value: -1.5e300,
					Day: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC), Buckets: map[uint8]uint64{0: 1, 255: 1 << 40},
					Names: []string{"one", "two"}, Attrs: []map[string]string{{"k": "v"}, {}},
				}
				if i%2 == 0 {
					row.Maybe = &minus
				}
				want = append(want, row)
			}
			batch, err := c.PrepareBatch(ctx, "INSERT INTO t")
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				if err := batch.AppendStruct(&want[i]); err != nil {
					t.Fatal(err)
				}
			}
			if err := batch.Send(); err != nil {
				t.Fatal(err)
			}
			var got []typesRow
			if err := c.Select(ctx, &got, "SELECT * FROM t ORDER BY ts"); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("rows read back (-want +got):\n%s", d)
			}
		})
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	c := dial(t, enginetest.Shared(t))
	evil := "it's \\ a `\"\n\ttab -- \x01 ); DROP"
	ctx := clickhouse.Context(t.Context(), clickhouse.WithParameters(clickhouse.Parameters{"n": "18446744073709551615", "list": "['q','w\\'e']"}))
	var n uint64
	var list []string
	if err := c.QueryRow(ctx, "SELECT {n:UInt64}, {list:Array(String)}").Scan(&n, &list); err != nil {
		t.Fatal(err)
	}
	if n != 1<<64-1 || !cmp.Equal(list, []string{"q", "w'e"}) {
		t.Errorf("bound parameters: got %d %q", n, list)
	}
	var s string
	if err := c.QueryRow(t.Context(), "SELECT {s:String}", clickhouse.Named("s", evil)).Scan(&s); err != nil {
		t.Fatal(err)
	}
	if s != evil {
		t.Errorf("named parameter: got %q, want %q", s, evil)
	}
	var missing *clickhouse.Exception
	if err := c.QueryRow(t.Context(), "SELECT {s:String}").Scan(&s); !errors.As(err, &missing) || missing.Code != 456 {
		t.Errorf("a parameter of an earlier statement is still bound: %v, value %q", err, s)
	}
}

func TestSettingsDoNotLeak(t *testing.T) {
	t.Parallel()
	cfg := enginetest.Config(t.TempDir())
	cfg.Connections = 1 // so that every statement gets the connection of the one before
	s := enginetest.StartConfig(t, cfg)
	const read = "SELECT getSetting('max_threads'), getSetting('max_result_rows'), getSetting('max_execution_time'), currentDatabase(), getSetting('async_insert')"
	want := post(t, s, read, nil, "")
	if !strings.Contains(want, "\t30\tdefault\tfalse") {
		t.Fatalf("defaults: got %q", want)
	}
	got := post(t, s, read, url.Values{"max_threads": {"1"}, "max_result_rows": {"77"}, "max_execution_time": {"5"}, "database": {"system"}}, "")
	if got != "1\t77\t5\tsystem\tfalse\n" {
		t.Errorf("settings of the URL: got %q", got)
	}
	for _, statement := range []string{"SET max_threads=1", "USE system", "CREATE TEMPORARY TABLE secret (a Int8)", "SELECT 1 SETTINGS max_threads=1, max_execution_time=7"} {
		post(t, s, statement, nil, "")
		if got := post(t, s, read, nil, ""); got != want {
			t.Errorf("after %s: got %q, want %q", statement, got, want)
		}
	}
	if r := do(t, s.HTTPClient(), "http://engine", "POST", "SELECT * FROM secret", nil, ""); r.header.Get("X-ClickHouse-Exception-Code") != "60" {
		t.Errorf("a temporary table outlived its statement: %+v", r)
	}
	if r := do(t, s.HTTPClient(), "http://engine", "POST", read, url.Values{"no_such_setting": {"1"}}, ""); r.header.Get("X-ClickHouse-Exception-Code") != "115" {
		t.Errorf("unknown setting: %+v", r)
	}
	if got := post(t, s, read, nil, ""); got != want {
		t.Errorf("after a refused setting: got %q, want %q", got, want)
	}
}

func TestErrorsAreTyped(t *testing.T) {
	t.Parallel()
	s := enginetest.Shared(t)
	c := dial(t, s)
	for _, tt := range []struct {
		name, query string
		code        int32
		status      int
	}{
		{"unknown table", "SELECT * FROM nowhere", 60, 404},
		{"syntax", "SELEC 1", 62, 400},
		{"unknown column", "SELECT nothing", 47, 400},
		{"type", "SELECT toUInt8('x')", 6, 400},
		{"multi", "SELECT 1; SELECT 2", 62, 400},
		{"time", "SELECT sum(sleepEachRow(0.1)) FROM numbers(1000) SETTINGS max_execution_time=1, max_block_size=1", 159, 408},
		{"memory", "SELECT groupArray(toString(number)) FROM numbers(100000000) SETTINGS max_memory_usage=50000000", 241, 500},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := c.Exec(t.Context(), tt.query)
			var e *clickhouse.Exception
			var he *clickhouse.HTTPError
			if !errors.As(err, &e) || e.Code != tt.code || !errors.As(err, &he) || he.StatusCode != tt.status {
				t.Errorf("%s: got %v, want code %d and status %d", tt.query, err, tt.code, tt.status)
			}
		})
	}
	for _, q := range []string{"", "  ", "-- nothing"} {
		if r := do(t, s.HTTPClient(), "http://engine", "POST", q, nil, ""); r.status != 400 || r.header.Get("X-ClickHouse-Exception-Code") != "62" {
			t.Errorf("query %q: got %+v", q, r)
		}
	}
	if r := do(t, s.HTTPClient(), "http://engine", "GET", "CREATE TABLE x (a Int8) ENGINE=Memory", nil, ""); r.header.Get("X-ClickHouse-Exception-Code") != "164" {
		t.Errorf("GET that creates a table: got %+v", r)
	}
	if r := do(t, s.HTTPClient(), "http://engine", "POST", "SELECT 1", url.Values{"session_id": {"a"}}, ""); r.status != 501 {
		t.Errorf("session: got %+v", r)
	}
}

// A result that breaks off must never look like a shorter one.
func TestErrorInTheMiddleOfAStream(t *testing.T) {
	t.Parallel()
	s := enginetest.Shared(t)
	const query = "SELECT number, throwIf(number = 900000, 'boom') FROM numbers(1000000)"
	for _, method := range []clickhouse.CompressionMethod{clickhouse.CompressionNone, clickhouse.CompressionGZIP, clickhouse.CompressionLZ4} {
		c := dial(t, s, func(o *clickhouse.Options) { o.Compression = &clickhouse.Compression{Method: method} })
		rows, err := c.Query(t.Context(), query)
		if err != nil {
			t.Fatalf("%v: failed before the stream began: %v", method, err)
		}
		n := 0
		for rows.Next() {
			n++
		}
		var e *clickhouse.Exception
		if err := rows.Err(); !errors.As(err, &e) || e.Code != 395 || !strings.Contains(e.Message, "boom") {
			t.Errorf("%v: after %d rows: got %v, want code 395", method, n, err)
		}
		if n == 0 || n >= 1000000 {
			t.Errorf("%v: got %d rows before the error", method, n)
		}
		rows.Close()
	}
	r := do(t, s.HTTPClient(), "http://engine", "POST", query, nil, "")
	if r.err == nil || !strings.Contains(r.body, "__exception__\r\n"+r.header.Get("X-ClickHouse-Exception-Tag")) {
		t.Errorf("plain client: error %v, body ends %q", r.err, r.body[max(0, len(r.body)-200):])
	}
	// Held back until it is complete, the same result is a status.
	r = do(t, s.HTTPClient(), "http://engine", "POST", query, url.Values{"wait_end_of_query": {"1"}}, "")
	if r.status == 200 || r.header.Get("X-ClickHouse-Exception-Code") != "395" {
		t.Errorf("wait_end_of_query: got %d %s", r.status, r.body[:min(200, len(r.body))])
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	s := enginetest.Shared(t)
	for _, tt := range []struct{ query, want string }{
		{"SELECT 1 AS a, 'x' AS b FORMAT CSVWithNames", "\"a\",\"b\"\n1,\"x\"\n"},
		{"SELECT 1 AS a FORMAT JSONEachRow", "{\"a\":1}\n"},
		{"SELECT 1 AS a FORMAT JSONCompactEachRow SETTINGS max_threads=1", "[1]\n"},
		{"SELECT 1 AS a WHERE 0", ""},
		{"SELECT count(), min(x), max(x) FROM (SELECT number AS x FROM numbers(300000))", "300000\t0\t299999\n"},
	} {
		if got := post(t, s, tt.query, nil, ""); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.query, got, tt.want)
		}
	}
	// Headers come once although the result comes in pieces, and totals count all of it.
	csv := post(t, s, "SELECT number AS n FROM numbers(300000) FORMAT CSVWithNames", nil, "")
	if lines := strings.Count(csv, "\n"); lines != 300001 || strings.Count(csv, `"n"`) != 1 {
		t.Errorf("CSVWithNames: got %d lines, %d headers", lines, strings.Count(csv, `"n"`))
	}
	if json := post(t, s, "SELECT number AS n FROM numbers(300000)", url.Values{"default_format": {"JSONCompact"}}, ""); !strings.Contains(json, "\"rows\": 300000") {
		t.Errorf("JSONCompact: wrong total: %q", json[len(json)-200:])
	}
}

func TestEmptyResultHasColumns(t *testing.T) {
	t.Parallel()
	c := dial(t, enginetest.Shared(t))
	rows, err := c.Query(t.Context(), "SELECT number AS n, toString(number) AS s FROM numbers(10) WHERE number > {x:UInt8} -- none", clickhouse.Named("x", 100))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if d := cmp.Diff([]string{"n", "s"}, rows.Columns()); d != "" {
		t.Errorf("columns (-want +got):\n%s", d)
	}
	if rows.Next() || rows.Err() != nil {
		t.Errorf("want no rows and no error, have %v", rows.Err())
	}
}

func TestInsertFormats(t *testing.T) {
	t.Parallel()
	s := enginetest.Shared(t)
	db := url.Values{"database": {database(t, s)}}
	post(t, s, "CREATE TABLE values (a UInt64, s String) ENGINE=MergeTree ORDER BY a", db, "")
	post(t, s, "INSERT INTO values VALUES (1, 'one;'), (2, 'it''s')", db, "")
	post(t, s, "INSERT INTO values (a, s) FORMAT JSONEachRow", db, `{"a":3,"s":"three"}`+"\n")
	post(t, s, "", db, "INSERT INTO `values` FORMAT CSV\n4,four\n5,five\n")
	post(t, s, "INSERT INTO values SELECT number, 'n' FROM numbers(6,2)", db, "")
	post(t, s, "INSERT INTO values (a, s) VALUES", url.Values{"database": db["database"], "param_x": {"eight"}}, "(8, {x:String})")
	if got, want := post(t, s, "SELECT groupArray((a,s)) FROM (SELECT * FROM values ORDER BY a)", db, ""),
		"[(1,'one;'),(2,'it\\'s'),(3,'three'),(4,'four'),(5,'five'),(6,'n'),(7,'n'),(8,'eight')]\n"; got != want {
		t.Errorf("rows: got %s want %s", got, want)
	}
	r := do(t, s.HTTPClient(), "http://engine", "POST", "INSERT INTO values FORMAT CSV", db, "9,nine\nnine,9\n")
	if r.status != 400 || r.header.Get("X-ClickHouse-Exception-Code") != "27" {
		t.Errorf("bad data: got %+v", r)
	}
	if got := post(t, s, "SELECT count() FROM values", db, ""); got != "8\n" {
		t.Errorf("rows after a refused insert: got %s", got)
	}
	body, w := io.Pipe()
	go func() {
		for i := range 40 {
			fmt.Fprintf(w, "%s", strings.Repeat(fmt.Sprintf("%d,%s\n", 1000+i, strings.Repeat("x", 1000)), 100))
		}
		w.Close()
	}()
	q := url.Values{"query": {"INSERT INTO values FORMAT CSV"}, "database": db["database"]}
	res, err := s.HTTPClient().Post("http://engine/?"+q.Encode(), "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("X-ClickHouse-Summary"); res.StatusCode != 200 || !strings.Contains(got, `"written_rows":"4000"`) {
		t.Errorf("streamed insert: status %d, summary %s", res.StatusCode, got)
	}
}

func TestAbandonedInsertLeavesNothing(t *testing.T) {
	t.Parallel()
	cfg := enginetest.Config(t.TempDir())
	cfg.Connections = 1
	s := enginetest.StartConfig(t, cfg)
	post(t, s, "CREATE TABLE t (a UInt64) ENGINE=MergeTree ORDER BY a", nil, "")
	ctx, cancel := context.WithCancel(t.Context())
	body, w := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, "POST", "http://engine/?query=INSERT+INTO+t+FORMAT+CSV", body)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if res, err := s.HTTPClient().Do(req); err == nil {
			res.Body.Close()
		}
	}()
	fmt.Fprint(w, strings.Repeat("1\n", 1<<20)) // past one piece, so that the engine has begun
	cancel()
	// Before waiting: the transport waits for whoever reads the body.
	w.CloseWithError(context.Canceled)
	<-gone
	if got := post(t, s, "SELECT count() FROM t", nil, ""); got != "0\n" {
		t.Errorf("rows of an abandoned insert: got %s", got)
	}
	if got := post(t, s, "INSERT INTO t VALUES (1)", nil, "") + post(t, s, "SELECT count() FROM t", nil, ""); got != "1\n" {
		t.Errorf("the connection afterwards: got %q", got)
	}
}

func TestClientGoneEndsStatement(t *testing.T) {
	t.Parallel()
	cfg := enginetest.Config(t.TempDir())
	cfg.Connections = 1
	cfg.QueueTimeout = 20 * time.Second
	s := enginetest.StartConfig(t, cfg)
	post(t, s, "CREATE TABLE t (a UInt64) ENGINE=MergeTree ORDER BY a", nil, "")
	for _, query := range []string{
		"SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) = 1",              // computes without output
		"SELECT number, sipHash64(number) FROM numbers(100000000000)",                        // streams
		"INSERT INTO t SELECT number FROM numbers(100000000000) WHERE sipHash64(number) = 1", // runs to its end first
	} {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "POST", "http://engine/?max_execution_time=300", strings.NewReader(query))
		if err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			res, err := s.HTTPClient().Do(req)
			if err == nil {
				_, _ = io.CopyN(io.Discard, res.Body, 1<<20)
				res.Body.Close()
			}
		}()
		if strings.HasPrefix(query, "SELECT number") {
			<-gone
		} else {
			time.AfterFunc(300*time.Millisecond, cancel)
			<-gone
		}
		cancel()
		begin := time.Now()
		// The only connection is free again, so the statement has ended.
		if got := post(t, s, "SELECT count() FROM system.processes", nil, ""); got != "1\n" {
			t.Errorf("statements running after %s: got %s, want this one alone", query, got)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s: connection free after %v", query, took)
		}
	}
}

func TestBusyPoolAnswersClearly(t *testing.T) {
	t.Parallel()
	cfg := enginetest.Config(t.TempDir())
	cfg.Connections = 1
	cfg.QueueTimeout = 50 * time.Millisecond
	s := enginetest.StartConfig(t, cfg)
	res, err := s.HTTPClient().Post("http://engine/", "", strings.NewReader("SELECT number FROM numbers(100000000000)"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := do(t, s.HTTPClient(), "http://engine", "POST", "SELECT 1", nil, "")
	if r.status != 503 || r.header.Get("X-ClickHouse-Exception-Code") != "202" || !strings.Contains(r.body, "all 1 connections have been busy") {
		t.Errorf("second statement: got %+v", r)
	}
}

func TestConcurrentStatements(t *testing.T) {
	t.Parallel()
	s := enginetest.Shared(t)
	c := dial(t, s, func(o *clickhouse.Options) { o.MaxOpenConns = 20; o.MaxIdleConns = 20 })
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 10 {
				want := uint64(i*1000 + j)
				var got, n uint64
				ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"max_threads": 1 + i%3}))
				if err := c.QueryRow(ctx, "SELECT {x:UInt64}, toUInt64(getSetting('max_threads'))", clickhouse.Named("x", want)).Scan(&got, &n); err != nil {
					t.Error(err)
				} else if got != want || n != uint64(1+i%3) {
					t.Errorf("got %d under max_threads=%d, want %d under %d", got, n, want, 1+i%3)
				}
			}
		})
	}
	wg.Wait()
}

func TestDataDirectoryHasOneProcess(t *testing.T) {
	t.Parallel()
	cfg := enginetest.Config(t.TempDir())
	s := enginetest.StartConfig(t, cfg)
	second := enginetest.New(cfg, discard())
	err := second.Run(t.Context())
	if want := fmt.Sprintf("is in use by process %d", s.Status().PID); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("second engine: got %v, want %q", err, want)
	}
	if err := second.WaitReady(t.Context()); !errors.Is(err, controlbus.ErrUnavailable) {
		t.Errorf("waiting for an engine that gave up: got %v, want %v", err, controlbus.ErrUnavailable)
	}
	post(t, s, "SELECT 1", nil, "")
}
