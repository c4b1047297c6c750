-- Messages that came back often and are taken alone, by a hash of what they are.
CREATE TABLE counting_suspects (
    message BLOB PRIMARY KEY NOT NULL CHECK (length(message) = 16),
    -- How often it was taken alone.
    times INTEGER NOT NULL CHECK (times > 0),
    -- How often it had come back when it was last.
    returns INTEGER NOT NULL CHECK (returns >= 0),
    -- When that was, in seconds since 1970.
    taken_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
