-- How far each shard has counted each log: every pulse before the position. It moves with the counts, in one step.
CREATE TABLE counting_logs (
    shard INTEGER NOT NULL REFERENCES counting_shards (shard),
    -- Technology, cluster, topic, its incarnation, partition.
    log TEXT NOT NULL,
    -- Every message before the offset, and so many items of the message there.
    log_offset INTEGER NOT NULL CHECK (log_offset >= 0),
    items INTEGER NOT NULL CHECK (items >= 0),
    PRIMARY KEY (shard, log)
) STRICT, WITHOUT ROWID;

-- The same as of the moment of the sealing: a JSON object of "offset:items" by the log.
ALTER TABLE counting_generations ADD COLUMN positions TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(positions));

-- How far the shard had counted each log when the generation was sealed, for the recovery of lost storage: a JSON
-- object of "offset:items" by the log.
ALTER TABLE flushes ADD COLUMN positions TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(positions));
