-- One function per step of a job's life, so that each step is one round trip and reads after it has locked.
-- Documents travel as JSON. Column types are taken from the tables (%TYPE): an older database may have uuid, text or
-- enum columns where ours are text. Times are clock_timestamp(): now() stands still while a lock is waited for.

-- A user id in the form in which this database stores it (a uuid column folds case).
CREATE FUNCTION moonxd_owner(given text) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    stored sync_operations.user_id%TYPE := given;
BEGIN
    RETURN stored::text;
END $$;

CREATE FUNCTION moonxd_holdings(owner text, wallet text) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    stored user_token_holdings.user_id%TYPE := owner;
BEGIN
    RETURN coalesce((
        -- What an earlier program left in a column and is not of its kind reads as 0 or as nothing: the next sync sees
        -- a difference and overwrites it.
        SELECT json_agg(json_build_object('chain_id', h.chain_id, 'address', h.token_address,
            'symbol', h.token_symbol, 'name', h.token_name, 'decimals', h.token_decimals,
            'raw', CASE WHEN h.balance ~ '^[0-9]+$' THEN h.balance::numeric ELSE 0 END,
            'amount', h.balance_formatted::text, 'price_usd', h.price_usd::text, 'value_usd', h.value_usd::text,
            'logo', h.logo_url, 'is_spam', coalesce(h.is_spam, false), 'is_verified', coalesce(h.is_verified, false),
            'said', CASE WHEN jsonb_typeof(h.alchemy_data::jsonb) = 'object' THEN h.alchemy_data::jsonb ELSE '{}' END)
            ORDER BY h.chain_id, h.token_address)
        FROM user_token_holdings h WHERE h.user_id = stored AND h.wallet_address = wallet), '[]');
END $$;

-- Event bodies are bytes, so they come in base64. An id that stands already is a redelivery's repetition.
CREATE FUNCTION moonxd_emit(events jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO moonxd_outbox (event_id, event_type, topic, event_key, wallet_address, body)
    SELECT (e->>'id')::uuid, e->>'type', e->>'topic', e->>'key', e->>'wallet',
        convert_from(decode(e->>'body', 'base64'), 'UTF8')
    FROM jsonb_array_elements(events) WITH ORDINALITY AS list (e, n) ORDER BY n
    ON CONFLICT (event_id) DO NOTHING;
$$;

-- Whether another program's trigger watches sync_operations: it may count syncs too, and we count each once.
CREATE FUNCTION moonxd_is_watched() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM pg_trigger
        WHERE tgrelid = 'sync_operations'::regclass AND NOT tgisinternal AND tgenabled <> 'D');
$$;

CREATE FUNCTION moonxd_admit(ask jsonb) RETURNS json LANGUAGE plpgsql AS $$
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
                'attempt', ask->'attempt', 'maxAttempts', ask->'max_attempts', 'fence', held.fence + 1), at, at)
        ON CONFLICT (id) DO UPDATE SET status = excluded.status, priority = excluded.priority,
            retry_count = CASE WHEN audit.status IN ('failed', 'cancelled') THEN retries ELSE o.retry_count END,
            started_at = at, completed_at = NULL, duration_ms = NULL, max_retries = excluded.max_retries,
            worker_id = excluded.worker_id, worker_version = excluded.worker_version,
            metadata = coalesce(o.metadata::jsonb, '{}') || excluded.metadata::jsonb, updated_at = at;
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

-- Ends the audit row and keeps the wallet's counters: every operation counts once, by its latest outcome.
-- `ending` is completed|retrying|failed|cancelled|released; `doc` has duration_ms, error and, for completed,
-- sync_type, tokens_count, chains_synced, total_value_usd, metadata, result. The caller holds the wallet's row.
CREATE FUNCTION moonxd_end(op uuid, owner text, wallet text, ending text, doc jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    op_id sync_operations.id%TYPE := op::text;
    op_status sync_operations.status%TYPE :=
        CASE WHEN ending IN ('retrying', 'released') THEN 'pending' ELSE ending END;
    st_user user_sync_status.user_id%TYPE := owner;
    st_operation user_sync_status.last_sync_operation_id%TYPE;
    st_status user_sync_status.sync_status%TYPE;
    st_type user_sync_status.sync_type%TYPE;
    duration bigint := (doc->>'duration_ms')::bigint;
    at timestamptz := clock_timestamp();
    done boolean := ending = 'completed';
    failed boolean := ending = 'failed';
    status user_sync_status%ROWTYPE;
    counted text;
    extra jsonb := coalesce(doc->'metadata', '{}');
BEGIN
    SELECT * INTO status FROM user_sync_status s WHERE s.user_id = st_user AND s.wallet_address = wallet FOR UPDATE;
    SELECT o.metadata::jsonb->>'counted' INTO counted FROM sync_operations o WHERE o.id = op_id;
    IF done OR failed THEN
        extra := extra || jsonb_build_object('counted', ending);
    END IF;
    IF done THEN
        extra := extra || jsonb_build_object('result', doc->'result');
    END IF;
    UPDATE sync_operations o SET status = op_status, duration_ms = duration,
        completed_at = CASE WHEN ending IN ('retrying', 'released') THEN NULL ELSE at END,
        retry_count = coalesce(o.retry_count, 0) + (ending = 'retrying')::integer,
        error_message = CASE WHEN done THEN NULL ELSE coalesce(doc->>'error', o.error_message) END,
        tokens_synced = coalesce((doc->>'tokens_count')::integer, o.tokens_synced),
        chains_synced = coalesce((doc->>'chains_synced')::integer, o.chains_synced),
        total_value_usd = coalesce((doc->>'total_value_usd')::numeric, o.total_value_usd),
        metadata = coalesce(o.metadata::jsonb, '{}') || extra, updated_at = at
        WHERE o.id = op_id;
    IF moonxd_is_watched() THEN
        SET CONSTRAINTS ALL IMMEDIATE;
    ELSIF ending = 'released' THEN
        RETURN;
    END IF;
    -- Absolute values, computed from what stood there before the audit row changed: right with any trigger or none.
    st_operation := CASE WHEN done THEN op::text ELSE status.last_sync_operation_id::text END;
    st_type := CASE WHEN done THEN doc->>'sync_type' ELSE status.sync_type::text END;
    st_status := CASE WHEN ending IN ('retrying', 'released') THEN status.sync_status::text ELSE ending END;
    INSERT INTO user_sync_status AS s (user_id, wallet_address, last_sync_at, last_sync_operation_id, sync_type,
            sync_status, tokens_count, chains_count, total_value_usd, sync_duration_ms, total_syncs, successful_syncs,
            failed_syncs, avg_sync_duration_ms, last_error_message, last_error_at, consecutive_failures, created_at,
            updated_at)
        VALUES (st_user, wallet,
            CASE WHEN done THEN at ELSE status.last_sync_at END, st_operation, st_type, st_status,
            coalesce((doc->>'tokens_count')::integer, status.tokens_count, 0),
            coalesce((doc->>'chains_synced')::integer, status.chains_count, 0),
            coalesce((doc->>'total_value_usd')::numeric, status.total_value_usd),
            CASE WHEN done THEN duration ELSE status.sync_duration_ms END,
            coalesce(status.total_syncs, 0) + ((done OR failed) AND counted IS NULL)::integer,
            coalesce(status.successful_syncs, 0) + done::integer,
            coalesce(status.failed_syncs, 0) + failed::integer
                - ((done OR failed) AND counted IS NOT DISTINCT FROM 'failed')::integer,
            CASE WHEN done THEN round((coalesce(status.avg_sync_duration_ms, 0)::numeric
                * coalesce(status.successful_syncs, 0) + duration) / (coalesce(status.successful_syncs, 0) + 1))
                ELSE status.avg_sync_duration_ms END,
            CASE WHEN done THEN NULL ELSE coalesce(doc->>'error', status.last_error_message) END,
            CASE WHEN doc->>'error' IS NOT NULL AND ending <> 'released' THEN at ELSE status.last_error_at END,
            CASE WHEN done THEN 0 ELSE coalesce(status.consecutive_failures, 0) + failed::integer END,
            at, at)
        ON CONFLICT (user_id, wallet_address) DO UPDATE SET last_sync_at = excluded.last_sync_at,
            last_sync_operation_id = excluded.last_sync_operation_id, sync_type = excluded.sync_type,
            sync_status = excluded.sync_status, tokens_count = excluded.tokens_count,
            chains_count = excluded.chains_count, total_value_usd = excluded.total_value_usd,
            sync_duration_ms = excluded.sync_duration_ms, total_syncs = excluded.total_syncs,
            successful_syncs = excluded.successful_syncs, failed_syncs = excluded.failed_syncs,
            avg_sync_duration_ms = excluded.avg_sync_duration_ms, last_error_message = excluded.last_error_message,
            last_error_at = excluded.last_error_at, consecutive_failures = excluded.consecutive_failures,
            updated_at = excluded.updated_at;
END $$;

-- Locks the wallet and answers 'ours', 'done' (this very attempt has ended so before) or 'lost'.
CREATE FUNCTION moonxd_hold(lease jsonb, ended text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    op_id sync_operations.id%TYPE := lease->>'operation';
    held record;
BEGIN
    SELECT w.fence, w.lease_operation INTO held FROM moonxd_wallets w
        WHERE w.user_id = moonxd_owner(lease->>'user_id') AND w.wallet_address = lease->>'wallet' FOR UPDATE;
    IF held.fence = (lease->>'fence')::bigint AND held.lease_operation = (lease->>'operation')::uuid THEN
        RETURN 'ours';
    END IF;
    IF EXISTS (SELECT FROM sync_operations o WHERE o.id = op_id AND o.status::text = ended
        AND o.metadata::jsonb->'fence' = lease->'fence')
    THEN
        RETURN 'done';
    END IF;
    RETURN 'lost';
END $$;

CREATE FUNCTION moonxd_free(op uuid, owner text, wallet text) RETURNS void LANGUAGE sql AS $$
    UPDATE moonxd_wallets SET lease_operation = NULL, lease_expires_at = NULL
    WHERE user_id = owner AND wallet_address = wallet AND lease_operation = op;
$$;

CREATE FUNCTION moonxd_close(doc jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    lease jsonb := doc->'lease';
    op uuid := lease->>'operation';
    owner text := moonxd_owner(lease->>'user_id');
    ending text := doc->>'status';
    standing text := moonxd_hold(lease, CASE WHEN ending IN ('retrying', 'released') THEN 'pending' ELSE ending END);
BEGIN
    IF standing = 'ours' THEN
        PERFORM moonxd_end(op, owner, lease->>'wallet', ending, doc);
        PERFORM moonxd_emit(doc->'events');
        PERFORM moonxd_free(op, owner, lease->>'wallet');
    END IF;
    RETURN standing;
END $$;

CREATE FUNCTION moonxd_commit(doc jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    lease jsonb := doc->'lease';
    op uuid := lease->>'operation';
    owner text := moonxd_owner(lease->>'user_id');
    wallet text := lease->>'wallet';
    h_user user_token_holdings.user_id%TYPE := owner;
    s_user user_token_holdings_history.user_id%TYPE := owner;
    s_operation user_token_holdings_history.sync_operation_id%TYPE := op::text;
    s_type user_token_holdings_history.snapshot_type%TYPE := doc->>'snapshot_type';
    standing text := moonxd_hold(lease, 'completed');
    at timestamptz := clock_timestamp();
BEGIN
    IF standing <> 'ours' THEN
        RETURN standing;
    END IF;
    DELETE FROM user_token_holdings h USING jsonb_array_elements(doc->'removed') r
        WHERE h.user_id = h_user AND h.wallet_address = wallet
            AND h.chain_id = (r->>0)::integer AND h.token_address = r->>1;
    INSERT INTO user_token_holdings AS h (user_id, wallet_address, chain_id, token_address, token_symbol, token_name,
            token_decimals, balance, balance_formatted, price_usd, value_usd, logo_url, is_spam, is_verified,
            last_updated, alchemy_data, created_at, updated_at)
        SELECT h_user, wallet, c.chain_id, c.address, c.symbol, c.name, c.decimals, c.raw, c.amount, c.price_usd,
            c.value_usd, c.logo, c.is_spam, c.is_verified, at, c.said, at, at
        FROM jsonb_to_recordset(doc->'changed') AS c (chain_id integer, address text, symbol text, name text,
            decimals integer, raw text, amount numeric, price_usd numeric, value_usd numeric, logo text,
            is_spam boolean, is_verified boolean, said jsonb)
        ON CONFLICT (user_id, wallet_address, chain_id, token_address) DO UPDATE SET
            token_symbol = excluded.token_symbol, token_name = excluded.token_name,
            token_decimals = excluded.token_decimals, balance = excluded.balance,
            balance_formatted = excluded.balance_formatted, price_usd = excluded.price_usd,
            value_usd = excluded.value_usd, logo_url = excluded.logo_url, is_spam = excluded.is_spam,
            is_verified = excluded.is_verified, last_updated = excluded.last_updated,
            alchemy_data = excluded.alchemy_data, updated_at = excluded.updated_at;
    UPDATE user_token_holdings h SET last_updated = at
        WHERE h.user_id = h_user AND h.wallet_address = wallet AND h.last_updated IS DISTINCT FROM at
            AND h.chain_id IN (SELECT x::integer FROM jsonb_array_elements_text(doc->'chains') x);
    INSERT INTO moonxd_wallet_tokens (wallet_address, chain_id, token_address)
        SELECT wallet, t.chain_id, t.address FROM (
            SELECT (c->>'chain_id')::integer AS chain_id, c->>'address' AS address
                FROM jsonb_array_elements(doc->'changed') c
            UNION SELECT (r->>0)::integer, r->>1 FROM jsonb_array_elements(doc->'removed') r) t
        -- In one order for everybody: two users of one wallet must not wait for each other in a circle.
        ORDER BY t.chain_id, t.address ON CONFLICT DO NOTHING;
    IF jsonb_typeof(doc->'snapshot') = 'array' THEN
        INSERT INTO user_token_holdings_history (user_id, wallet_address, chain_id, token_address, token_symbol,
                token_name, token_decimals, balance, balance_formatted, price_usd, value_usd, logo_url, is_spam,
                is_verified, last_updated, alchemy_data, created_at, updated_at, snapshot_type, sync_operation_id)
            SELECT s_user, wallet, c.chain_id, c.address, c.symbol, c.name, c.decimals, c.raw, c.amount, c.price_usd,
                c.value_usd, c.logo, c.is_spam, c.is_verified, at, c.said, at, at, s_type, s_operation
            FROM jsonb_to_recordset(doc->'snapshot') AS c (chain_id integer, address text, symbol text, name text,
                decimals integer, raw text, amount numeric, price_usd numeric, value_usd numeric, logo text,
                is_spam boolean, is_verified boolean, said jsonb);
        UPDATE moonxd_wallets w SET snapshot_at = at WHERE w.user_id = owner AND w.wallet_address = wallet;
    END IF;
    PERFORM moonxd_end(op, owner, wallet, 'completed', doc);
    PERFORM moonxd_emit(doc->'events');
    PERFORM moonxd_free(op, owner, wallet);
    RETURN standing;
END $$;

-- Prolongs leases given as [{operation, user_id, wallet, fence}]; answers the operations whose lease is ours still.
CREATE FUNCTION moonxd_renew(leases jsonb, lease_s float8) RETURNS SETOF uuid LANGUAGE sql AS $$
    UPDATE moonxd_wallets w SET lease_expires_at = clock_timestamp() + make_interval(secs => lease_s)
    FROM jsonb_to_recordset(leases) AS l (operation uuid, user_id text, wallet text, fence bigint)
    WHERE w.user_id = moonxd_owner(l.user_id) AND w.wallet_address = l.wallet AND w.fence = l.fence
        AND w.lease_operation = l.operation
    RETURNING w.lease_operation;
$$;

-- Closes up to `most` running rows that no live lease stands behind; a wallet somebody is working on is skipped.
CREATE FUNCTION moonxd_sweep(grace_s float8, foreign_s float8, reason text, most integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
    ended timestamptz := at - make_interval(secs => grace_s);
    orphan record;
    op_id sync_operations.id%TYPE;
    held moonxd_wallets%ROWTYPE;
    closed integer := 0;
BEGIN
    FOR orphan IN
        SELECT o.id::text::uuid AS op, o.user_id::text AS owner, o.wallet_address::text AS wallet
        FROM sync_operations o
        LEFT JOIN moonxd_wallets w ON w.user_id = o.user_id::text AND w.wallet_address = o.wallet_address
            AND w.lease_operation::text = o.id::text
        WHERE o.status = 'running' AND coalesce(w.lease_expires_at, o.updated_at) <= ended
            AND (o.metadata::jsonb ? 'fence' OR o.updated_at <= ended - make_interval(secs => foreign_s))
        LIMIT most
    LOOP
        PERFORM FROM moonxd_wallets w WHERE w.user_id = orphan.owner AND w.wallet_address = orphan.wallet;
        IF FOUND THEN
            SELECT * INTO held FROM moonxd_wallets w
                WHERE w.user_id = orphan.owner AND w.wallet_address = orphan.wallet FOR UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND OR (held.lease_operation = orphan.op AND held.lease_expires_at > ended);
        END IF;
        -- Looked at again now that nobody else can end it.
        op_id := orphan.op::text;
        PERFORM FROM sync_operations o WHERE o.id = op_id AND o.status = 'running';
        CONTINUE WHEN NOT FOUND;
        PERFORM moonxd_end(orphan.op, orphan.owner, orphan.wallet, 'failed', jsonb_build_object('error', reason));
        PERFORM moonxd_free(orphan.op, orphan.owner, orphan.wallet);
        closed := closed + 1;
    END LOOP;
    RETURN closed;
END $$;

-- Every user's view of one wallet, or one user's.
CREATE FUNCTION moonxd_portfolio(wallet text, only_user text) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    owners text[];
BEGIN
    IF only_user IS NOT NULL THEN
        owners := ARRAY[moonxd_owner(only_user)];
    ELSE
        owners := ARRAY(
            SELECT h.user_id::text FROM user_token_holdings h WHERE h.wallet_address = wallet
            UNION SELECT s.user_id::text FROM user_sync_status s WHERE s.wallet_address = wallet);
    END IF;
    RETURN coalesce((
        SELECT json_agg(json_build_object('user_id', u.owner, 'holdings', v.holdings,
            'last_sync_at', s.last_sync_at::timestamptz, 'sync_status', s.sync_status::text,
            'last_error', s.last_error_message) ORDER BY u.owner COLLATE "C")
        FROM unnest(owners) AS u (owner)
        CROSS JOIN LATERAL (SELECT moonxd_holdings(u.owner, wallet) AS holdings) v
        LEFT JOIN user_sync_status s ON s.user_id::text = u.owner AND s.wallet_address = wallet
        WHERE s.wallet_address IS NOT NULL OR v.holdings::text <> '[]'), '[]');
END $$;

-- Committed events with position > after, in order; gives positions first to those that have none yet.
CREATE FUNCTION moonxd_events(after bigint, most integer) RETURNS SETOF moonxd_outbox LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM moonxd_outbox o WHERE o.position IS NULL) THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('moonxd.outbox', 0));
        UPDATE moonxd_outbox o SET position = fresh.position
            FROM (SELECT i.id, nextval('moonxd_outbox_position') AS position
                FROM (SELECT f.id FROM moonxd_outbox f WHERE f.position IS NULL ORDER BY f.id LIMIT 1000) i) fresh
            WHERE o.id = fresh.id;
    END IF;
    RETURN QUERY SELECT * FROM moonxd_outbox o WHERE o.position > after ORDER BY o.position LIMIT most;
END $$;
