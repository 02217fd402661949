// Package engine is the embedded ClickHouse. It has two halves that run in two
// processes of the same program:
//
//	signalbox serve                         signalbox engine
//	┌──────────────┐  starts, watches   ┌───────────────────────────┐
//	│ Supervisor   │───────────────────▶│ Serve: HTTP on a Unix     │
//	│ DialContext  │═══ HTTP, socket ══▶│ socket ─▶ pool ─▶ libchdb │
//	└──────────────┘                    └───────────────────────────┘
//
// The library shares no process with the console, so neither its memory nor a
// crash of it is the console's. The child speaks ClickHouse's HTTP interface
// well enough for the stock driver; everything above it (schema, rows, queries)
// belongs to storage/clickhouse, which cannot tell the child from a server.
//
// cmd starts both: the verb "engine" calls Serve, the verb "serve" runs a
// Supervisor.
package engine
