-- Metric series: labels once per series and day, samples stay narrow.
-- Re-writing a row is harmless.
CREATE TABLE IF NOT EXISTS {{local "series"}} {{onCluster}}
(
    metric LowCardinality(String),
    series UInt64,
    day    Date,
    kind   LowCardinality(String),
    unit   LowCardinality(String),
    labels Map(LowCardinality(String), String) CODEC(ZSTD(3)),
    label_items Array(String) ALIAS arrayMap(kv -> concat(kv.1, '=', kv.2), CAST(labels, 'Array(Tuple(String, String))'))
{{- if .TextIndex}},
    INDEX tx_labels label_items TYPE text(tokenizer = 'array')
{{- end}}
)
ENGINE = {{engine "ReplacingMergeTree"}}
PARTITION BY day
ORDER BY (metric, series, day)
SETTINGS {{settings}}
