-- Span links turned round. Links live on the consumer's side only, so without
-- this nobody could ask who consumed a message.
CREATE TABLE IF NOT EXISTS {{local "link_back"}} {{onCluster}}
(
    target_trace FixedString(16),
    target_span  FixedString(8),
    ts           DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    trace_id     FixedString(16),
    span_id      FixedString(8),
    service      LowCardinality(String),
    destination  LowCardinality(String)
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toDate(ts)
ORDER BY (target_trace, target_span)
SETTINGS {{settings}}
