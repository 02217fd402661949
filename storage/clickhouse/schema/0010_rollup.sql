-- Traffic per channel, service and operation in steps of 10, 60 and 3600
-- seconds. Rows of one key add up, so late panes need no care.
CREATE TABLE IF NOT EXISTS {{local "rollup"}} {{onCluster}}
(
    step        UInt16,
    t           DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    env         LowCardinality(String),
    system      LowCardinality(String),
    broker      LowCardinality(String),
    destination LowCardinality(String),
    service     LowCardinality(String),
    op          Enum8('unknown' = 0, 'create' = 1, 'send' = 2, 'receive' = 3, 'process' = 4, 'settle' = 5, 'tap' = 6),
    n           SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    failed      SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes       SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    lat_n       SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    lat_sum     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    lat_max     SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    lat         SimpleAggregateFunction(sumMap, Map(UInt8, UInt64)) CODEC(ZSTD(1))
)
ENGINE = {{engine "AggregatingMergeTree"}}
PARTITION BY (toDate(t), step)
ORDER BY (env, system, broker, destination, service, op, t)
SETTINGS {{settings}}
