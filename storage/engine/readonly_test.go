package engine_test

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
)

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestReadOnlyListener(t *testing.T) {
	t.Parallel()
	cfg := enginetest.Config(t.TempDir())
	cfg.TCPListen = freePort(t)
	s := enginetest.StartConfig(t, cfg)
	base := "http://" + cfg.TCPListen
	client := &http.Client{}
	defer client.CloseIdleConnections()
	post(t, s, "CREATE TABLE t (a UInt64, file String) ENGINE=MergeTree ORDER BY a", nil, "")
	post(t, s, "INSERT INTO t VALUES (1, 'x'), (2, 'y')", nil, "")
	post(t, s, "CREATE TABLE t2 (a UInt64) ENGINE=Memory AS SELECT 1", nil, "")

	for query, want := range map[string]string{
		"SELECT sum(a) FROM t":                    "3\n",
		"WITH 1 AS one SELECT one FROM t LIMIT 1": "1\n",
		"SELECT file FROM t WHERE file = 'x'":     "x\n",
		"SHOW TABLES LIKE 't'":                    "t\n",
		"SELECT count() FROM numbers(10)":         "10\n",
		"EXISTS TABLE t":                          "1\n",
		"SELECT 'INSERT INTO t; url(1)'":          "INSERT INTO t; url(1)\n",
		"SELECT max_threads FROM (SELECT 1 AS max_threads) SETTINGS max_threads = 1": "1\n",
		"SELECT 1 AS a FORMAT JSONEachRow":                                           "{\"a\":1}\n",
		"SELECT 1 AS a FORMAT CSV SETTINGS max_block_size = 10":                      "1\n",
		"EXPLAIN SYNTAX SELECT 1":                                                    "SELECT 1\nFROM system.one\n",
		"(SELECT 1);":                                                                "1\n",
	} {
		for _, method := range []string{"GET", "POST"} {
			if r := do(t, client, base, method, query, nil, ""); r.status != 200 || r.body != want {
				t.Errorf("%s %s: got %d %q, want %q", method, query, r.status, r.body, want)
			}
		}
	}
	for _, query := range []string{
		"INSERT INTO t VALUES (3, 'z')",
		"INSERT INTO t SELECT 3, 'z'",
		"INSERT INTO FUNCTION file('/tmp/x.csv') SELECT 1",
		"CREATE TABLE u (a Int8) ENGINE=Memory",
		"CREATE TEMPORARY TABLE u (a Int8)",
		"DROP TABLE t", "TRUNCATE TABLE t", "ALTER TABLE t DELETE WHERE 1", "OPTIMIZE TABLE t", "RENAME TABLE t TO u",
		"SYSTEM SHUTDOWN", "SYSTEM FLUSH LOGS", "KILL QUERY WHERE 1", "SET max_memory_usage=0", "USE system", "BACKUP TABLE t TO File('/tmp/x')",
		"SELECT 1; DROP TABLE t",
		"SELECT * FROM t INTO OUTFILE '/tmp/x'",
		"SELECT * FROM file('/etc/passwd', 'LineAsString')",
		"SELECT * FROM `file`('/etc/passwd', 'LineAsString')",
		"SELECT * FROM \"fi\\x6ce\"('/etc/passwd', 'LineAsString')",
		"SELECT * FROM FILE /* ( */ ('/etc/passwd', 'LineAsString')",
		"SELECT /* /* */ ' */ 1 FROM file('/etc/passwd', 'LineAsString') --'",
		"SELECT $a$ ' $a$ FROM file('/etc/passwd', 'LineAsString') --'",
		"DESCRIBE file('/etc/passwd')",
		"EXPLAIN SELECT * FROM file('/etc/passwd', 'LineAsString')",
		"WITH x AS (SELECT * FROM url('http://127.0.0.1:1/', 'CSV')) SELECT * FROM x",
		"SELECT (SELECT count() FROM s3('http://127.0.0.1:1/b', 'CSV'))",
		"SELECT * FROM remote('127.0.0.1:9000', default.t)",
		"SELECT * FROM executable('id', 'TSV', 'x String')",
		"SELECT * FROM cluster('default', default.t)",
		"SELECT file('/etc/passwd')",
		"SELECT * FROM file('/etc/passwd', 'LineAsString') FORMAT JSON",
		"SELECT * FROM file('/etc/passwd', 'LineAsString') FORMAT Null",
		"SELECT * FROM t SETTINGS max_memory_usage = 0",
		"SELECT * FROM t SETTINGS readonly = 0",
		"SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0)",
		"garbage",
	} {
		r := do(t, client, base, "POST", query, nil, "")
		if code := r.header.Get("X-ClickHouse-Exception-Code"); r.status == 200 || code != "164" && code != "62" {
			t.Errorf("%s: got %d code %s %s, want a refusal", query, r.status, code, r.body)
		}
	}
	for _, args := range []url.Values{{"max_memory_usage": {"0"}}, {"readonly": {"0"}}, {"session_id": {"x"}}, {"log_queries_": {"1"}}} {
		if r := do(t, client, base, "POST", "SELECT 1", args, ""); r.status == 200 {
			t.Errorf("SELECT 1 with %v: got %q, want a refusal", args, r.body)
		}
	}
	if r := do(t, client, base, "POST", "SELECT 1", url.Values{"readonly": {"2"}, "max_execution_time": {"5"}}, ""); r.status != 200 {
		t.Errorf("with a reader's usual settings: got %+v", r)
	}
	for _, query := range []string{"SELECT * FROM {x:Identifier}", "SELECT * FROM default.{x:Identifier}", "SELECT 'root' IN {x:Identifier}"} {
		if r := do(t, client, base, "POST", query, url.Values{"param_x": {"/etc/passwd"}}, ""); r.status == 200 || strings.Contains(r.body, "root:") {
			t.Errorf("%s bound to a path: got %d %q", query, r.status, r.body)
		}
	}
	for _, limit := range []string{"0", "-1", "86400", "x"} {
		if r := do(t, client, base, "POST", "SELECT toFloat64(getSetting('max_execution_time'))", url.Values{"max_execution_time": {limit}}, ""); r.body != "30\n" {
			t.Errorf("max_execution_time=%s: got %q, want the configured 30", limit, r.body)
		}
	}
	for header, value := range map[string]string{"Origin": "http://evil.example", "Host": "evil.example"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", base+"/?query=SELECT+1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(header, value)
		if header == "Host" {
			req.Host = value
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s: got %s", header, value, res.Status)
		}
	}
	if got := post(t, s, "SELECT count() FROM t", nil, ""); got != "2\n" {
		t.Errorf("rows after all that: got %s", got)
	}

	// The driver, which is what Grafana's plug-in uses.
	c, err := clickhouse.Open(&clickhouse.Options{Protocol: clickhouse.HTTP, Addr: []string{cfg.TCPListen},
		Settings: clickhouse.Settings{"max_execution_time": 10}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	var sum uint64
	if err := c.QueryRow(t.Context(), "SELECT sum(a) FROM t").Scan(&sum); err != nil || sum != 3 {
		t.Errorf("through the driver: got %d, %v", sum, err)
	}
	if err := c.Exec(t.Context(), "DROP TABLE t"); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("DROP through the driver: got %v", err)
	}
}

// FuzzReadOnlyListener looks for a query that reads a file or changes a table.
// CANARY stands for the path of a file with a secret.
func FuzzReadOnlyListener(f *testing.F) {
	for _, seed := range []string{
		"SELECT 1", "SELECT * FROM file('CANARY', 'LineAsString')", "SELECT file('CANARY')", "SELECT `file`('CANARY')",
		"SELECT /* /* */ ' */ * FROM file('CANARY', 'LineAsString') --'", "SELECT * FROM t; INSERT INTO t VALUES (1)",
		"WITH file('CANARY') AS x SELECT x", "SELECT * FROM \"file\"('CANARY', RawBLOB) FORMAT JSON", "EXPLAIN SELECT * FROM file('CANARY')",
		"SELECT $x$'$x$, * FROM file('CANARY', 'LineAsString') --'", "INSERT INTO t VALUES (1)", "SELECT 1 FORMAT TSV -- \nFROM file('CANARY', LineAsString)",
		"FROM file('CANARY', 'LineAsString') SELECT *", "SELECT * FROM view(SELECT * FROM file('CANARY', 'LineAsString'))",
		"SELECT * FROM viewExplain('EXPLAIN', '', (SELECT * FROM file('CANARY', 'LineAsString')))", "SELECT * FROM eval('SELECT file(\\'CANARY\\')')",
		"SHOW TABLES FROM file('CANARY')", "DESCRIBE file('CANARY', 'LineAsString')", "SELECT * FROM merge('default', '.*')", "SELECT * FROM filesystem('CANARY')",
		"SELECT * FROM sqlite('CANARY', 't')", "SELECT _file FROM `CANARY`", "SELECT * FROM 'CANARY'",
		"SELECT * FROM default.'CANARY'", "SELECT * FROM default.`/../CANARY`", "SELECT * FROM `x\n/../CANARY`", "DESCRIBE 'CANARY'", "DESCRIBE default.`CANARY`",
		"SELECT 'x' IN `CANARY`", "SHOW CREATE TABLE 'CANARY'", "SHOW COLUMNS FROM 'CANARY'", "CHECK TABLE 'CANARY'",
		"WITH `CANARY` AS (SELECT 1) SELECT * FROM `CANARY`", "SELECT * FROM {x:Identifier}", "EXPLAIN SELECT * FROM 'CANARY'",
	} {
		f.Add(seed)
	}
	cfg := enginetest.Config(f.TempDir())
	cfg.TCPListen = freePort(f)
	cfg.QueryTimeout = 2 * time.Second
	s := enginetest.StartConfig(f, cfg)
	post(f, s, "CREATE TABLE t (a UInt64) ENGINE=MergeTree ORDER BY a", nil, "")
	const secret = "s3cr3t-canary-content"
	canary := filepath.Join(f.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte(secret+"\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	client := &http.Client{}
	f.Cleanup(client.CloseIdleConnections)
	f.Fuzz(func(t *testing.T, query string) {
		r := do(t, client, "http://"+cfg.TCPListen, "POST", "", nil, strings.ReplaceAll(query, "CANARY", canary))
		if strings.Contains(r.body, secret) {
			t.Errorf("%q read a file: %s", query, r.body)
		}
		if r := do(t, client, "http://"+cfg.TCPListen, "POST", "SELECT count() FROM t", nil, ""); r.body != "0\n" {
			t.Errorf("after %q: got %d %q", query, r.status, r.body)
		}
	})
}
