-- Sums over windows of time, of all tenants: the rows of a span are found by their hour.
create index hourly_usage_by_hour on hourly_usage (window_start);
