-- Why an event was set aside instead of being published: such a row counts as published.
ALTER TABLE moonxd_outbox ADD COLUMN parked TEXT;
