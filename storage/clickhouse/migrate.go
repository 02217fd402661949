package clickhouse

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"text/template"

	"github.com/signalbox-dev/signalbox/controlbus"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// migration is one numbered file of schema/: one statement that may be run
// again at any time.
type migration struct {
	version int
	name    string
	text    string // a template
}

// Profile says where tables live; one template serves all three.
type Profile string

// Profiles.
const (
	// Embedded is one server with plain MergeTree tables.
	Embedded Profile = "embedded"
	// ReplicatedDB is a database of the engine Replicated, which carries DDL
	// to its replicas by itself.
	ReplicatedDB Profile = "replicated-db"
	// OnCluster has replicated local tables, DDL ON CLUSTER and Distributed
	// tables to read from.
	OnCluster Profile = "on-cluster"
)

// tables of the store, in the order of their migrations, with the key that
// keeps what belongs together on one shard.
var tables = []struct {
	name, timeColumn, shard string
	dated                   bool // the partition key is toDate(time column) or a Date
}{
	{name: "messages", timeColumn: "ts", shard: "sipHash64(if(correlation = toFixedString('', 16), uid, correlation))"},
	{name: "bodies", timeColumn: "ts", shard: "sipHash64(uid)"},
	{name: "id_span", timeColumn: "day", shard: "sipHash64(id)"},
	{name: "logs", timeColumn: "ts", shard: "sipHash64(trace_id)"},
	{name: "spans", timeColumn: "ts", shard: "sipHash64(trace_id)"},
	{name: "link_back", timeColumn: "ts", shard: "sipHash64(target_trace)"},
	{name: "resources", timeColumn: "day", shard: "resource_id"},
	{name: "series", timeColumn: "day", shard: "series"},
	{name: "samples", timeColumn: "ts", shard: "series"},
	{name: "rollup", timeColumn: "t", shard: "sipHash64(destination)"},
	{name: "invalid", timeColumn: "ts", shard: "rand()"},
	{name: "outcomes", timeColumn: "ts", shard: "sipHash64(command)"},
	{name: "command_events", timeColumn: "at", shard: "seq"},
}

// layout turns templates into the DDL of one profile.
type layout struct {
	profile   Profile
	database  string
	cluster   string
	textIndex bool
}

func (l layout) onCluster() string {
	if l.profile != OnCluster {
		return ""
	}
	return "ON CLUSTER '" + l.cluster + "'"
}

// local is the table that holds the rows.
func (l layout) local(table string) string {
	if l.profile == OnCluster {
		table += "_local"
	}
	return l.database + "." + table
}

func (l layout) engine(name string, args ...string) string {
	if l.profile != Embedded {
		name = "Replicated" + name
	}
	if l.profile == OnCluster {
		// {uuid} keeps the path of a dropped and re-made table its own.
		args = append([]string{"'/clickhouse/tables/{uuid}/{shard}'", "'{replica}'"}, args...)
	}
	return name + "(" + strings.Join(args, ", ") + ")"
}

func (l layout) settings() string {
	window := "non_replicated_deduplication_window"
	if l.profile != Embedded {
		window = "replicated_deduplication_window"
	}
	return window + " = 10000, ttl_only_drop_parts = 1"
}

func (l layout) render(m migration) (string, error) {
	t, err := template.New(m.name).Option("missingkey=error").Funcs(template.FuncMap{
		"local": l.local, "onCluster": l.onCluster, "engine": l.engine, "settings": l.settings,
	}).Parse(m.text)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, struct{ TextIndex bool }{l.textIndex}); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// distributed is the statement that makes the reading side of a table.
func (l layout) distributed(table, shard string) string {
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s.%s ON CLUSTER '%s' AS %s ENGINE = Distributed('%s', '%s', '%s', %s)",
		l.database, table, l.cluster, l.local(table), l.cluster, l.database, table+"_local", shard)
}

func loadMigrations(files fs.FS) ([]migration, error) {
	names, err := fs.Glob(files, "schema/*.sql")
	if err != nil {
		return nil, err
	}
	list := make([]migration, 0, len(names)) // Glob sorts
	for _, path := range names {
		text, err := fs.ReadFile(files, path)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(path, "schema/"), ".sql")
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != len(list)+1 {
			return nil, fmt.Errorf("schema file %q: want number %04d", path, len(list)+1)
		}
		list = append(list, migration{version: version, name: name, text: string(text)})
	}
	return list, nil
}

// migrate brings the schema up to date. Every statement may run again, and is
// recorded only after it worked, so whatever interrupts this, the next start
// goes on where it stopped.
func migrate(ctx context.Context, e *endpoint, l layout, list []migration, log *slog.Logger) error {
	create := "CREATE DATABASE IF NOT EXISTS " + l.database + " " + l.onCluster()
	if l.profile != ReplicatedDB && l.database != "default" {
		if _, err := e.exec(ctx, create, nil); err != nil {
			return wrap("create database "+l.database, err)
		}
	}
	record := layout{profile: l.profile, database: l.database, cluster: l.cluster}
	ddl := "CREATE TABLE IF NOT EXISTS " + l.database + ".schema_migrations " + l.onCluster() +
		" (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = " +
		record.engine("ReplacingMergeTree") + " ORDER BY version"
	if _, err := e.exec(ctx, ddl, nil); err != nil {
		return wrap("create table schema_migrations", err)
	}
	applied, err := appliedMigrations(ctx, e, l)
	if err != nil {
		return err
	}
	for v, name := range applied {
		if v > len(list) {
			return fmt.Errorf("clickhouse: %w: database %s has schema %d (%s), this program knows up to %d: "+
				"a newer Signalbox has used it; start that version, or restore the database from before its upgrade",
				controlbus.ErrUnsupported, l.database, v, name, len(list))
		}
	}
	for _, m := range list {
		if _, ok := applied[m.version]; ok {
			continue
		}
		sql, err := l.render(m)
		if err != nil {
			return fmt.Errorf("clickhouse: schema %s: %w", m.name, err)
		}
		if _, err := e.exec(ctx, sql, nil); err != nil {
			return wrap("migrate to "+m.name, err)
		}
		// The name is that of a file of this program.
		done := fmt.Sprintf("INSERT INTO %s.schema_migrations (version, name) VALUES (%d, '%s')", l.database, m.version, m.name)
		if _, err := e.exec(ctx, done, map[string][]string{"async_insert": {"0"}}); err != nil {
			return wrap("record migration "+m.name, err)
		}
		log.InfoContext(ctx, "schema migrated", "version", m.version, "name", m.name)
	}
	if l.profile == OnCluster {
		for _, t := range tables {
			if _, err := e.exec(ctx, l.distributed(t.name, t.shard), nil); err != nil {
				return wrap("create distributed table "+t.name, err)
			}
		}
	}
	return nil
}

func appliedMigrations(ctx context.Context, e *endpoint, l layout) (map[int]string, error) {
	text, err := e.exec(ctx, "SELECT DISTINCT version, name FROM "+l.database+".schema_migrations ORDER BY version FORMAT TSV", nil)
	if err != nil {
		return nil, wrap("read schema_migrations", err)
	}
	applied := make(map[int]string)
	for line := range strings.Lines(text) {
		number, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		v, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("clickhouse: read schema_migrations: %w: unexpected line %q", controlbus.ErrUnavailable, line)
		}
		applied[v] = name
	}
	return applied, nil
}

// tableOf is the name of the table behind a local table.
func (l layout) tableOf(local string) string {
	if l.profile == OnCluster {
		return strings.TrimSuffix(local, "_local")
	}
	return local
}
