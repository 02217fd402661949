-- The invalid message channel: records nobody could understand.
CREATE TABLE IF NOT EXISTS {{local "invalid"}} {{onCluster}}
(
    ts        DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    sender    LowCardinality(String),
    signal    LowCardinality(String),
    reason    String CODEC(ZSTD(1)),
    data      String CODEC(ZSTD(3)),
    size      UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toDate(ts)
ORDER BY ts
SETTINGS {{settings}}
