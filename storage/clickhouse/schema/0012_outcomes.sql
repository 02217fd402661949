-- What commands did with single messages, out of the log records that say so
-- (signalbox.command.message). They are in the table logs as well; here they are
-- read by command and number, or by message.
CREATE TABLE IF NOT EXISTS {{local "outcomes"}} {{onCluster}}
(
    ts          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    command     FixedString(16),
    number      Int64 CODEC(Delta(8), ZSTD(1)),
    kind        LowCardinality(String),
    outcome     LowCardinality(String),
    detail      String CODEC(ZSTD(1)),
    env         LowCardinality(String),
    broker      LowCardinality(String),
    channel     LowCardinality(String),
    destination LowCardinality(String),
    source      LowCardinality(String),
    message_id  String CODEC(ZSTD(1)),
    correlation_id String CODEC(ZSTD(1)),
    uid         FixedString(16),
    INDEX bf_uid uid TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_message message_id TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = {{engine "MergeTree"}}
PARTITION BY toDate(ts)
ORDER BY (command, number, ts)
SETTINGS {{settings}}, index_granularity = 1024
