-- The embedded file: the counts that are not yet flushed (counting_*), and the books, named as in PostgreSQL.
--
-- Amounts are integers of 10^-9 units in limbs of 10^18: nanos_high * 10^18 + nanos_low, and in the books, which hold
-- all of NUMERIC(38,9), nanos_top * 10^36 before them. A STRICT table stores no REAL there: what overflows is refused.
-- Texts compare by their bytes: the order of the indexes is the order of the program.

-- One row a shard: where it stands, and what it counted in its life.
CREATE TABLE counting_shards (
    shard INTEGER PRIMARY KEY CHECK (shard >= 0),
    accumulator TEXT NOT NULL CHECK (length(accumulator) = 32),
    shards INTEGER NOT NULL CHECK (shards BETWEEN 1 AND 1024),
    -- The active generation and what it holds.
    generation INTEGER NOT NULL,
    nanos_high INTEGER NOT NULL DEFAULT 0 CHECK (nanos_high >= 0),
    nanos_low INTEGER NOT NULL DEFAULT 0 CHECK (nanos_low BETWEEN 0 AND 999999999999999999),
    pulses INTEGER NOT NULL DEFAULT 0 CHECK (pulses >= 0),
    -- Grows with every change of the shard.
    sequence INTEGER NOT NULL,
    -- The newest generation that was deleted.
    deleted INTEGER NOT NULL DEFAULT 0,
    -- Over the life of the shard.
    counted INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    conflicts INTEGER NOT NULL DEFAULT 0,
    anonymous INTEGER NOT NULL DEFAULT 0,
    -- Milliseconds of flushes, and the latest time that moved them.
    clock_elapsed INTEGER NOT NULL DEFAULT 0,
    clock_latest INTEGER NOT NULL
) STRICT;

-- The last batch of each run of a program: a repetition keeps its number.
CREATE TABLE counting_batches (
    shard INTEGER NOT NULL REFERENCES counting_shards (shard),
    writer BLOB NOT NULL CHECK (length(writer) = 16),
    number INTEGER NOT NULL,
    -- Two bits a pulse; null where all were counted.
    outcomes BLOB,
    -- By the clock of the shard.
    applied_at INTEGER NOT NULL,
    PRIMARY KEY (shard, writer)
) STRICT, WITHOUT ROWID;

-- Rows of the generations that are not deleted. The slot is a hash of the key: parts of a generation are ranges of slots.
CREATE TABLE counting_usage (
    shard INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    key BLOB NOT NULL,
    nanos_high INTEGER NOT NULL CHECK (nanos_high >= 0),
    nanos_low INTEGER NOT NULL CHECK (nanos_low BETWEEN 0 AND 999999999999999999),
    pulses INTEGER NOT NULL CHECK (pulses > 0),
    PRIMARY KEY (shard, generation, slot, key)
) STRICT, WITHOUT ROWID;

-- Generations that are sealed and not deleted.
CREATE TABLE counting_generations (
    shard INTEGER NOT NULL REFERENCES counting_shards (shard),
    generation INTEGER NOT NULL,
    nanos_high INTEGER NOT NULL CHECK (nanos_high >= 0),
    nanos_low INTEGER NOT NULL CHECK (nanos_low BETWEEN 0 AND 999999999999999999),
    pulses INTEGER NOT NULL CHECK (pulses >= 0),
    sealed_seconds INTEGER NOT NULL,
    sealed_nanos INTEGER NOT NULL,
    PRIMARY KEY (shard, generation)
) STRICT, WITHOUT ROWID;

-- Sets of remembered identities: one open for each shard, and those that were closed within the window.
CREATE TABLE counting_buckets (
    bucket INTEGER PRIMARY KEY,
    shard INTEGER NOT NULL REFERENCES counting_shards (shard),
    opened_at INTEGER NOT NULL,
    closed_at INTEGER,
    -- No longer asked; its identities are deleted in steps, then the row.
    dropped INTEGER NOT NULL DEFAULT 0 CHECK (dropped IN (0, 1)),
    -- How many identities the shard had remembered in its life when the bucket was opened.
    identities_before INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX counting_buckets_one_open ON counting_buckets (shard) WHERE closed_at IS NULL;

CREATE TABLE counting_identities (
    bucket INTEGER NOT NULL,
    digest BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    PRIMARY KEY (bucket, digest)
) STRICT, WITHOUT ROWID;

-- The numbers below the largest batch, by which a statement walks over a packed parameter.
CREATE TABLE counting_numbers (number INTEGER PRIMARY KEY) STRICT;
INSERT INTO counting_numbers (number)
WITH RECURSIVE numbers (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM numbers WHERE number < 3999)
SELECT number FROM numbers;

-- How much each tenant used of each product in each hour. Late pulses add to their hour.
CREATE TABLE hourly_usage (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    product_sku TEXT NOT NULL,
    use_unity TEXT NOT NULL,
    -- Hours since 1970-01-01T00:00:00Z.
    hour INTEGER NOT NULL,
    window_start TEXT GENERATED ALWAYS AS (strftime('%Y-%m-%dT%H:00:00Z', hour * 3600, 'unixepoch')) VIRTUAL,
    nanos_top INTEGER NOT NULL DEFAULT 0 CHECK (nanos_top BETWEEN 0 AND 99),
    nanos_high INTEGER NOT NULL CHECK (nanos_high BETWEEN 0 AND 999999999999999999),
    nanos_low INTEGER NOT NULL CHECK (nanos_low BETWEEN 0 AND 999999999999999999),
    -- The exact sum in decimal digits.
    used_amount TEXT GENERATED ALWAYS AS (
        rtrim(rtrim(
            coalesce(nullif(ltrim(printf('%d%018d%09d', nanos_top, nanos_high, nanos_low / 1000000000), '0'), ''), '0')
            || '.' || printf('%09d', nanos_low % 1000000000), '0'), '.')) VIRTUAL,
    pulse_count INTEGER NOT NULL CHECK (pulse_count >= 0),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;
CREATE UNIQUE INDEX hourly_usage_key ON hourly_usage (tenant, product_sku, use_unity, hour);

-- The stores of counts not yet flushed that these books belong with: at most one is in use.
CREATE TABLE accumulators (
    id TEXT PRIMARY KEY CHECK (length(id) = 32),
    shards INTEGER NOT NULL CHECK (shards BETWEEN 1 AND 1024),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    -- When a person gave it up; null while it is in use.
    retired_at TEXT
) STRICT;
CREATE UNIQUE INDEX accumulators_one_active ON accumulators ((retired_at IS NULL)) WHERE retired_at IS NULL;

-- What is known of each shard, by which lost or rolled-back storage is noticed.
CREATE TABLE accumulator_shards (
    accumulator TEXT NOT NULL REFERENCES accumulators (id),
    shard INTEGER NOT NULL,
    -- creating: it may exist or not. created: it existed; if it is gone, it was lost.
    status TEXT NOT NULL DEFAULT 'creating' CHECK (status IN ('creating', 'created')),
    seen_generation INTEGER NOT NULL DEFAULT 0,
    seen_sequence INTEGER NOT NULL DEFAULT 0,
    flushed_generation INTEGER NOT NULL DEFAULT 0,
    registered_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    created_at TEXT,
    seen_at TEXT,
    flushed_at TEXT,
    PRIMARY KEY (accumulator, shard)
) STRICT, WITHOUT ROWID;

-- One row for each generation in the books: it is counted once because it is here once.
CREATE TABLE flushes (
    accumulator TEXT NOT NULL,
    shard INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    nanos_top INTEGER NOT NULL CHECK (nanos_top BETWEEN 0 AND 99),
    nanos_high INTEGER NOT NULL CHECK (nanos_high BETWEEN 0 AND 999999999999999999),
    nanos_low INTEGER NOT NULL CHECK (nanos_low BETWEEN 0 AND 999999999999999999),
    -- The sum of all amounts in it; units are added up, so it only serves to compare books.
    used_amount TEXT GENERATED ALWAYS AS (
        rtrim(rtrim(
            coalesce(nullif(ltrim(printf('%d%018d%09d', nanos_top, nanos_high, nanos_low / 1000000000), '0'), ''), '0')
            || '.' || printf('%09d', nanos_low % 1000000000), '0'), '.')) VIRTUAL,
    pulse_count INTEGER NOT NULL CHECK (pulse_count >= 0),
    row_count INTEGER NOT NULL,
    -- By the clock of the program.
    sealed_at TEXT NOT NULL,
    started_at TEXT NOT NULL,
    flushed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (accumulator, shard, generation)
) STRICT, WITHOUT ROWID;

-- What was refused, with the reason, until a person has looked at it.
CREATE TABLE dead_letters (
    id TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    -- Which pulse of the message, from 0; null for the whole message.
    item INTEGER,
    source TEXT NOT NULL,
    message_id TEXT,
    content_type TEXT,
    routing_key TEXT,
    -- A JSON array of [name, value] in their order.
    headers TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(headers)),
    body BLOB NOT NULL,
    received_at TEXT NOT NULL,
    stored_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;
CREATE INDEX dead_letters_by_reason ON dead_letters (reason, stored_at);
