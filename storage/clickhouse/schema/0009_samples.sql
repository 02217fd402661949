-- Metric samples.
CREATE TABLE IF NOT EXISTS {{local "samples"}} {{onCluster}}
(
    metric LowCardinality(String),
    series UInt64 CODEC(Delta(8), ZSTD(1)),
    ts     DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    value  Float64 CODEC(Gorilla, ZSTD(1))
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toDate(ts)
ORDER BY (metric, series, ts)
SETTINGS {{settings}}
