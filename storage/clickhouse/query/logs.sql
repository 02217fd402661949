-- Log records. Conditions, order and limit follow.
SELECT
    toUnixTimestamp64Nano(ts) AS time_ns,
    toUnixTimestamp64Milli(agent_ts) AS agent_ms,
    uid,
    env,
    service,
    severity,
    event_name,
    body,
    trace_id,
    span_id,
    correlation_id,
    destination,
    mapKeys(attrs) AS attr_names,
    mapValues(attrs) AS attr_values,
    resource_id
FROM @db.logs
WHERE
