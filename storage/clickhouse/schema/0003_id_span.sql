-- Correlation keys and trace ids with the days they were seen on, so that a
-- lookup opens the days that matter and not the whole retention.
CREATE TABLE IF NOT EXISTS {{local "id_span"}} {{onCluster}}
(
    id    FixedString(16),
    day   Date,
    first SimpleAggregateFunction(min, DateTime64(3, 'UTC')),
    last  SimpleAggregateFunction(max, DateTime64(3, 'UTC')),
    hits  SimpleAggregateFunction(sum, UInt64)
)
ENGINE = {{engine "AggregatingMergeTree"}}
PARTITION BY day
ORDER BY (id, day)
SETTINGS {{settings}}, index_granularity = 512
