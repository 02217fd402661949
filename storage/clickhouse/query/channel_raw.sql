-- Traffic of one channel from the messages themselves, for steps finer than
-- the roll-up. Conditions follow.
SELECT
    toUInt32(intDiv(toUnixTimestamp64Nano(ts) - {from:Int64}, {width_ns:Int64})) AS slot,
    toInt8(op) AS op_n,
    count() AS events,
    countIf(outcome != 'ok') AS failures,
    sum(body_size) AS size,
    tupleElement(sumMapIf([toUInt8(least(greatest(floor(8 * log2(latency_ns)) - 80, 0), 255))], [toUInt64(1)], latency_ns > 0) AS buckets, 1) AS bucket_keys,
    tupleElement(buckets, 2) AS bucket_counts
FROM @db.messages
WHERE
