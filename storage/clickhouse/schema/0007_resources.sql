-- Who sends: once per resource and day. Re-writing a row is harmless.
CREATE TABLE IF NOT EXISTS {{local "resources"}} {{onCluster}}
(
    resource_id UInt64,
    day         Date,
    service     LowCardinality(String),
    host        LowCardinality(String),
    attrs       Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    last        DateTime('UTC')
)
ENGINE = {{engine "ReplacingMergeTree" "last"}}
PARTITION BY day
ORDER BY (resource_id, day)
SETTINGS {{settings}}
