-- Log records that are not message events.
CREATE TABLE IF NOT EXISTS {{local "logs"}} {{onCluster}}
(
    ts          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    agent_ts    DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    uid         FixedString(16),
    env         LowCardinality(String),
    service     LowCardinality(String),
    severity    UInt8,
    event_name  LowCardinality(String),
    body        String CODEC(ZSTD(1)),
    trace_id    FixedString(16),
    span_id     FixedString(8),
    correlation FixedString(16),
    correlation_id String CODEC(ZSTD(1)),
    destination LowCardinality(String),
    attrs       Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    attr_items  Array(String) ALIAS arrayMap(kv -> concat(kv.1, '=', kv.2), CAST(attrs, 'Array(Tuple(String, String))')),
    resource_id UInt64,
    INDEX mm_ts ts TYPE minmax GRANULARITY 1,
    INDEX bf_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_correlation correlation TYPE bloom_filter(0.001) GRANULARITY 1
{{- if .TextIndex}},
    INDEX tx_attrs attr_items TYPE text(tokenizer = 'array'),
    INDEX tx_body lower(body) TYPE text(tokenizer = 'splitByNonAlpha')
{{- end}}
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toDate(ts)
ORDER BY (toStartOfFiveMinutes(ts), env, service, ts)
SETTINGS {{settings}}
