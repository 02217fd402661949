package engine

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

func TestParseStatement(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sql                string
		verb, head, format string
		data               string
		insertData, multi  bool
		streams            bool
	}{
		{sql: "SELECT 1", verb: "SELECT", streams: true},
		{sql: " -- c\n/* x */ select 1", verb: "SELECT", streams: true},
		{sql: "SELECT 1 FORMAT JSON", verb: "SELECT", format: "JSON", streams: true},
		{sql: "SELECT 1 FORMAT JSON;", verb: "SELECT", format: "JSON", streams: true},
		{sql: "SELECT 1 FORMAT JSON SETTINGS max_threads=1", verb: "SELECT", format: "JSON", streams: true},
		{sql: "SELECT format FROM t", verb: "SELECT", streams: true},
		{sql: "SELECT format('{}', x) AS format FROM t", verb: "SELECT", streams: true},
		{sql: "SELECT ' FORMAT JSON'", verb: "SELECT", streams: true},
		{sql: "WITH 1 AS x SELECT x", verb: "WITH", streams: true},
		{sql: "WITH 1 AS x INSERT INTO t SELECT x", verb: "WITH"},
		{sql: "SELECT 1;", verb: "SELECT", streams: true},
		{sql: "SELECT 1; SELECT 2", verb: "SELECT", multi: true, streams: true},
		{sql: "SELECT ';'; -- done", verb: "SELECT", streams: true},
		{sql: "INSERT INTO t FORMAT Native\n\x01\x02", verb: "INSERT", head: "INSERT INTO t", format: "Native", data: "\x01\x02", insertData: true},
		{sql: "INSERT INTO t (a, `b)`) SETTINGS async_insert=0, insert_deduplication_token='a FORMAT b' FORMAT CSV\r\n1,2", verb: "INSERT",
			head: "INSERT INTO t (a, `b)`) SETTINGS async_insert=0, insert_deduplication_token='a FORMAT b'", format: "CSV", data: "1,2", insertData: true},
		{sql: "insert into db.values values (1)", verb: "INSERT", head: "insert into db.values", format: "Values", data: " (1)", insertData: true},
		{sql: "INSERT INTO TABLE format FORMAT TSV ", verb: "INSERT", head: "INSERT INTO TABLE format", format: "TSV", insertData: true},
		{sql: "INSERT INTO FUNCTION file('x') VALUES (1)", verb: "INSERT", head: "INSERT INTO FUNCTION file('x')", format: "Values", data: " (1)", insertData: true},
		{sql: "INSERT INTO t SELECT 1 FORMAT Native", verb: "INSERT", format: "Native"},
		{sql: "INSERT INTO t (a) WITH 1 AS x SELECT x", verb: "INSERT"},
		{sql: "INSERT INTO t FROM INFILE 'x' FORMAT CSV", verb: "INSERT", format: "CSV"},
		{sql: "", verb: ""},
		{sql: "-- nothing", verb: ""},
		{sql: "1 + 1", verb: "?"},
		{sql: "(SELECT 1)", verb: "(", streams: true},
	} {
		st := parseStatement(tt.sql)
		data := ""
		if st.insertData {
			data = tt.sql[st.dataAt:]
		}
		if st.verb != tt.verb || st.head != tt.head || st.format != tt.format || data != tt.data || st.insertData != tt.insertData || st.multi != tt.multi || st.streams() != tt.streams {
			t.Errorf("parseStatement(%q): got %+v, data %q, streams %v", tt.sql, st, data, st.streams())
		}
	}
}

func FuzzParseStatement(f *testing.F) {
	for _, seed := range []string{"SELECT 1 FORMAT JSON SETTINGS a=1;", "INSERT INTO t (a) FORMAT Native\n\x00", "INSERT INTO `a`.\"b\" VALUES (1)", "$a$ x $a$", "'\\", "/*", "`", "SELECT f(x)"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		st := parseStatement(sql)
		if st.insertData {
			if st.dataAt < 0 || st.dataAt > len(sql) || !strings.Contains(sql, st.head) || st.verb != "INSERT" || st.streams() || st.reads() {
				t.Errorf("insert %q: %+v", sql, st)
			}
			return
		}
		_ = st.withoutFormat(sql)
		// What stands behind a comment's end or a statement's end is still seen.
		if again := parseStatement("/* c */ " + sql); again.verb != st.verb || !cmp.Equal(again.calls, st.calls) {
			t.Errorf("%q: a leading comment changes %+v to %+v", sql, st, again)
		}
	})
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	cfg := Config{TCPListen: "0.0.0.0:8123", Memory: MiB, DiskReserve: -1, Grace: -1, MarkCache: GiB, Socket: strings.Repeat("x", 200)}
	err := cfg.Validate()
	for _, key := range []string{"data_dir", "socket", "tcp_listen", "memory", "query_memory", "mark_cache", "query_timeout", "connections", "queue_timeout", "disk_reserve", "grace"} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+key+": ") {
			t.Errorf("Validate does not mention %s: %v", key, err)
		}
	}
	for addr, ok := range map[string]bool{"127.0.0.1:8123": true, "[::1]:1": true, "localhost:0": true, ":8123": false, "10.0.0.1:1": false, "127.0.0.1": false, "example.com:1": false} {
		if err := checkLoopback(addr); (err == nil) != ok {
			t.Errorf("checkLoopback(%q): got %v", addr, err)
		}
	}
}

func TestConfigRoundTrips(t *testing.T) {
	t.Parallel()
	want := DefaultConfig()
	want.Library, want.Socket, want.TCPListen, want.Memory, want.DiskReserve = "/l", "/s", "127.0.0.1:1", 3*GiB/2, 12345
	var byFlags, byYAML Config
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	byFlags.RegisterFlags(fs)
	if err := fs.Parse(want.Args()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, byFlags); d != "" {
		t.Errorf("through flags (-want +got):\n%s", d)
	}
	b, err := yaml.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &byYAML); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, byYAML); d != "" {
		t.Errorf("through YAML (-want +got):\n%s\n%s", d, b)
	}
	for _, bad := range []string{"", "x", "-1", "1GB", "99999999999GiB"} {
		if err := new(Bytes).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("size %q: want an error", bad)
		}
	}
}

func TestParseException(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]*Exception{
		"Code: 60. DB::Exception: Table x. (UNKNOWN_TABLE)":            {60, "Table x. (UNKNOWN_TABLE)"},
		"Code: 210. DB::NetException: refused":                         {210, "refused"},
		"Code: 243. DB::Exception: Cannot reserve. (NOT_ENOUGH_SPACE)": {243, "the disk is full: Cannot reserve. (NOT_ENOUGH_SPACE)"},
		"something else\n": {codeUnknown, "something else"},
	} {
		var e *Exception
		if err := parseException(text); !errors.As(err, &e) || !cmp.Equal(e, want) {
			t.Errorf("parseException(%q): got %v, want %v", text, err, want)
		}
	}
	if err := parseException(""); err != nil {
		t.Errorf("no error: got %v", err)
	}
}

func TestChildLogKeepsLevelsAndTheLastComplaint(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	c := &childLog{log: log}
	for _, part := range []string{`{"level":"INFO","msg":"up"}` + "\n" + `{"level":"ERR`, `OR","msg":"bad","error":"no disk"}` + "\n", "Segmentation fault"} {
		if n, err := c.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("Write: got %d, %v", n, err)
		}
	}
	if err := c.explain(errors.New("exit status 1")); err.Error() != "engine: the process ended: exit status 1: no disk" {
		t.Errorf("explain: got %v", err)
	}
	c.flush()
	if err := c.explain(nil); !strings.HasSuffix(err.Error(), "exit status 0: Segmentation fault") {
		t.Errorf("explain: got %v", err)
	}
	want := "level=INFO msg=up\nlevel=ERROR msg=bad error=\"no disk\"\nlevel=WARN msg=\"engine says\" line=\"Segmentation fault\"\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("log (-want +got):\n%s", d)
	}
}

func TestRequestCompressionIsCheckedByName(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/", strings.NewReader("x"))
	r.Header.Set("Content-Encoding", "br")
	_, err := parseRequest(r)
	var e *Exception
	if !errors.As(err, &e) || e.Code != codeBadCompression || !strings.Contains(e.Message, "use gzip, deflate, zstd or none") {
		t.Errorf("brotli: got %v", err)
	}
	r = httptest.NewRequest("POST", "/?query=INSERT+INTO+t+FORMAT+CSV", strings.NewReader("not gzip"))
	r.Header.Set("Content-Encoding", "gzip")
	if _, err := parseRequest(r); !errors.As(err, &e) || e.Code != codeCannotRead {
		t.Errorf("broken gzip: got %v", err)
	}
}

func TestQueryTextIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(" ", maxQueryBytes)
	var e *Exception
	if _, err := parseRequest(httptest.NewRequest("POST", "/", strings.NewReader("SELECT 1"+long))); !errors.As(err, &e) || e.httpStatus() != http.StatusRequestEntityTooLarge {
		t.Errorf("long query: got %v", err)
	}
	req, err := parseRequest(httptest.NewRequest("POST", "/", strings.NewReader("INSERT INTO t FORMAT CSV\n"+long+long)))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, req.data); err != nil || n != 2*maxQueryBytes {
		t.Errorf("long data: got %d bytes, %v", n, err)
	}
}

func TestExternalTablesAreRefusedByName(t *testing.T) {
	t.Parallel()
	body := "--b\r\nContent-Disposition: form-data; name=\"ext\"; filename=\"ext\"\r\n\r\nx\r\n--b--\r\n"
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	var e *Exception
	if _, err := parseRequest(r); !errors.As(err, &e) || e.Code != codeUnsupported || !strings.Contains(e.Message, `"ext"`) {
		t.Errorf("external table: got %v", err)
	}
	body = "--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT 1\r\n--b--\r\n"
	r = httptest.NewRequest("POST", "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	if req, err := parseRequest(r); err != nil || req.sql != "SELECT 1" {
		t.Errorf("query in a form: got %+v, %v", req, err)
	}
}

func TestLibraryNames(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"linux/amd64": "lib-linux-x64-gnu", "linux/arm64": "lib-linux-arm64-gnu", "darwin/arm64": "lib-darwin-arm64", "darwin/amd64": "lib-darwin-x64"} {
		goos, arch, _ := strings.Cut(in, "/")
		if _, got := libraryNames(goos, arch); got != want {
			t.Errorf("package for %s: got %s, want %s", in, got, want)
		}
	}
}

func TestServerConfigCapsMemory(t *testing.T) {
	t.Parallel()
	got := string(serverConfig(DefaultConfig()))
	for _, want := range []string{fmt.Sprintf("<max_server_memory_usage>%d<", 2*GiB), fmt.Sprintf("<mark_cache_size>%d<", 256*MiB), "<timezone>UTC<"} {
		if !strings.Contains(got, want) {
			t.Errorf("configuration lacks %s:\n%s", want, got)
		}
	}
}
