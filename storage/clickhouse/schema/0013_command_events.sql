-- A copy of the ledger: one row for each event of a command, kept for ever, for
-- people to search with SQL. The ledger itself is the console's own database;
-- what is here can be made again from it. Read it with FINAL.
CREATE TABLE IF NOT EXISTS {{local "command_events"}} {{onCluster}}
(
    seq         UInt64 CODEC(Delta(8), ZSTD(1)),
    at          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    command     String CODEC(ZSTD(1)),
    n           UInt64 CODEC(T64, ZSTD(1)),
    type        LowCardinality(String),
    kind        LowCardinality(String),
    agent       LowCardinality(String),
    env         LowCardinality(String),
    system      LowCardinality(String),
    broker      LowCardinality(String),
    channel     LowCardinality(String),
    actor_kind  LowCardinality(String),
    actor_id    String CODEC(ZSTD(1)),
    actor_name  String CODEC(ZSTD(1)),
    reason      String CODEC(ZSTD(1)),
    detail      String CODEC(ZSTD(1)),
    outcome     LowCardinality(String),
    done        Int64 CODEC(T64, ZSTD(1)),
    failed      Int64 CODEC(T64, ZSTD(1)),
    skipped     Int64 CODEC(T64, ZSTD(1)),
    body        String CODEC(ZSTD(3))
)
ENGINE = {{engine "ReplacingMergeTree"}}
PARTITION BY toStartOfMonth(at)
ORDER BY seq
SETTINGS {{settings}}
