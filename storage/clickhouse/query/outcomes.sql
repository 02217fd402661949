-- What commands did with messages. Conditions, order and limit follow.
SELECT
    toUnixTimestamp64Nano(ts) AS time_ns,
    command,
    number,
    kind,
    outcome,
    detail,
    env,
    broker,
    destination,
    source,
    message_id,
    correlation_id,
    uid
FROM @db.outcomes
WHERE
