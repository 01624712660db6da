-- The user's rate limit and breaker, read from the ledger's rows inside the admission, and what the janitor removes.
-- The rules are those of moonxd/domain/guard.py, which the embedded ledger uses; one conformance suite holds both.

-- When the user's next counted sync may be admitted, NULL: now. `rule` is {most, window_s}; none is no limit.
CREATE FUNCTION moonxd_window_frees_at(owner text, rule jsonb, at timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    op_user sync_operations.user_id%TYPE := owner;
    most integer := (rule->>'most')::integer;
    span interval := make_interval(secs => (rule->>'window_s')::float8);
    oldest timestamptz;
    inside bigint;
BEGIN
    SELECT count(*), min(newest.created_at) INTO inside, oldest FROM (
        SELECT o.created_at FROM sync_operations o
        WHERE o.user_id = op_user AND o.created_at > at - span AND o.metadata::jsonb @> '{"countsForUser": true}'
        ORDER BY o.created_at DESC LIMIT most) newest;
    -- A row of the future (the clock was set back) must not shut its user out for longer than a window.
    RETURN CASE WHEN inside >= most THEN least(oldest, at) + span END;
END $$;

-- When the user's breaker may let operation `op` through, NULL: now. `rule` is {threshold, open_s}; none is no breaker.
CREATE FUNCTION moonxd_breaker_closes_at(owner text, op uuid, rule jsonb, at timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    op_user sync_operations.user_id%TYPE := owner;
    st_user user_sync_status.user_id%TYPE := owner;
    threshold integer := (rule->>'threshold')::integer;
    failures bigint;
    until timestamptz;
BEGIN
    IF threshold IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT coalesce(sum(s.consecutive_failures), 0),
            least(max(s.last_error_at), at) + make_interval(secs => (rule->>'open_s')::float8)
        INTO failures, until FROM user_sync_status s WHERE s.user_id = st_user;
    -- Wallets count their own failures, and a success of one does not reset another's: the user is only shut out when
    -- nothing of the user's succeeds.
    IF failures < threshold OR EXISTS (
        SELECT FROM (
            SELECT o.status::text AS status FROM sync_operations o
            WHERE o.user_id = op_user AND o.status::text IN ('completed', 'failed')
            ORDER BY o.created_at DESC, o.status::text LIMIT threshold) latest
        WHERE latest.status = 'completed')
    THEN
        RETURN NULL;
    END IF;
    IF until > at THEN
        RETURN until;
    END IF;
    -- Half open: one at a time. The caller holds the user's lock.
    IF EXISTS (SELECT FROM moonxd_wallets w
        WHERE w.user_id = owner AND w.lease_operation <> op AND w.lease_expires_at > at)
    THEN
        RETURN at + interval '5 seconds';
    END IF;
    RETURN NULL;
END $$;

-- The audit row of a sync that the limit rejects. It counts against nobody.
CREATE FUNCTION moonxd_refuse(ask jsonb, at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    op_id sync_operations.id%TYPE := ask->>'operation';
    op_user sync_operations.user_id%TYPE := ask->>'user_id';
    op_type sync_operations.type%TYPE := ask->>'sync_type';
    op_priority sync_operations.priority%TYPE := ask->>'priority';
    op_cancelled sync_operations.status%TYPE := 'cancelled';
    st_user user_sync_status.user_id%TYPE := ask->>'user_id';
    wallet text := ask->>'wallet';
    status user_sync_status%ROWTYPE;
BEGIN
    SELECT * INTO status FROM user_sync_status s WHERE s.user_id = st_user AND s.wallet_address = wallet FOR UPDATE;
    INSERT INTO sync_operations AS o (id, user_id, wallet_address, type, status, priority, completed_at, tokens_synced,
            chains_synced, retry_count, max_retries, worker_id, worker_version, error_message, metadata, created_at,
            updated_at)
        VALUES (op_id, op_user, wallet, op_type, op_cancelled, op_priority, at, 0, 0, 0,
            (ask->>'max_attempts')::integer - 1, ask->>'worker_id', ask->>'worker_version', ask->>'rejection_reason',
            ask->'metadata' || jsonb_build_object('queue', ask->'queue', 'jobId', ask->'job_id',
                'attempt', ask->'attempt', 'maxAttempts', ask->'max_attempts', 'fence', 0, 'countsForUser', false,
                'rejected', true), at, at)
        ON CONFLICT (id) DO UPDATE SET status = op_cancelled, completed_at = at,
            error_message = excluded.error_message, updated_at = at;
    -- Another program's trigger may have counted it: a sync that never ran is none.
    IF moonxd_is_watched() THEN
        SET CONSTRAINTS ALL IMMEDIATE;
        UPDATE user_sync_status s SET total_syncs = coalesce(status.total_syncs, 0),
            successful_syncs = coalesce(status.successful_syncs, 0), failed_syncs = coalesce(status.failed_syncs, 0),
            consecutive_failures = coalesce(status.consecutive_failures, 0), last_sync_at = status.last_sync_at
            WHERE s.user_id = st_user AND s.wallet_address = wallet;
    END IF;
    PERFORM moonxd_emit(ask->'rejection');
END $$;

CREATE OR REPLACE FUNCTION moonxd_admit(ask jsonb) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    op_id sync_operations.id%TYPE := ask->>'operation';
    op_user sync_operations.user_id%TYPE := ask->>'user_id';
    op_type sync_operations.type%TYPE := ask->>'sync_type';
    op_priority sync_operations.priority%TYPE := ask->>'priority';
    op_running sync_operations.status%TYPE := 'running';
    st_user user_sync_status.user_id%TYPE := ask->>'user_id';
    owner text := op_user::text;
    wallet text := ask->>'wallet';
    retries integer := (ask->>'attempt')::integer - 1;
    watched boolean := moonxd_is_watched();
    held moonxd_wallets%ROWTYPE;
    audit record;
    status user_sync_status%ROWTYPE;
    until timestamptz;
    at timestamptz;
BEGIN
    -- One admission of a user at a time: what is counted per user after this line stays true until we commit.
    PERFORM pg_advisory_xact_lock(hashtextextended('moonxd.user:' || owner, 0));
    SELECT * INTO held FROM moonxd_wallets w WHERE w.user_id = owner AND w.wallet_address = wallet FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO moonxd_wallets (user_id, wallet_address, fence) VALUES (owner, wallet, 0);
        held.fence := 0;
    END IF;
    at := clock_timestamp();
    SELECT o.status::text AS status, o.metadata::jsonb AS metadata INTO audit FROM sync_operations o WHERE o.id = op_id;
    IF audit.status = 'completed' THEN
        RETURN json_build_object('decision', 'committed', 'result', coalesce(audit.metadata->'result', '{}'));
    END IF;
    IF held.lease_operation <> (ask->>'operation')::uuid AND held.lease_expires_at > at THEN
        RETURN json_build_object('decision', 'busy', 'operation', held.lease_operation, 'until', held.lease_expires_at);
    END IF;
    until := moonxd_breaker_closes_at(owner, (ask->>'operation')::uuid, ask->'breaker', at);
    IF until IS NOT NULL THEN
        RETURN json_build_object('decision', 'open', 'retry_at', until);
    END IF;
    IF (ask->>'counted')::boolean AND NOT coalesce((audit.metadata->>'countsForUser')::boolean, false) THEN
        until := moonxd_window_frees_at(owner, ask->'window', at);
        IF until IS NOT NULL THEN
            IF (ask->'window'->>'reject')::boolean THEN
                PERFORM moonxd_refuse(ask, at);
            END IF;
            RETURN json_build_object('decision', 'limited', 'retry_at', until);
        END IF;
    END IF;
    UPDATE moonxd_wallets w SET fence = held.fence + 1, lease_operation = (ask->>'operation')::uuid,
        lease_expires_at = at + make_interval(secs => (ask->>'lease_s')::float8)
        WHERE w.user_id = owner AND w.wallet_address = wallet;
    IF watched THEN
        SELECT * INTO status FROM user_sync_status s
            WHERE s.user_id = st_user AND s.wallet_address = wallet FOR UPDATE;
    END IF;
    -- A row that had ended is a job that was requeued: its attempts start anew, and so does their count.
    INSERT INTO sync_operations AS o (id, user_id, wallet_address, type, status, priority, started_at, tokens_synced,
            chains_synced, retry_count, max_retries, worker_id, worker_version, metadata, created_at, updated_at)
        VALUES (op_id, op_user, wallet, op_type, op_running, op_priority, at, 0, 0, retries,
            (ask->>'max_attempts')::integer - 1, ask->>'worker_id', ask->>'worker_version',
            ask->'metadata' || jsonb_build_object('queue', ask->'queue', 'jobId', ask->'job_id',
                'attempt', ask->'attempt', 'maxAttempts', ask->'max_attempts', 'fence', held.fence + 1,
                'countsForUser', coalesce((ask->>'counted')::boolean, false)), at, at)
        ON CONFLICT (id) DO UPDATE SET status = excluded.status, priority = excluded.priority,
            retry_count = CASE WHEN audit.status IN ('failed', 'cancelled') THEN retries ELSE o.retry_count END,
            started_at = at, completed_at = NULL, duration_ms = NULL, max_retries = excluded.max_retries,
            worker_id = excluded.worker_id, worker_version = excluded.worker_version,
            -- One that the limit had rejected counts from now on.
            created_at = CASE WHEN audit.metadata ? 'rejected' THEN at ELSE o.created_at END,
            metadata = (coalesce(o.metadata::jsonb, '{}') - 'rejected') || excluded.metadata::jsonb, updated_at = at;
    IF watched THEN
        SET CONSTRAINTS ALL IMMEDIATE;
        UPDATE user_sync_status s SET total_syncs = coalesce(status.total_syncs, 0),
            successful_syncs = coalesce(status.successful_syncs, 0), failed_syncs = coalesce(status.failed_syncs, 0),
            consecutive_failures = coalesce(status.consecutive_failures, 0), last_sync_at = status.last_sync_at
            WHERE s.user_id = st_user AND s.wallet_address = wallet;
    END IF;
    PERFORM moonxd_emit(ask->'events');
    RETURN json_build_object('decision', 'admitted', 'fence', held.fence + 1, 'snapshot_at', held.snapshot_at,
        'previous', moonxd_holdings(owner, wallet),
        'seen', coalesce((SELECT json_agg(json_build_array(t.chain_id, t.token_address)
            ORDER BY t.chain_id, t.token_address) FROM moonxd_wallet_tokens t WHERE t.wallet_address = wallet), '[]'));
END $$;

-- Keeps the view of the breaker that readers find in the wallet's status row. `doc` is a commit or an ending; `rule`
-- null in it leaves the row alone.
CREATE FUNCTION moonxd_show_breaker(doc jsonb, standing text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    rule jsonb := doc->'breaker';
    st_user user_sync_status.user_id%TYPE := doc->'lease'->>'user_id';
    wallet text := doc->'lease'->>'wallet';
BEGIN
    IF standing <> 'ours' OR jsonb_typeof(rule) IS DISTINCT FROM 'object' THEN
        RETURN standing;
    END IF;
    UPDATE user_sync_status s SET sync_metadata = coalesce(s.sync_metadata::jsonb, '{}') || jsonb_build_object(
            'circuitBreaker', CASE
                WHEN s.consecutive_failures >= (rule->>'threshold')::integer AND s.last_error_at IS NOT NULL THEN
                    jsonb_build_object('state', 'open', 'failureCount', s.consecutive_failures, 'openUntil',
                        s.last_error_at::timestamptz + make_interval(secs => (rule->>'open_s')::float8))
                ELSE jsonb_build_object('state', 'closed', 'failureCount', coalesce(s.consecutive_failures, 0),
                    'openUntil', NULL) END)
        WHERE s.user_id = st_user AND s.wallet_address = wallet
            AND (s.consecutive_failures > 0 OR s.sync_metadata::jsonb ? 'circuitBreaker');
    RETURN standing;
END $$;

CREATE INDEX IF NOT EXISTS moonxd_history_age ON user_token_holdings_history (created_at);
CREATE INDEX IF NOT EXISTS moonxd_history_past ON user_token_holdings_history (wallet_address, created_at);

-- Snapshots of one wallet as rows of their holdings, newest first; at most `most` snapshots.
CREATE FUNCTION moonxd_history(wallet text, only_user text, since timestamptz, until timestamptz, most integer)
RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    h_user user_token_holdings_history.user_id%TYPE := only_user;
BEGIN
    RETURN coalesce((
        SELECT json_agg(snapshot.doc ORDER BY snapshot.taken DESC, snapshot.owner COLLATE "C") FROM (
            SELECT t.created_at AS taken, t.user_id::text AS owner, json_build_object(
                'user_id', t.user_id::text, 'taken_at', t.created_at::timestamptz, 'type', min(h.snapshot_type::text),
                'operation', min(h.sync_operation_id::text), 'holdings', json_agg(json_build_object(
                    'chain_id', h.chain_id, 'address', h.token_address, 'symbol', h.token_symbol, 'name', h.token_name,
                    'decimals', h.token_decimals,
                    'raw', CASE WHEN h.balance ~ '^[0-9]+$' THEN h.balance::numeric ELSE 0 END,
                    'amount', h.balance_formatted::text, 'price_usd', h.price_usd::text,
                    'value_usd', h.value_usd::text, 'logo', h.logo_url, 'is_spam', coalesce(h.is_spam, false),
                    'is_verified', coalesce(h.is_verified, false),
                    'said', CASE WHEN jsonb_typeof(h.alchemy_data::jsonb) = 'object' THEN h.alchemy_data::jsonb
                        ELSE '{}' END) ORDER BY h.chain_id, h.token_address)) AS doc
            FROM (
                SELECT DISTINCT d.user_id, d.created_at FROM user_token_holdings_history d
                WHERE d.wallet_address = wallet AND (only_user IS NULL OR d.user_id = h_user)
                    AND (since IS NULL OR d.created_at >= since) AND (until IS NULL OR d.created_at < until)
                ORDER BY d.created_at DESC, d.user_id LIMIT most) t
            JOIN user_token_holdings_history h ON h.user_id = t.user_id AND h.wallet_address = wallet
                AND h.created_at = t.created_at
            GROUP BY t.user_id, t.created_at) snapshot), '[]');
END $$;

-- Removes at most `most` rows of each table that are older than `keep` says: {history_s, operations_s, outbox_s,
-- outbox_rows, unpublished}. Rows that somebody works on are skipped.
CREATE FUNCTION moonxd_prune(keep jsonb, most integer) RETURNS json LANGUAGE plpgsql AS $$
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
        ORDER BY d.id LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS outbox = ROW_COUNT;
    RETURN json_build_object('history', history, 'operations', operations, 'outbox', outbox);
END $$;
