-- Message events, without bodies. Conditions, order and limit follow.
SELECT
    toUnixTimestamp64Nano(ts) AS time_ns,
    toUnixTimestamp64Milli(agent_ts) AS agent_ms,
    toUnixTimestamp64Milli(stored_at) AS stored_ms,
    toInt8(time_source) AS time_source_n,
    uid,
    env,
    system,
    broker,
    destination,
    toInt8(op) AS op_n,
    toInt8(outcome) AS outcome_n,
    service,
    consumer_group,
    partition_id,
    routing_key,
    position,
    delivery,
    message_id,
    correlation,
    correlation_id,
    causation_id,
    reply_to,
    trace_id,
    span_id,
    latency_ns,
    error_type,
    dead_letter_source,
    dead_letter_reason,
    content_type,
    content_encoding,
    mapKeys(headers) AS header_names,
    mapValues(headers) AS header_values,
    body_size,
    toInt8(body_policy) AS body_policy_n,
    body_truncated,
    body_sha256,
    tap,
    gap_before,
    redacted
FROM signalbox.messages
WHERE
    toStartOfFiveMinutes(ts) >= toStartOfFiveMinutes(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))
    AND toStartOfFiveMinutes(ts) <= toStartOfFiveMinutes(fromUnixTimestamp64Nano({to:Int64}, 'UTC'))
    AND ts >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
    AND destination = {channel:String}
    AND (toUnixTimestamp64Nano(ts) > {f1:Int64})
    AND ((delivery != 0 AND delivery > {f2:Int64}) OR (body_size >= {f3:Int64}))
    AND NOT (has(mapValues(headers), {f5:String}) AND arrayExists((k, v) -> k = {f4:String} AND (v = {f5:String}), mapKeys(headers), mapValues(headers)))
    AND (routing_key != '' AND match(routing_key, {f6:String}))
    AND (error_type != '' AND match(toValidUTF8(substring(error_type, 1, 65536)), {f7:String}))
    AND (latency_ns != 0 AND (latency_ns = {f8:Int64} OR latency_ns = {f9:Int64}))
    AND (ts, uid) < (fromUnixTimestamp64Nano({at:Int64}, 'UTC'), toFixedString(unhex({at_uid:String}), 16))
ORDER BY toStartOfFiveMinutes(ts) DESC, ts DESC, uid DESC
LIMIT {limit:UInt32}
