alter table flushes add column positions jsonb not null default '{}';

comment on column flushes.positions is
    'How far the shard had counted each log when the generation was sealed: "offset:items" by the log. For the recovery of lost storage.';
