-- Payloads, apart from messages: they have their own retention and can be
-- purged without rewriting the history of who sent what.
CREATE TABLE IF NOT EXISTS {{local "bodies"}} {{onCluster}}
(
    ts          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    uid         FixedString(16),
    env         LowCardinality(String),
    system      LowCardinality(String),
    broker      LowCardinality(String),
    destination LowCardinality(String),
    body        String CODEC(ZSTD(3)),
    INDEX mm_ts ts TYPE minmax GRANULARITY 1,
    INDEX bf_uid uid TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toDate(ts)
ORDER BY (toStartOfFiveMinutes(ts), env, system, broker, destination, ts)
SETTINGS {{settings}}, index_granularity = 2048
