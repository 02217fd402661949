-- Samples as they were sent. Conditions follow.
SELECT
    series,
    toUnixTimestamp64Milli(ts) AS ms,
    value AS sample
FROM @db.samples
WHERE
