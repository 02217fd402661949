-- Who there is in one step of the roll-up. Conditions follow.
SELECT
    env,
    system,
    broker,
    destination,
    service,
    toInt8(op) AS op_n
FROM @db.rollup
WHERE
