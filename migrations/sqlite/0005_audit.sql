-- What the flushes have added to each hourly total, kept apart from the total itself, so that an audit can name a row
-- that was changed by other means. Null in rows that no flush has added to since.
ALTER TABLE hourly_usage ADD COLUMN flushed_top INTEGER;
ALTER TABLE hourly_usage ADD COLUMN flushed_high INTEGER;
ALTER TABLE hourly_usage ADD COLUMN flushed_low INTEGER;
ALTER TABLE hourly_usage ADD COLUMN flushed_count INTEGER;
