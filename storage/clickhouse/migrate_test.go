package clickhouse

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: -want +got\n%s", path, diff)
	}
}

func TestSchemaInEveryProfile(t *testing.T) {
	t.Parallel()
	list, err := loadMigrations(schemaFiles)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []layout{
		{profile: Embedded, database: "signalbox"},
		{profile: ReplicatedDB, database: "signalbox", textIndex: true},
		{profile: OnCluster, database: "signalbox", cluster: "main", textIndex: true},
	} {
		var b strings.Builder
		for _, m := range list {
			sql, err := l.render(m)
			if err != nil {
				t.Fatal(err)
			}
			b.WriteString(sql + ";\n\n")
		}
		if l.profile == OnCluster {
			for _, table := range tables {
				b.WriteString(l.distributed(table.name, table.shard) + ";\n")
			}
		}
		golden(t, "schema_"+string(l.profile)+".sql", b.String())
	}
}

// A start that was cut off after any statement is completed by the next one.
func TestMigrationGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	s := openInternal(t, nil)
	list, err := loadMigrations(schemaFiles)
	if err != nil {
		t.Fatal(err)
	}
	log, e := slog.New(slog.DiscardHandler), s.endpoints[0]
	for n := range len(list) {
		l := layout{profile: Embedded, database: fmt.Sprintf("%s_%d", s.database, n)}
		if err := migrate(t.Context(), e, l, list[:n], log); err != nil {
			t.Fatal(err)
		}
		// The statement of n+1 ran, its record was never written.
		sql, err := l.render(list[n])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.exec(t.Context(), sql, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := migrate(t.Context(), e, l, list, log); err != nil {
				t.Fatalf("cut off at %d: %v", n, err)
			}
		}
		applied, err := appliedMigrations(t.Context(), e, l)
		if err != nil {
			t.Fatal(err)
		}
		if len(applied) != len(list) {
			t.Errorf("cut off at %d: %d migrations recorded, want %d", n, len(applied), len(list))
		}
		if _, err := e.exec(t.Context(), "DROP DATABASE "+l.database, nil); err != nil {
			t.Error(err)
		}
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	s := openInternal(t, nil)
	sql := "INSERT INTO " + s.database + ".schema_migrations (version, name) VALUES (9000, 'from_the_future')"
	if _, err := s.endpoints[0].exec(t.Context(), sql, nil); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), s.cfg, slog.New(slog.DiscardHandler))
	if !errors.Is(err, controlbus.ErrUnsupported) || !strings.Contains(err.Error(), "newer Signalbox") || !strings.Contains(err.Error(), "from_the_future") {
		t.Errorf("opening a store of the future: %v", err)
	}
}

func TestSchemaFilesAreNumbered(t *testing.T) {
	t.Parallel()
	_, err := loadMigrations(fstest.MapFS{"schema/0001_a.sql": {}, "schema/0003_b.sql": {}})
	if err == nil || !strings.Contains(err.Error(), "0002") {
		t.Errorf("a gap in the numbers: %v", err)
	}
}

func TestTextIndexIsGatedByVersion(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"25.8.1.1": false, "26.1.9": false, "26.2.1": true, "26.7.2.1": true, "26.8.2.1": false, "26.9.1": true, "27.1.1.1": true, "": false, "x.y": false,
	} {
		if got := goodTextIndex(version); got != want {
			t.Errorf("%q: got %v, want %v", version, got, want)
		}
	}
}

// The text of a query depends on which fields are set, never on their values.
func TestSearchTextDependsOnShapeOnly(t *testing.T) {
	t.Parallel()
	s := &Store{layout: layout{database: "signalbox"}}
	text := func(q storage.MessageQuery, textIndex bool) string {
		s := &Store{layout: layout{database: s.database, textIndex: textIndex}}
		sr, err := s.newSearch(q)
		if err != nil {
			t.Fatal(err)
		}
		return sr.selection(nanoRange{from: minTime, to: maxTime}, 10).String() + "\n"
	}
	shapes := map[string]func(v string) storage.MessageQuery{
		"all":     func(string) storage.MessageQuery { return storage.MessageQuery{} },
		"oldest":  func(string) storage.MessageQuery { return storage.MessageQuery{Order: storage.OldestFirst} },
		"channel": func(v string) storage.MessageQuery { return storage.MessageQuery{Env: v, Channel: v, FailedOnly: true} },
		"pattern": func(v string) storage.MessageQuery { return storage.MessageQuery{Channel: v + "*"} },
		"header":  func(v string) storage.MessageQuery { return storage.MessageQuery{HeaderName: v, HeaderValue: v} },
		"body":    func(v string) storage.MessageQuery { return storage.MessageQuery{Channel: v, BodyWord: v} },
		"ids": func(v string) storage.MessageQuery {
			return storage.MessageQuery{MessageID: v, CorrelationID: v, UID: controlbus.HashID(v).String(), TraceID: controlbus.HashID(v).String()}
		},
	}
	parsed := func(text string, values ...any) *filter.Filter {
		f, err := filter.Parse(fmt.Sprintf(text, values...), time.Date(2026, 7, 23, 12, 0, 0, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	// A filter that pins a field makes the same text as the field.
	shapes["filter_channel"] = func(v string) storage.MessageQuery {
		return storage.MessageQuery{Filter: parsed("channel:%[1]s env:%[1]s failed:true", filter.Quote(v))}
	}
	shapes["filter_ids"] = func(v string) storage.MessageQuery {
		return storage.MessageQuery{Filter: parsed("id:%[1]s correlation:%[1]s uid:%[2]s trace:%[2]s", filter.Quote(v), controlbus.HashID(v))}
	}
	shapes["filter_pattern"] = func(v string) storage.MessageQuery {
		return storage.MessageQuery{Filter: parsed("channel:%s*", filter.Quote(v))}
	}
	shapes["filter"] = func(v string) storage.MessageQuery {
		return storage.MessageQuery{Channel: v, Filter: parsed("(attempts > %d OR size >= 100kb) NOT header.x-tenant = %[2]s time > now-%[1]dm key:%[2]s* error ~ 'a%[1]d' latency IN (1s, %[1]dms)", len(v), filter.Quote(v))}
	}
	shapes["filter_body"] = func(v string) storage.MessageQuery {
		return storage.MessageQuery{Filter: parsed("body:*%[1]s* NOT body = %[1]s (timeout OR group:%[1]s) broker IN (%[1]s, b) id:%[1]s", filter.Quote(v))}
	}
	shapes["filter_path"] = func(v string) storage.MessageQuery {
		return storage.MessageQuery{Filter: parsed(`body."%[1]s"[%[2]d] > %[2]d NOT body.x = '%[3]s'`, v, len(v), strings.ReplaceAll(v, "'", "''"))}
	}
	same := map[string]string{"filter_channel": "channel", "filter_ids": "ids", "filter_pattern": "pattern"}
	for name, shape := range shapes {
		plain := text(shape("orders"), false)
		if as, ok := same[name]; ok {
			if diff := cmp.Diff(text(shapes[as]("orders"), false), plain); diff != "" {
				t.Errorf("%s is not like %s: -want +got\n%s", name, as, diff)
			}
			name = as
		}
		golden(t, "search_"+name+".sql", plain)
		for _, v := range []string{"'; DROP TABLE messages; --", "{x:String}", `\`, "@db.x", "%"} {
			if got := text(shape(v), false); got != plain {
				t.Errorf("%s: value %q changes the text: %s", name, v, cmp.Diff(plain, got))
			}
		}
	}
	golden(t, "search_header_text_index.sql", text(shapes["header"]("a"), true))
}

func TestHTTPDSN(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"clickhouse://u:p@h:9000/db":            "http://u:p@h:8123/db",
		"clickhouse://h/db?secure=true":         "https://h:8443/db?secure=true",
		"clickhouse://h:9440?secure=true":       "https://h:8443?secure=true",
		"https://h/db":                          "https://h:8443/db?secure=true",
		"http://h:81/db?x=1":                    "http://h:81/db?x=1",
		"tcp://u:p%40@a:9000,b:9001,[::1]:1/db": "http://u:p%40@a:8123,b:9001,[::1]:1/db",
	} {
		got, err := httpDSN(dsn)
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", dsn, got, err, want)
		}
	}
	for _, dsn := range []string{"h:9000", "mysql://h", "clickhouse://h?%zz"} {
		if got, err := httpDSN(dsn); err == nil {
			t.Errorf("%s: got %s, want an error", dsn, got)
		}
	}
}

func TestConfigReportsEveryProblem(t *testing.T) {
	t.Parallel()
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	err := Config{Database: "a-b", Profile: "x", HeaderIndex: "y", QueryMemory: -1, Retention: Retention{Messages: -1, MinFree: 2}}.Validate()
	for _, key := range []string{"database:", "profile:", "header_index:", "query_timeout:", "query_memory:", "insert_timeout:", "insert_parallel:", "messages_days:", "min_free:", "every:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%q is not reported: %v", key, err)
		}
	}
}

func TestErrorsAreJudged(t *testing.T) {
	t.Parallel()
	for c, want := range map[int32]error{
		27: controlbus.ErrInvalid, 53: controlbus.ErrInvalid, 60: controlbus.ErrUnavailable, 241: controlbus.ErrUnavailable,
		252: controlbus.ErrUnavailable, 243: controlbus.ErrUnavailable, 999: controlbus.ErrUnavailable,
	} {
		if err := wrap("insert", &exception{Code: c, Message: "m"}); !errors.Is(err, want) {
			t.Errorf("code %d: %v, want %v", c, err, want)
		}
	}
}
