-- Metrics by name, kind and unit. Conditions follow.
SELECT
    metric,
    kind,
    unit
FROM @db.series
WHERE
