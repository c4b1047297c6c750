-- Every event that was archived, once for each key; FINAL, as in the views, leaves out the copies that are not merged yet.
CREATE TABLE IF NOT EXISTS events
(
    tenant String,
    product_sku String,
    use_unity LowCardinality(String),
    amount Decimal(38, 9),
    occurred_at DateTime64(9, 'UTC') COMMENT 'the time of the event, or else of its arrival',
    received_at DateTime64(9, 'UTC') COMMENT 'of the first copy',
    identity_kind LowCardinality(String) COMMENT 'id, message, cloudevent, or none where its place or its delivery identifies it',
    identity String,
    event_key UInt128 COMMENT 'a hash of the identity and the bytes: what copies have in common',
    format LowCardinality(String) COMMENT 'pulse, cloudevents, or the name of the mapping',
    columns Map(LowCardinality(String), String) COMMENT 'the columns of the mapping; what is null is not there',
    source LowCardinality(String),
    log LowCardinality(String) COMMENT 'of Kafka: cluster, topic and partition',
    offset Nullable(UInt64) COMMENT 'of Kafka',
    item UInt32 COMMENT 'its place in the message, from 0',
    message_id String,
    routing_key String,
    content_type LowCardinality(String),
    headers Array(Tuple(String, String)),
    body String COMMENT 'its original bytes' CODEC(ZSTD(3)),
    earlier UInt64 MATERIALIZED bitNot(reinterpretAsUInt64(toUnixTimestamp64Nano(received_at)))
)
ENGINE = ReplacingMergeTree(earlier)
ORDER BY (tenant, product_sku, event_key)
SETTINGS non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1
