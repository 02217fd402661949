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
    AND uid IN (SELECT uid FROM signalbox.bodies WHERE
    toStartOfFiveMinutes(ts) >= toStartOfFiveMinutes(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))
    AND toStartOfFiveMinutes(ts) <= toStartOfFiveMinutes(fromUnixTimestamp64Nano({to:Int64}, 'UTC'))
    AND ts >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
    AND (((position(body, {f1:String}) > 0 OR position(body, char(92)) > 0) AND (JSONType(body, {f1:String}, {f2:Int64}) != 'Null' AND JSONType(body, {f1:String}) = 'Array' AND (JSONType(body, {f1:String}, {f2:Int64}) = 'Double' AND match(JSONExtractRaw(body, {f1:String}, {f2:Int64}), '^-?[0-9]{1,38}$') OR JSONType(body, {f1:String}, {f2:Int64}) NOT IN ('Object', 'Array') AND arrayExists(v -> (match(v, '^-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?$') AND if(match(v, '^-?[0-9]{1,38}$'), toInt128OrZero(v) > {f4:Int128}, (isFinite(toFloat64OrZero(v)) AND toFloat64OrZero(v) > reinterpretAsFloat64({f3:UInt64})))), [if(JSONType(body, {f1:String}, {f2:Int64}) = 'String', JSONExtractString(body, {f1:String}, {f2:Int64}), JSONExtractRaw(body, {f1:String}, {f2:Int64}))])) OR JSONType(body, {f1:String}, {f2:Int64}) = 'Null' AND NOT isValidJSON(body) OR length(body) > 262144)) AND NOT ((position(body, {f5:String}) > 0 OR position(body, char(92)) > 0) AND (JSONType(body, {f5:String}) != 'Null' AND NOT (length(body) > 262144 OR JSONType(body, {f5:String}) = 'Double' OR JSONType(body, {f5:String}) = 'Int64' AND JSONExtractRaw(body, {f5:String}) = '0') AND JSONType(body, {f5:String}) NOT IN ('Object', 'Array') AND arrayExists(v -> (v = {f6:String}), [if(JSONType(body, {f5:String}) = 'String', JSONExtractString(body, {f5:String}), JSONExtractRaw(body, {f5:String}))])))))
    AND (ts, uid) < (fromUnixTimestamp64Nano({at:Int64}, 'UTC'), toFixedString(unhex({at_uid:String}), 16))
ORDER BY toStartOfFiveMinutes(ts) DESC, ts DESC, uid DESC
LIMIT {limit:UInt32}
