-- The latest description of channels by their brokers: for each series its
-- last value and, for rates, its values in order of time.
SELECT
    metric,
    series,
    argMax(value, ts) AS latest,
    toUnixTimestamp64Milli(minIf(ts, ts >= fromUnixTimestamp64Milli({recent:Int64}, 'UTC'))) AS first_ms,
    toUnixTimestamp64Milli(max(ts)) AS last_ms,
    arrayMap(p -> tupleElement(p, 2), arraySort(groupArrayIf((ts, value), ts >= fromUnixTimestamp64Milli({recent:Int64}, 'UTC')))) AS history
FROM @db.samples
WHERE
