-- One row per observed message event: a tap saw it, or a service said that it
-- sent, received, processed or settled it.
CREATE TABLE IF NOT EXISTS signalbox.messages_local ON CLUSTER 'main'
(
    ts            DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    agent_ts      DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at     DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    time_source   Enum8('unknown' = 0, 'broker' = 1, 'producer' = 2, 'agent' = 3),
    uid           FixedString(16),
    env           LowCardinality(String),
    system        LowCardinality(String),
    broker        LowCardinality(String),
    destination   LowCardinality(String),
    op            Enum8('unknown' = 0, 'create' = 1, 'send' = 2, 'receive' = 3, 'process' = 4, 'settle' = 5, 'tap' = 6),
    outcome       Enum8('ok' = 0, 'failed' = 1, 'retried' = 2, 'dead_lettered' = 3, 'expired' = 4, 'detoured' = 5),
    service       LowCardinality(String),
    consumer_group LowCardinality(String),
    partition_id  LowCardinality(String),
    routing_key   String CODEC(ZSTD(1)),
    position      Int64 CODEC(Delta(8), ZSTD(1)),
    delivery      UInt16 CODEC(T64, ZSTD(1)),
    message_id    String CODEC(ZSTD(1)),
    correlation   FixedString(16),
    correlation_id String CODEC(ZSTD(1)),
    causation_id  String CODEC(ZSTD(1)),
    reply_to      String CODEC(ZSTD(1)),
    trace_id      FixedString(16),
    span_id       FixedString(8),
    latency_ns    UInt64 CODEC(T64, ZSTD(1)),
    error_type    LowCardinality(String),
    dead_letter_source LowCardinality(String),
    dead_letter_reason LowCardinality(String),
    content_type  LowCardinality(String),
    content_encoding LowCardinality(String),
    headers       Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    header_items  Array(String) ALIAS arrayMap(kv -> concat(kv.1, '=', kv.2), CAST(headers, 'Array(Tuple(String, String))')),
    body_size     UInt64 CODEC(T64, ZSTD(1)),
    body_policy   Enum8('full' = 0, 'metadata' = 1, 'hash' = 2),
    body_truncated Bool,
    body_sha256   String CODEC(ZSTD(1)),
    tap           LowCardinality(String),
    gap_before    Int64 CODEC(T64, ZSTD(1)),
    redacted      Array(LowCardinality(String)),
    INDEX mm_ts ts TYPE minmax GRANULARITY 1,
    INDEX bf_uid uid TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_message message_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_correlation correlation TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_causation causation_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX tx_headers header_items TYPE text(tokenizer = 'array')
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toDate(ts)
ORDER BY (toStartOfFiveMinutes(ts), env, system, broker, destination, ts)
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- Payloads, apart from messages: they have their own retention and can be
-- purged without rewriting the history of who sent what.
CREATE TABLE IF NOT EXISTS signalbox.bodies_local ON CLUSTER 'main'
(
    ts          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    uid         FixedString(16),
    env         LowCardinality(String),
    system      LowCardinality(String),
    broker      LowCardinality(String),
    destination LowCardinality(String),
    body        String CODEC(ZSTD(3)),
    INDEX mm_ts ts TYPE minmax GRANULARITY 1,
    INDEX bf_uid uid TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toDate(ts)
ORDER BY (toStartOfFiveMinutes(ts), env, system, broker, destination, ts)
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, index_granularity = 2048;

-- Correlation keys and trace ids with the days they were seen on, so that a
-- lookup opens the days that matter and not the whole retention.
CREATE TABLE IF NOT EXISTS signalbox.id_span_local ON CLUSTER 'main'
(
    id    FixedString(16),
    day   Date,
    first SimpleAggregateFunction(min, DateTime64(3, 'UTC')),
    last  SimpleAggregateFunction(max, DateTime64(3, 'UTC')),
    hits  SimpleAggregateFunction(sum, UInt64)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY day
ORDER BY (id, day)
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, index_granularity = 512;

-- Log records that are not message events.
CREATE TABLE IF NOT EXISTS signalbox.logs_local ON CLUSTER 'main'
(
    ts          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    agent_ts    DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    uid         FixedString(16),
    env         LowCardinality(String),
    service     LowCardinality(String),
    severity    UInt8,
    event_name  LowCardinality(String),
    body        String CODEC(ZSTD(1)),
    trace_id    FixedString(16),
    span_id     FixedString(8),
    correlation FixedString(16),
    correlation_id String CODEC(ZSTD(1)),
    destination LowCardinality(String),
    attrs       Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    attr_items  Array(String) ALIAS arrayMap(kv -> concat(kv.1, '=', kv.2), CAST(attrs, 'Array(Tuple(String, String))')),
    resource_id UInt64,
    INDEX mm_ts ts TYPE minmax GRANULARITY 1,
    INDEX bf_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_correlation correlation TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX tx_attrs attr_items TYPE text(tokenizer = 'array'),
    INDEX tx_body lower(body) TYPE text(tokenizer = 'splitByNonAlpha')
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toDate(ts)
ORDER BY (toStartOfFiveMinutes(ts), env, service, ts)
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- Spans, with the messaging attributes lifted to columns.
CREATE TABLE IF NOT EXISTS signalbox.spans_local ON CLUSTER 'main'
(
    ts          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    duration_ns UInt64 CODEC(T64, ZSTD(1)),
    trace_id    FixedString(16),
    span_id     FixedString(8),
    parent_id   FixedString(8),
    env         LowCardinality(String),
    service     LowCardinality(String),
    name        LowCardinality(String),
    kind        Enum8('unspecified' = 0, 'internal' = 1, 'server' = 2, 'client' = 3, 'producer' = 4, 'consumer' = 5),
    status      Enum8('unset' = 0, 'ok' = 1, 'error' = 2),
    status_text String CODEC(ZSTD(1)),
    system      LowCardinality(String),
    destination LowCardinality(String),
    op          Enum8('unknown' = 0, 'create' = 1, 'send' = 2, 'receive' = 3, 'process' = 4, 'settle' = 5, 'tap' = 6),
    message_id  String CODEC(ZSTD(1)),
    correlation FixedString(16),
    correlation_id String CODEC(ZSTD(1)),
    attrs       Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    attr_items  Array(String) ALIAS arrayMap(kv -> concat(kv.1, '=', kv.2), CAST(attrs, 'Array(Tuple(String, String))')),
    resource_id UInt64,
    `events.ts`      Array(DateTime64(9, 'UTC')),
    `events.name`    Array(LowCardinality(String)),
    `events.attrs`   Array(Map(LowCardinality(String), String)),
    `links.trace_id` Array(FixedString(16)),
    `links.span_id`  Array(FixedString(8)),
    `links.attrs`    Array(Map(LowCardinality(String), String)),
    INDEX mm_ts ts TYPE minmax GRANULARITY 1,
    INDEX bf_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_message message_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_correlation correlation TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX tx_attrs attr_items TYPE text(tokenizer = 'array')
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toDate(ts)
ORDER BY (service, name, toDateTime(ts))
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- Span links turned round. Links live on the consumer's side only, so without
-- this nobody could ask who consumed a message.
CREATE TABLE IF NOT EXISTS signalbox.link_back_local ON CLUSTER 'main'
(
    target_trace FixedString(16),
    target_span  FixedString(8),
    ts           DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    trace_id     FixedString(16),
    span_id      FixedString(8),
    service      LowCardinality(String),
    destination  LowCardinality(String)
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toDate(ts)
ORDER BY (target_trace, target_span)
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- Who sends: once per resource and day. Re-writing a row is harmless.
CREATE TABLE IF NOT EXISTS signalbox.resources_local ON CLUSTER 'main'
(
    resource_id UInt64,
    day         Date,
    service     LowCardinality(String),
    host        LowCardinality(String),
    attrs       Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    last        DateTime('UTC')
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}', last)
PARTITION BY day
ORDER BY (resource_id, day)
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- Metric series: labels once per series and day, samples stay narrow.
-- Re-writing a row is harmless.
CREATE TABLE IF NOT EXISTS signalbox.series_local ON CLUSTER 'main'
(
    metric LowCardinality(String),
    series UInt64,
    day    Date,
    kind   LowCardinality(String),
    unit   LowCardinality(String),
    labels Map(LowCardinality(String), String) CODEC(ZSTD(3)),
    label_items Array(String) ALIAS arrayMap(kv -> concat(kv.1, '=', kv.2), CAST(labels, 'Array(Tuple(String, String))')),
    INDEX tx_labels label_items TYPE text(tokenizer = 'array')
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY day
ORDER BY (metric, series, day)
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- Metric samples.
CREATE TABLE IF NOT EXISTS signalbox.samples_local ON CLUSTER 'main'
(
    metric LowCardinality(String),
    series UInt64 CODEC(Delta(8), ZSTD(1)),
    ts     DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    value  Float64 CODEC(Gorilla, ZSTD(1))
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toDate(ts)
ORDER BY (metric, series, ts)
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- Traffic per channel, service and operation in steps of 10, 60 and 3600
-- seconds. Rows of one key add up, so late panes need no care.
CREATE TABLE IF NOT EXISTS signalbox.rollup_local ON CLUSTER 'main'
(
    step        UInt16,
    t           DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    env         LowCardinality(String),
    system      LowCardinality(String),
    broker      LowCardinality(String),
    destination LowCardinality(String),
    service     LowCardinality(String),
    op          Enum8('unknown' = 0, 'create' = 1, 'send' = 2, 'receive' = 3, 'process' = 4, 'settle' = 5, 'tap' = 6),
    n           SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    failed      SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    bytes       SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    lat_n       SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    lat_sum     SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    lat_max     SimpleAggregateFunction(max, UInt64) CODEC(T64, ZSTD(1)),
    lat         SimpleAggregateFunction(sumMap, Map(UInt8, UInt64)) CODEC(ZSTD(1))
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY (toDate(t), step)
ORDER BY (env, system, broker, destination, service, op, t)
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- The invalid message channel: records nobody could understand.
CREATE TABLE IF NOT EXISTS signalbox.invalid_local ON CLUSTER 'main'
(
    ts        DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    sender    LowCardinality(String),
    signal    LowCardinality(String),
    reason    String CODEC(ZSTD(1)),
    data      String CODEC(ZSTD(3)),
    size      UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toDate(ts)
ORDER BY ts
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- What commands did with single messages, out of the log records that say so
-- (signalbox.command.message). They are in the table logs as well; here they are
-- read by command and number, or by message.
CREATE TABLE IF NOT EXISTS signalbox.outcomes_local ON CLUSTER 'main'
(
    ts          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at   DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    command     FixedString(16),
    number      Int64 CODEC(Delta(8), ZSTD(1)),
    kind        LowCardinality(String),
    outcome     LowCardinality(String),
    detail      String CODEC(ZSTD(1)),
    env         LowCardinality(String),
    broker      LowCardinality(String),
    channel     LowCardinality(String),
    destination LowCardinality(String),
    source      LowCardinality(String),
    message_id  String CODEC(ZSTD(1)),
    correlation_id String CODEC(ZSTD(1)),
    uid         FixedString(16),
    INDEX bf_uid uid TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX bf_message message_id TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toDate(ts)
ORDER BY (command, number, ts)
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, index_granularity = 1024;

-- A copy of the ledger: one row for each event of a command, kept for ever, for
-- people to search with SQL. The ledger itself is the console's own database;
-- what is here can be made again from it. Read it with FINAL.
CREATE TABLE IF NOT EXISTS signalbox.command_events_local ON CLUSTER 'main'
(
    seq         UInt64 CODEC(Delta(8), ZSTD(1)),
    at          DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    command     String CODEC(ZSTD(1)),
    n           UInt64 CODEC(T64, ZSTD(1)),
    type        LowCardinality(String),
    kind        LowCardinality(String),
    agent       LowCardinality(String),
    env         LowCardinality(String),
    system      LowCardinality(String),
    broker      LowCardinality(String),
    channel     LowCardinality(String),
    actor_kind  LowCardinality(String),
    actor_id    String CODEC(ZSTD(1)),
    actor_name  String CODEC(ZSTD(1)),
    reason      String CODEC(ZSTD(1)),
    detail      String CODEC(ZSTD(1)),
    outcome     LowCardinality(String),
    done        Int64 CODEC(T64, ZSTD(1)),
    failed      Int64 CODEC(T64, ZSTD(1)),
    skipped     Int64 CODEC(T64, ZSTD(1)),
    body        String CODEC(ZSTD(3))
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')
PARTITION BY toStartOfMonth(at)
ORDER BY seq
SETTINGS replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS signalbox.messages ON CLUSTER 'main' AS signalbox.messages_local ENGINE = Distributed('main', 'signalbox', 'messages_local', sipHash64(if(correlation = toFixedString('', 16), uid, correlation)));
CREATE TABLE IF NOT EXISTS signalbox.bodies ON CLUSTER 'main' AS signalbox.bodies_local ENGINE = Distributed('main', 'signalbox', 'bodies_local', sipHash64(uid));
CREATE TABLE IF NOT EXISTS signalbox.id_span ON CLUSTER 'main' AS signalbox.id_span_local ENGINE = Distributed('main', 'signalbox', 'id_span_local', sipHash64(id));
CREATE TABLE IF NOT EXISTS signalbox.logs ON CLUSTER 'main' AS signalbox.logs_local ENGINE = Distributed('main', 'signalbox', 'logs_local', sipHash64(trace_id));
CREATE TABLE IF NOT EXISTS signalbox.spans ON CLUSTER 'main' AS signalbox.spans_local ENGINE = Distributed('main', 'signalbox', 'spans_local', sipHash64(trace_id));
CREATE TABLE IF NOT EXISTS signalbox.link_back ON CLUSTER 'main' AS signalbox.link_back_local ENGINE = Distributed('main', 'signalbox', 'link_back_local', sipHash64(target_trace));
CREATE TABLE IF NOT EXISTS signalbox.resources ON CLUSTER 'main' AS signalbox.resources_local ENGINE = Distributed('main', 'signalbox', 'resources_local', resource_id);
CREATE TABLE IF NOT EXISTS signalbox.series ON CLUSTER 'main' AS signalbox.series_local ENGINE = Distributed('main', 'signalbox', 'series_local', series);
CREATE TABLE IF NOT EXISTS signalbox.samples ON CLUSTER 'main' AS signalbox.samples_local ENGINE = Distributed('main', 'signalbox', 'samples_local', series);
CREATE TABLE IF NOT EXISTS signalbox.rollup ON CLUSTER 'main' AS signalbox.rollup_local ENGINE = Distributed('main', 'signalbox', 'rollup_local', sipHash64(destination));
CREATE TABLE IF NOT EXISTS signalbox.invalid ON CLUSTER 'main' AS signalbox.invalid_local ENGINE = Distributed('main', 'signalbox', 'invalid_local', rand());
CREATE TABLE IF NOT EXISTS signalbox.outcomes ON CLUSTER 'main' AS signalbox.outcomes_local ENGINE = Distributed('main', 'signalbox', 'outcomes_local', sipHash64(command));
CREATE TABLE IF NOT EXISTS signalbox.command_events ON CLUSTER 'main' AS signalbox.command_events_local ENGINE = Distributed('main', 'signalbox', 'command_events_local', seq);
