-- One row per observed message event: a tap saw it, or a service said that it
-- sent, received, processed or settled it.
CREATE TABLE IF NOT EXISTS {{local "messages"}} {{onCluster}}
(
    ts            DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    agent_ts      DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at     DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    time_source   Enum8('unknown' = 0, 'broker' = 1, 'producer' = 2, 'agent' = 3),
    uid           FixedString(16),
    env           LowCardinality(String),
    system        LowCardinality(String),
    broker        LowCardinality(String),
    destination   LowCardinality(String),
    op            Enum8('unknown' = 0, 'create' = 1, 'send' = 2, 'receive' = 3, 'process' = 4, 'settle' = 5, 'tap' = 6),
    outcome       Enum8('ok' = 0, 'failed' = 1, 'retried' = 2, 'dead_lettered' = 3, 'expired' = 4, 'detoured' = 5),
    service       LowCardinality(String),
    consumer_group LowCardinality(String),
    partition_id  LowCardinality(String),
    routing_key   String CODEC(ZSTD(1)),
    position      Int64 CODEC(Delta(8), ZSTD(1)),
    delivery      UInt16 CODEC(T64, ZSTD(1)),
    message_id    String CODEC(ZSTD(1)),
    correlation   FixedString(16),
    correlation_id String CODEC(ZSTD(1)),
    causation_id  String CODEC(ZSTD(1)),
    reply_to      String CODEC(ZSTD(1)),
    trace_id      FixedString(16),
    span_id       FixedString(8),
    latency_ns    UInt64 CODEC(T64, ZSTD(1)),
    error_type    LowCardinality(String),
    dead_letter_source LowCardinality(String),
    dead_letter_reason LowCardinality(String),
    content_type  LowCardinality(String),
    content_encoding LowCardinality(String),
    headers       Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    header_items  Array(String) ALIAS arrayMap(kv -> concat(kv.1, '=', kv.2), CAST(headers, 'Array(Tuple(String, String))')),
    body_size     UInt64 CODEC(T64, ZSTD(1)),
    body_policy   Enum8('full' = 0, 'metadata' = 1, 'hash' = 2),
    body_truncated Bool,
    body_sha256   String CODEC(ZSTD(1)),
    tap           LowCardinality(String),
    gap_before    Int64 CODEC(T64, ZSTD(1)),
    redacted      Array(LowCardinality(String)),
    INDEX mm_ts ts TYPE minmax GRANULARITY 1,
    INDEX bf_uid uid TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_message message_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_correlation correlation TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_causation causation_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
{{- if .TextIndex}}
    INDEX tx_headers header_items TYPE text(tokenizer = 'array')
{{- else}}
    INDEX bf_header_values mapValues(headers) TYPE bloom_filter(0.01) GRANULARITY 1
{{- end}}
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toDate(ts)
ORDER BY (toStartOfFiveMinutes(ts), env, system, broker, destination, ts)
SETTINGS {{settings}}
