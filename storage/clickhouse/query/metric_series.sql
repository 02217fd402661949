-- Metric series with their labels. Conditions follow.
SELECT
    metric,
    series,
    kind,
    unit,
    mapKeys(labels) AS label_names,
    mapValues(labels) AS label_values
FROM @db.series
WHERE
