-- Traffic of everything from one step of the roll-up. Conditions follow.
SELECT
    toUInt32(intDiv(toUnixTimestamp(t) - {start:UInt32}, {width:UInt32})) AS slot,
    sum(n) AS events,
    sum(failed) AS failures,
    sum(bytes) AS size
FROM @db.rollup
WHERE
