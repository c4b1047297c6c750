-- What was agreed to and done after the storage of the accumulator was lost or rolled back.

alter table accumulator_shards add column recovery bigint not null default 0;

comment on column accumulator_shards.recovery is
    'The latest recovery that was begun: nothing is taken that was read or seen of the shard before it. 0 where there never was one.';

create table recoveries (
    accumulator text collate "C" not null references accumulators (id),
    number bigint not null,
    word text not null,
    plan text not null,
    given_up jsonb not null default '{}',
    logs jsonb not null default '{}',
    begun_at timestamptz not null default now(),
    ended_at timestamptz,
    primary key (accumulator, number)
);

comment on table recoveries is 'Each recovery from lost storage that a person has agreed to.';
comment on column recoveries.number is 'Counts the recoveries of an accumulator, from 1.';
comment on column recoveries.word is 'By which word it was agreed to.';
comment on column recoveries.plan is 'What was missing, in the words in which it was shown.';
comment on column recoveries.given_up is 'Offsets that the logs no longer held: [from, up to before] by the log.';
comment on column recoveries.logs is 'From where on logs are read again: the offset by the log, written before the source was set back.';
comment on column recoveries.begun_at is 'When it was recorded, before anything else was done.';
comment on column recoveries.ended_at is 'When all of it was done; null where it was not finished, or another one took its place.';

create table recovered_shards (
    accumulator text collate "C" not null,
    number bigint not null,
    shard integer not null,
    found_recovery bigint,
    found_generation bigint,
    found_sequence bigint,
    remake text not null check (remake in ('anew', 'drop_booked', 'keep')),
    generation bigint not null,
    sequence bigint not null,
    counted bigint not null,
    positions jsonb not null,
    flushed_generation bigint not null,
    flushed_at timestamptz,
    seen_generation bigint not null,
    seen_sequence bigint not null,
    seen_at timestamptz,
    restored_at timestamptz,
    primary key (accumulator, number, shard),
    foreign key (accumulator, number) references recoveries (accumulator, number)
);

comment on table recovered_shards is 'What a recovery found of each shard that was not as it should be, and what became of it.';
comment on column recovered_shards.found_recovery is 'The shard''s latest recovery as it was found; this and the next two are null where it was gone.';
comment on column recovered_shards.found_generation is 'Its active generation.';
comment on column recovered_shards.found_sequence is 'Its sequence.';
comment on column recovered_shards.remake is 'anew: nothing was kept. drop_booked: what was counted is in the books and went, identities stayed. keep: all stayed.';
comment on column recovered_shards.generation is 'The generation that is active after it.';
comment on column recovered_shards.sequence is 'The sequence after it.';
comment on column recovered_shards.counted is 'How many of its pulses the books held.';
comment on column recovered_shards.positions is 'How far it has counted each log after it, as in flushes.positions.';
comment on column recovered_shards.flushed_generation is 'The last generation in the books then.';
comment on column recovered_shards.flushed_at is 'When that was flushed.';
comment on column recovered_shards.seen_generation is 'The furthest that anybody had seen it then.';
comment on column recovered_shards.seen_sequence is 'The sequence of that.';
comment on column recovered_shards.seen_at is 'When that was.';
comment on column recovered_shards.restored_at is 'When it was recorded as brought back; null where it was not, as far as the books know.';
