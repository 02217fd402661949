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
    AND message_id = {message_id:String}
    AND (broker IN ({f1:String}, {f2:String}))
    AND (uid IN (SELECT uid FROM signalbox.bodies WHERE
    toStartOfFiveMinutes(ts) >= toStartOfFiveMinutes(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))
    AND toStartOfFiveMinutes(ts) <= toStartOfFiveMinutes(fromUnixTimestamp64Nano({to:Int64}, 'UTC'))
    AND ts >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
    AND (broker IN ({f1:String}, {f2:String}))
    AND uid IN (SELECT uid FROM signalbox.messages WHERE
    toStartOfFiveMinutes(ts) >= toStartOfFiveMinutes(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))
    AND toStartOfFiveMinutes(ts) <= toStartOfFiveMinutes(fromUnixTimestamp64Nano({to:Int64}, 'UTC'))
    AND ts >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
    AND message_id = {message_id:String})
    AND hasTokenCaseInsensitive(body, {f3:String})) OR consumer_group = {f4:String})
    AND uid IN (SELECT uid FROM signalbox.bodies WHERE
    toStartOfFiveMinutes(ts) >= toStartOfFiveMinutes(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))
    AND toStartOfFiveMinutes(ts) <= toStartOfFiveMinutes(fromUnixTimestamp64Nano({to:Int64}, 'UTC'))
    AND ts >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
    AND (broker IN ({f1:String}, {f2:String}))
    AND uid IN (SELECT uid FROM signalbox.messages WHERE
    toStartOfFiveMinutes(ts) >= toStartOfFiveMinutes(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))
    AND toStartOfFiveMinutes(ts) <= toStartOfFiveMinutes(fromUnixTimestamp64Nano({to:Int64}, 'UTC'))
    AND ts >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
    AND message_id = {message_id:String})
    AND ((positionCaseInsensitive(body, {f5:String}) > 0 AND match(body, {f6:String})) AND NOT (body = {f7:String})))
    AND (ts, uid) < (fromUnixTimestamp64Nano({at:Int64}, 'UTC'), toFixedString(unhex({at_uid:String}), 16))
ORDER BY toStartOfFiveMinutes(ts) DESC, ts DESC, uid DESC
LIMIT {limit:UInt32}
