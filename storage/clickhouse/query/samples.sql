-- Samples as they were sent. Conditions follow.
SELECT
    series,
    toUnixTimestamp64Milli(ts) AS ms,
    value
FROM @db.samples
WHERE
