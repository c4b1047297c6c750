-- Sums over windows of time, of all tenants: the rows of a span are found by their hour.
CREATE INDEX hourly_usage_by_hour ON hourly_usage (hour);

-- What a service made for itself at its first start: the hash of its password and the key that signs its tokens.
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
