-- What comes over HTTP: events that are stored before they are answered for, and the keys of those who may send them.

create table webhook_events (
    id bigint generated always as identity primary key,
    source text collate "C" not null,
    event_id text collate "C" not null,
    status text not null default 'received' check (status in ('received', 'processing', 'done', 'failed')),
    attempts integer not null default 0,
    last_error text,
    received_at timestamptz not null,
    processed_at timestamptz,
    original bytea,
    body bytea not null,
    envelope text not null,
    content_hash bytea not null check (octet_length(content_hash) = 32),
    refused text,
    lease_owner text,
    lease_until timestamptz,
    next_attempt_at timestamptz not null default now(),
    constraint webhook_events_key unique (source, event_id),
    constraint webhook_events_lease check ((status = 'processing') = (lease_owner is not null and lease_until is not null))
)
-- Every event is updated twice and then deleted: dead rows are cleaned up long before they are a fifth of the table.
with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

create index webhook_events_waiting on webhook_events (id) where status = 'received';
create index webhook_events_leased on webhook_events (lease_until) where status = 'processing';
create index webhook_events_owned on webhook_events (lease_owner) where status = 'processing';
create index webhook_events_failed on webhook_events (id) where status = 'failed';
create index webhook_events_done on webhook_events (processed_at) where status = 'done';

comment on table webhook_events is 'The inbox: what came over HTTP, until some time after it was counted.';
comment on column webhook_events.id is 'Names the event; grows with the order of arrival, numbers may be skipped.';
comment on column webhook_events.source is 'Who sent it: payments for a webhook, pulses for what was posted to the API.';
comment on column webhook_events.event_id is 'Its id within the source: the same event again is the same row.';
comment on column webhook_events.status is 'received: it waits. processing: a worker has it, until lease_until. done: its pulses are counted. failed: see last_error.';
comment on column webhook_events.attempts is 'How often it was claimed by a worker that did not give it back.';
comment on column webhook_events.last_error is 'Why the last attempt did not end well.';
comment on column webhook_events.received_at is 'When it arrived; pulses without a time of their own belong to this hour.';
comment on column webhook_events.processed_at is 'When it was done or failed.';
comment on column webhook_events.original is 'The bytes as they were sent; null where they are the body.';
comment on column webhook_events.body is 'What is counted: native pulses, or CloudEvents where the envelope says so.';
comment on column webhook_events.envelope is 'What belongs to the body: a JSON object of message_id, content_type, routing_key and headers.';
comment on column webhook_events.content_hash is 'SHA-256 of the bytes as they were sent: tells a repetition from another event with the same id.';
comment on column webhook_events.refused is 'What the attempt that runs has refused of it, one a line; the event ends as failed.';
comment on column webhook_events.lease_owner is 'The worker that has it.';
comment on column webhook_events.lease_until is 'From when on another worker may take it.';
comment on column webhook_events.next_attempt_at is 'From when on it may be claimed.';

create table api_keys (
    id text collate "C" primary key,
    name text not null,
    scope text not null check (scope in ('ingest', 'read')),
    hash bytea not null check (octet_length(hash) = 32),
    created_at timestamptz not null,
    revoked_at timestamptz
);

comment on table api_keys is 'Keys by which services call the API.';
comment on column api_keys.id is 'The first part of the key, which is no secret.';
comment on column api_keys.name is 'What a person called it.';
comment on column api_keys.scope is 'ingest: send pulses. read: ask what was used.';
comment on column api_keys.hash is 'SHA-256 of the secret part.';
comment on column api_keys.created_at is 'When it was made.';
comment on column api_keys.revoked_at is 'From when on it is refused; null while it is in use.';
