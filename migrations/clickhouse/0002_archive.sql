-- What to ask for amounts: every event once.
CREATE OR REPLACE VIEW archive AS SELECT * FROM events FINAL
