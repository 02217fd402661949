package clickhouse

type retentionStats struct{}
