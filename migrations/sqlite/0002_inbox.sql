-- What comes over HTTP: events that are stored before they are answered for, and the keys of those who may send them.

CREATE TABLE webhook_events (
    -- Grows with the order of arrival; numbers are not used again.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- payments for a webhook, pulses for what was posted to the API.
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    -- received: it waits. processing: a worker has it, until lease_until. done: its pulses are counted. failed: see last_error.
    status TEXT NOT NULL DEFAULT 'received' CHECK (status IN ('received', 'processing', 'done', 'failed')),
    -- How often it was claimed by a worker that did not give it back.
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    -- Pulses without a time of their own belong to this hour.
    received_at TEXT NOT NULL,
    -- When it was done or failed, to the millisecond.
    processed_at TEXT,
    -- The bytes as they were sent; null where they are the body.
    original BLOB,
    -- What is counted: native pulses, or CloudEvents where the envelope says so.
    body BLOB NOT NULL,
    -- A JSON object of message_id, content_type, routing_key and headers.
    envelope TEXT NOT NULL CHECK (json_valid(envelope)),
    -- SHA-256 of the bytes as they were sent: tells a repetition from another event with the same id.
    content_hash BLOB NOT NULL CHECK (length(content_hash) = 32),
    -- What the attempt that runs has refused of it, one a line; the event ends as failed.
    refused TEXT,
    lease_owner TEXT,
    -- Milliseconds since 1970, like next_attempt_at: from when on another worker may take it.
    lease_until INTEGER,
    -- From when on it may be claimed.
    next_attempt_at INTEGER NOT NULL DEFAULT 0,
    CHECK ((status = 'processing') = (lease_owner IS NOT NULL AND lease_until IS NOT NULL)),
    UNIQUE (source, event_id)
) STRICT;
CREATE INDEX webhook_events_waiting ON webhook_events (id) WHERE status = 'received';
CREATE INDEX webhook_events_leased ON webhook_events (lease_until) WHERE status = 'processing';
CREATE INDEX webhook_events_failed ON webhook_events (id) WHERE status = 'failed';
CREATE INDEX webhook_events_done ON webhook_events (processed_at) WHERE status = 'done';

-- Keys by which services call the API.
CREATE TABLE api_keys (
    -- The first part of the key, which is no secret.
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- ingest: send pulses. read: ask what was used.
    scope TEXT NOT NULL CHECK (scope IN ('ingest', 'read')),
    -- SHA-256 of the secret part.
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    created_at TEXT NOT NULL,
    -- From when on it is refused; null while it is in use.
    revoked_at TEXT
) STRICT, WITHOUT ROWID;
