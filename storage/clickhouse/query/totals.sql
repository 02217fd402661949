-- Traffic of everything from one step of the roll-up. A message that was sent,
-- tapped and processed is one message: of each channel the one kind of
-- observation is counted that misses least. Conditions follow.
SELECT
    slot,
    sum(seen) AS events,
    sum(failures_n) AS failures,
    sum(seen_bytes) AS size
FROM
(
    SELECT
        toUInt32(intDiv(toUnixTimestamp(t) - {start:UInt32}, {width:UInt32})) AS slot,
        sumIf(n, op = 'tap') AS tapped,
        sumIf(n, op = 'send') AS sent,
        sumIf(n, op = 'process') AS processed,
        sumIf(n, op = 'receive') AS received,
        sumIf(n, op = 'create') AS created,
        multiIf(tapped > 0, tapped, sent > 0, sent, processed > 0, processed, received > 0, received, created > 0, created, sum(n)) AS seen,
        multiIf(tapped > 0, sumIf(bytes, op = 'tap'), sent > 0, sumIf(bytes, op = 'send'), processed > 0, sumIf(bytes, op = 'process'),
            received > 0, sumIf(bytes, op = 'receive'), created > 0, sumIf(bytes, op = 'create'), sum(bytes)) AS seen_bytes,
        sum(failed) AS failures_n
    FROM @db.rollup
    WHERE
