-- Traffic per channel from one step of the roll-up. Conditions follow.
SELECT
    env,
    system,
    broker,
    destination,
    sumIf(n, op = 'tap') AS tapped,
    sumIf(bytes, op = 'tap') AS tapped_bytes,
    sum(failed) AS failures,
    toInt64(toUnixTimestamp(maxIf(t, op = 'tap'))) AS last_s,
    tupleElement(sumMapIf([toUInt32(intDiv(toUnixTimestamp(t) - {start:UInt32}, {width:UInt32}))], [n], op = 'tap') AS spark, 1) AS spark_at,
    tupleElement(spark, 2) AS spark_n
FROM @db.rollup
WHERE
