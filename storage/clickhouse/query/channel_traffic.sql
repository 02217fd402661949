-- Traffic of one channel from one step of the roll-up. Conditions follow.
SELECT
    toUInt32(intDiv(toUnixTimestamp(t) - {start:UInt32}, {width:UInt32})) AS slot,
    toInt8(op) AS op_n,
    sum(n) AS events,
    sum(failed) AS failures,
    sum(bytes) AS size,
    mapKeys(sumMap(lat) AS buckets) AS bucket_keys,
    mapValues(buckets) AS bucket_counts
FROM @db.rollup
WHERE
