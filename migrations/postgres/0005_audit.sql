-- What the flushes have added to each hourly total, kept apart from the total itself, so that an audit can name a row
-- that was changed by other means. Null in rows that no flush has added to since.
alter table hourly_usage
    add column flushed_amount numeric(38, 9),
    add column flushed_count bigint;

comment on column hourly_usage.flushed_amount is
    'The same as used_amount, added up apart: where the two differ, somebody else has changed the row. Null where no flush has written the row since there is this column.';
comment on column hourly_usage.flushed_count is 'The same for pulse_count.';
