-- Panes of one step of the roll-up, by who they are of. Conditions follow.
SELECT
    env,
    system,
    broker,
    destination,
    service,
    toInt8(op) AS op_n,
    groupArray(toUnixTimestamp(t)) AS pane_at,
    groupArray(multiIf({measure:UInt8} = 1, n, {measure:UInt8} = 2, failed, bytes)) AS pane_n
FROM @db.rollup
WHERE
