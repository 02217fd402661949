-- Latencies in panes of one step of the roll-up, by who they are of.
-- Conditions follow.
SELECT
    env,
    system,
    broker,
    destination,
    service,
    toInt8(op) AS op_n,
    groupArray(toUnixTimestamp(t)) AS pane_at,
    groupArray(toUInt64(lat_n)) AS pane_n,
    groupArray(toUInt64(lat_sum)) AS pane_sum,
    groupArray(mapKeys(lat)) AS pane_buckets,
    groupArray(mapValues(lat)) AS pane_counts
FROM @db.rollup
WHERE
