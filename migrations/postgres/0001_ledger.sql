-- The books: hourly totals, what was flushed into them, and the accumulator that they belong with.
-- Texts compare by their bytes (collate "C"): the order of the indexes is the order of the program.

create table hourly_usage (
    id bigint generated always as identity primary key,
    tenant text collate "C" not null,
    product_sku text collate "C" not null,
    use_unity text collate "C" not null,
    window_start timestamptz not null,
    used_amount numeric(38, 9) not null,
    pulse_count bigint not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint hourly_usage_key unique (tenant, product_sku, use_unity, window_start)
)
-- Room on each page for new versions of its rows: adding to an hour that is there then leaves the indexes alone.
with (fillfactor = 70);

comment on table hourly_usage is 'How much each tenant used of each product in each hour. Late pulses add to their hour.';
comment on column hourly_usage.id is 'Names the row; numbers may be skipped.';
comment on column hourly_usage.tenant is 'Who is billed: 1 to 256 bytes of UTF-8 without control characters.';
comment on column hourly_usage.product_sku is 'What was used; the same rule.';
comment on column hourly_usage.use_unity is 'What the amount is counted in; units are never converted into each other. The same rule.';
comment on column hourly_usage.window_start is 'The full hour, in UTC, that the usage falls into.';
comment on column hourly_usage.used_amount is 'The exact sum of the amounts of the pulses.';
comment on column hourly_usage.pulse_count is 'How many pulses are in the sum.';
comment on column hourly_usage.created_at is 'When the first flush wrote the row.';
comment on column hourly_usage.updated_at is 'When the last flush added to the row.';

create table accumulators (
    id text collate "C" primary key,
    shards integer not null check (shards between 1 and 1024),
    created_at timestamptz not null default now(),
    retired_at timestamptz
);

create unique index accumulators_one_active on accumulators ((retired_at is null)) where retired_at is null;

comment on table accumulators is 'The stores of counts not yet flushed that these books belong with: at most one is in use.';
comment on column accumulators.id is 'Sixteen random bytes as 32 hexadecimal digits; the accumulator holds the same.';
comment on column accumulators.shards is 'Into how many shards it is split, fixed for its life.';
comment on column accumulators.created_at is 'When it was registered.';
comment on column accumulators.retired_at is 'When a person gave it up; null while it is in use.';

create table accumulator_shards (
    accumulator text collate "C" not null references accumulators (id),
    shard integer not null,
    status text not null default 'creating' check (status in ('creating', 'created')),
    seen_generation bigint not null default 0,
    seen_sequence bigint not null default 0,
    flushed_generation bigint not null default 0,
    registered_at timestamptz not null default now(),
    created_at timestamptz,
    seen_at timestamptz,
    flushed_at timestamptz,
    primary key (accumulator, shard)
);

comment on table accumulator_shards is 'What is known of each shard, by which lost or rolled-back storage is noticed.';
comment on column accumulator_shards.accumulator is 'The accumulator that the shard belongs to.';
comment on column accumulator_shards.shard is 'The number of the shard, from 0.';
comment on column accumulator_shards.status is 'creating: it may exist or not. created: it existed; if it is gone, it was lost.';
comment on column accumulator_shards.seen_generation is 'The active generation of the furthest state that anybody reported; 0 before the first report.';
comment on column accumulator_shards.seen_sequence is 'The sequence of that state.';
comment on column accumulator_shards.flushed_generation is 'The last generation in the books: every one up to it has a row in flushes. 0 before the first.';
comment on column accumulator_shards.registered_at is 'When the shard was registered.';
comment on column accumulator_shards.created_at is 'When it was first reported as made.';
comment on column accumulator_shards.seen_at is 'When the seen state last moved.';
comment on column accumulator_shards.flushed_at is 'When the last flush began to write.';

create table flushes (
    accumulator text collate "C" not null,
    shard integer not null,
    generation bigint not null,
    used_amount numeric(38, 9) not null,
    pulse_count bigint not null,
    row_count bigint not null,
    sealed_at timestamptz not null,
    started_at timestamptz not null,
    flushed_at timestamptz not null,
    primary key (accumulator, shard, generation)
);

comment on table flushes is 'One row for each generation in the books, written with its usage in one transaction: it is counted once because it is here once.';
comment on column flushes.accumulator is 'The accumulator that counted it.';
comment on column flushes.shard is 'The shard that counted it.';
comment on column flushes.generation is 'The number of the generation within the shard, from 1 without gaps.';
comment on column flushes.used_amount is 'The sum of all amounts in it; units are added up, so it only serves to compare books.';
comment on column flushes.pulse_count is 'How many pulses are in it.';
comment on column flushes.row_count is 'How many rows of hourly_usage it added to.';
comment on column flushes.sealed_at is 'When the generation was sealed, by the clock of the program.';
comment on column flushes.started_at is 'When its transaction began.';
comment on column flushes.flushed_at is 'When its rows were written, just before the commit.';
