-- Series that describe channels, with the labels that name them.
SELECT
    metric,
    series,
    labels[{l_env:String}] AS env,
    labels[{l_system:String}] AS system,
    labels[{l_broker:String}] AS broker,
    labels[{l_channel:String}] AS channel,
    labels[{l_kind:String}] AS kind,
    labels[{l_state:String}] AS state
FROM @db.series
WHERE
