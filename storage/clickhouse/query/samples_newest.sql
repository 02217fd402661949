-- The newest sample of each series and step. Conditions follow.
SELECT
    series,
    toUnixTimestamp64Milli(max(ts)) AS ms,
    argMax(value, ts) AS sample
FROM @db.samples
WHERE
