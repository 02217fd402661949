// Package clickhouse is the message store: it migrates the schema, writes the
// collector's batches as Native blocks and answers the questions of package
// storage. The same code serves the embedded engine and a ClickHouse server or
// cluster.
//
// Writes do not go through the driver. A batch is kept column by column, is
// encoded once and posted over HTTP with a deduplication token, so that a write
// that was cut off can be repeated without storing a row twice. Reads go
// through clickhouse-go with bound parameters, a time range, a limit and a
// deadline.
//
// The caller opens a Store, runs its Janitor for as long as data is written,
// and closes the Store last. Nothing here starts by itself.
package clickhouse
