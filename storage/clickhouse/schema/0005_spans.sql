-- Spans, with the messaging attributes lifted to columns.
CREATE TABLE IF NOT EXISTS {{local "spans"}} {{onCluster}}
(
    ts          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    duration_ns UInt64 CODEC(T64, ZSTD(1)),
    trace_id    FixedString(16),
    span_id     FixedString(8),
    parent_id   FixedString(8),
    env         LowCardinality(String),
    service     LowCardinality(String),
    name        LowCardinality(String),
    kind        Enum8('unspecified' = 0, 'internal' = 1, 'server' = 2, 'client' = 3, 'producer' = 4, 'consumer' = 5),
    status      Enum8('unset' = 0, 'ok' = 1, 'error' = 2),
    status_text String CODEC(ZSTD(1)),
    system      LowCardinality(String),
    destination LowCardinality(String),
    op          Enum8('unknown' = 0, 'create' = 1, 'send' = 2, 'receive' = 3, 'process' = 4, 'settle' = 5, 'tap' = 6),
    message_id  String CODEC(ZSTD(1)),
    correlation FixedString(16),
    correlation_id String CODEC(ZSTD(1)),
    attrs       Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    attr_items  Array(String) ALIAS arrayMap(kv -> concat(kv.1, '=', kv.2), CAST(attrs, 'Array(Tuple(String, String))')),
    resource_id UInt64,
    `events.ts`      Array(DateTime64(9, 'UTC')),
    `events.name`    Array(LowCardinality(String)),
    `events.attrs`   Array(Map(LowCardinality(String), String)),
    `links.trace_id` Array(FixedString(16)),
    `links.span_id`  Array(FixedString(8)),
    `links.attrs`    Array(Map(LowCardinality(String), String)),
    INDEX mm_ts ts TYPE minmax GRANULARITY 1,
    INDEX bf_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_message message_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_correlation correlation TYPE bloom_filter(0.001) GRANULARITY 1
{{- if .TextIndex}},
    INDEX tx_attrs attr_items TYPE text(tokenizer = 'array')
{{- end}}
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toDate(ts)
ORDER BY (service, name, toDateTime(ts))
SETTINGS {{settings}}
