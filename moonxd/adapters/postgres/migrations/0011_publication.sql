-- Why an event was set aside instead of being published: such a row counts as published.
ALTER TABLE moonxd_outbox ADD COLUMN parked text;

-- What is due is read by position; counting needs no order.
CREATE INDEX moonxd_outbox_due ON moonxd_outbox (position) WHERE published_at IS NULL;
DROP INDEX moonxd_outbox_unpublished;

-- Advisory locks of this ledger: another schema of the same database has its own.
CREATE FUNCTION moonxd_lock_key(name text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT hashtextextended('moonxd.' || current_schema() || '.' || name, 0);
$$;

-- Event bodies are bytes, so they come in base64. An id that stands already is a redelivery's repetition.
-- NOTIFY makes commits of the whole instance wait for each other, so only a relay that sleeps is notified: it then
-- holds the lock 'outbox.asleep'. Whoever gets that lock keeps it until the commit, and the relay cannot fall asleep
-- over events that are not visible yet.
CREATE OR REPLACE FUNCTION moonxd_emit(events jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO moonxd_outbox (event_id, event_type, topic, event_key, wallet_address, body)
    SELECT (e->>'id')::uuid, e->>'type', e->>'topic', e->>'key', e->>'wallet',
        convert_from(decode(e->>'body', 'base64'), 'UTF8')
    FROM jsonb_array_elements(events) WITH ORDINALITY AS list (e, n) ORDER BY n
    ON CONFLICT (event_id) DO NOTHING;
    IF FOUND AND NOT pg_try_advisory_xact_lock_shared(moonxd_lock_key('outbox.asleep')) THEN
        PERFORM pg_notify('moonxd_outbox', '');
    END IF;
END $$;

-- Gives positions to at most `most` committed events that have none, in the order of their ids. One at a time, and
-- without a gap: the highest position is never removed, and what a rollback undid is given again.
CREATE FUNCTION moonxd_place_events(most integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    highest bigint;
    ids bigint[];
BEGIN
    PERFORM pg_advisory_xact_lock(moonxd_lock_key('outbox.positions'));
    -- Once only: beside a long transaction this passes all the versions that VACUUM may not remove.
    ids := ARRAY(SELECT f.id FROM moonxd_outbox f WHERE f.position IS NULL ORDER BY f.id LIMIT most);
    IF cardinality(ids) = 0 THEN
        RETURN;
    END IF;
    -- The sequence is where an older version stopped; it is not advanced any more.
    SELECT greatest((SELECT max(o.position) FROM moonxd_outbox o), CASE WHEN s.is_called THEN s.last_value ELSE 0 END)
        INTO highest FROM moonxd_outbox_position s;
    UPDATE moonxd_outbox o SET position = highest + fresh.n
        FROM unnest(ids) WITH ORDINALITY AS fresh (id, n) WHERE o.id = fresh.id;
END $$;

CREATE OR REPLACE FUNCTION moonxd_events(after bigint, most integer) RETURNS SETOF moonxd_outbox LANGUAGE plpgsql AS $$
BEGIN
    PERFORM moonxd_place_events(1000);
    RETURN QUERY SELECT * FROM moonxd_outbox o WHERE o.position > after ORDER BY o.position LIMIT most;
END $$;

-- What the relay has to publish behind the position `after`. `woken`: it slept.
CREATE FUNCTION moonxd_due(after bigint, most integer, woken boolean) RETURNS SETOF moonxd_outbox
LANGUAGE plpgsql AS $$
BEGIN
    IF woken THEN
        PERFORM pg_advisory_unlock(moonxd_lock_key('outbox.asleep'));
    END IF;
    PERFORM moonxd_place_events(most);
    RETURN QUERY SELECT * FROM moonxd_outbox o WHERE o.position > after AND o.published_at IS NULL
        ORDER BY o.position LIMIT most;
END $$;

-- Removes at most `most` rows of each table that are older than `keep` says: {history_s, operations_s, outbox_s,
-- outbox_rows, unpublished}. Rows that somebody works on are skipped.
CREATE OR REPLACE FUNCTION moonxd_prune(keep jsonb, most integer) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
    history_before timestamptz := at - make_interval(secs => (keep->>'history_s')::float8);
    operations_before timestamptz := at - make_interval(secs => (keep->>'operations_s')::float8);
    outbox_before timestamptz := at - make_interval(secs => (keep->>'outbox_s')::float8);
    newest bigint := (SELECT max(o.id) FROM moonxd_outbox o);
    history integer := 0;
    operations integer := 0;
    outbox integer := 0;
BEGIN
    DELETE FROM user_token_holdings_history h WHERE h.id IN (
        SELECT d.id FROM user_token_holdings_history d WHERE d.created_at < history_before
        ORDER BY d.created_at LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS history = ROW_COUNT;
    -- Ended, and not what a wallet's status row points to (an older database has a foreign key there).
    DELETE FROM sync_operations o WHERE o.id IN (
        SELECT d.id FROM sync_operations d
        WHERE d.created_at < operations_before AND d.updated_at < operations_before
            AND d.status::text IN ('completed', 'failed', 'cancelled')
            AND NOT EXISTS (SELECT FROM user_sync_status s
                WHERE s.user_id::text = d.user_id::text AND s.wallet_address = d.wallet_address
                    AND s.last_sync_operation_id::text = d.id::text)
        ORDER BY d.created_at LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS operations = ROW_COUNT;
    DELETE FROM moonxd_outbox o WHERE o.id IN (
        SELECT d.id FROM moonxd_outbox d
        WHERE ((keep->>'unpublished')::boolean OR d.published_at IS NOT NULL)
            AND (d.created_at < outbox_before OR d.id <= newest - (keep->>'outbox_rows')::bigint)
            -- The highest position tells which one comes next.
            AND (d.position IS NULL OR d.position < (SELECT max(h.position) FROM moonxd_outbox h))
        ORDER BY d.id LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS outbox = ROW_COUNT;
    RETURN json_build_object('history', history, 'operations', operations, 'outbox', outbox);
END $$;
