-- How many pulses each shard has taken from a log by their places. It moves with the counts, in one step.
ALTER TABLE counting_logs ADD COLUMN taken INTEGER NOT NULL DEFAULT 0 CHECK (taken >= 0);

-- What was received of a log and is settled, written by another step than the counts.
CREATE TABLE counting_log_accounts (
    log TEXT PRIMARY KEY NOT NULL,
    -- Every message before this offset is in it.
    next_offset INTEGER NOT NULL CHECK (next_offset >= 0),
    received INTEGER NOT NULL DEFAULT 0 CHECK (received >= 0),
    -- Of those, what was refused before any shard saw it.
    refused INTEGER NOT NULL DEFAULT 0 CHECK (refused BETWEEN 0 AND received)
) STRICT, WITHOUT ROWID;
