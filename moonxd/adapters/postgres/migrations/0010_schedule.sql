-- Which wallets are synced periodically and when each is due. Whether and how often stays in user_sync_status, where
-- other programs set it.

CREATE TABLE moonxd_wallet_schedule (
    user_id text NOT NULL,
    wallet_address text NOT NULL,
    -- 0: rich, served first.
    rank smallint NOT NULL DEFAULT 1,
    -- The slot; whole seconds. The job's id is made of it.
    due_at timestamptz NOT NULL,
    -- When to look at the row: the slot, later while somebody holds it, NULL while the user is away.
    look_at timestamptz,
    is_forced boolean NOT NULL DEFAULT false,
    queued_at timestamptz,
    last_active_at timestamptz NOT NULL,
    timezone text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, wallet_address)
) WITH (fillfactor = 70);
CREATE INDEX moonxd_schedule_due ON moonxd_wallet_schedule (rank, look_at) WHERE look_at IS NOT NULL;
CREATE INDEX moonxd_schedule_active ON moonxd_wallet_schedule (last_active_at);

-- One row: a pause holds for every daemon and survives restarts.
CREATE TABLE moonxd_schedule_state (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    is_paused boolean NOT NULL DEFAULT false,
    reason text,
    changed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO moonxd_schedule_state DEFAULT VALUES;

CREATE FUNCTION moonxd_epoch(at timestamptz) RETURNS float8 LANGUAGE sql STABLE AS $$
    SELECT extract(epoch FROM at)::float8;
$$;

-- Up to `most` due wallets, rich ones first; each is held by its look_at for `hold_s` and seen by nobody else until
-- then. Its slot stays, so that whoever comes after a crash adds the same job.
-- Without seqscan: statistics of a table that was just filled make the planner read all of it for the first page.
CREATE FUNCTION moonxd_schedule_take(most integer, hold_s float8, even_paused boolean) RETURNS json
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    at timestamptz := clock_timestamp();
    paused boolean := (SELECT s.is_paused FROM moonxd_schedule_state s);
    found json[] := '{}';
    page json[];
BEGIN
    IF NOT paused OR even_paused THEN
        FOR level IN 0..1 LOOP
            WITH due AS MATERIALIZED (
                SELECT d.user_id, d.wallet_address FROM moonxd_wallet_schedule d
                WHERE d.rank = level AND d.look_at <= at ORDER BY d.look_at
                LIMIT most - cardinality(found) FOR UPDATE SKIP LOCKED
            ), held AS (
                UPDATE moonxd_wallet_schedule w SET look_at = at + make_interval(secs => hold_s) FROM due d
                WHERE w.user_id = d.user_id AND w.wallet_address = d.wallet_address RETURNING w.*
            )
            SELECT array_agg(json_build_object('user_id', w.user_id, 'wallet', w.wallet_address,
                'due_at', extract(epoch FROM w.due_at)::bigint, 'last_active_at', moonxd_epoch(w.last_active_at),
                'is_forced', w.is_forced, 'is_enabled', coalesce(s.is_sync_enabled, true),
                'queued_at', moonxd_epoch(w.queued_at), 'ended_at', moonxd_epoch(s.updated_at),
                'last_sync_at', moonxd_epoch(s.last_sync_at), 'total_value_usd', s.total_value_usd::text,
                'interval_minutes', s.auto_sync_interval_minutes, 'timezone', w.timezone))
            INTO page FROM held w
            LEFT JOIN LATERAL (
                SELECT u.is_sync_enabled, u.updated_at::timestamptz, u.last_sync_at::timestamptz, u.total_value_usd,
                    nullif(greatest(u.auto_sync_interval_minutes, 0), 0) AS auto_sync_interval_minutes
                FROM user_sync_status u WHERE u.wallet_address = w.wallet_address AND u.user_id::text = w.user_id
                LIMIT 1) s ON true;
            found := found || coalesce(page, '{}');
        END LOOP;
    END IF;
    RETURN json_build_object('at', moonxd_epoch(at), 'is_paused', paused, 'wallets', array_to_json(found));
END $$;

-- The look_at of a user who came back meanwhile is left alone: it ends the hold.
CREATE FUNCTION moonxd_schedule_mark(marks jsonb) RETURNS void LANGUAGE sql AS $$
    UPDATE moonxd_wallet_schedule w SET due_at = to_timestamp(m.next_due_at), rank = m.rank, is_forced = false,
        queued_at = coalesce(to_timestamp(m.queued_at), w.queued_at),
        look_at = CASE WHEN m.look_at IS NULL AND w.last_active_at > to_timestamp(m.active_at + 0.001) THEN w.look_at
            ELSE to_timestamp(m.look_at) END
    FROM jsonb_to_recordset(marks) AS m (user_id text, wallet text, due_at float8, next_due_at float8, look_at float8,
        active_at float8, rank smallint, queued_at float8)
    WHERE w.user_id = m.user_id AND w.wallet_address = m.wallet AND w.due_at = to_timestamp(m.due_at);
$$;

-- Sets the wallet's own settings where other programs look for them; NULL leaves what is there, 0 minutes is none.
CREATE FUNCTION moonxd_schedule_settings(owner text, wallet text, minutes integer, enabled boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    st_user user_sync_status.user_id%TYPE := owner;
BEGIN
    -- updated_at is left alone: it says when a sync ended.
    INSERT INTO user_sync_status AS s (user_id, wallet_address, auto_sync_interval_minutes, is_sync_enabled)
        VALUES (st_user, wallet, nullif(minutes, 0), coalesce(enabled, true))
        ON CONFLICT (user_id, wallet_address) DO UPDATE SET
            auto_sync_interval_minutes = CASE WHEN minutes IS NULL THEN s.auto_sync_interval_minutes
                ELSE nullif(minutes, 0) END,
            is_sync_enabled = coalesce(enabled, s.is_sync_enabled);
END $$;

-- Adds wallets, or notes that their users are active; how many were new. In one order for everybody.
CREATE FUNCTION moonxd_schedule_register(entries jsonb) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    added integer;
BEGIN
    WITH put AS (
        INSERT INTO moonxd_wallet_schedule AS w (user_id, wallet_address, due_at, look_at, last_active_at, timezone)
        SELECT moonxd_owner(e.user_id), e.wallet, to_timestamp(e.due_at), to_timestamp(e.due_at),
            to_timestamp(e.active_at), nullif(e.timezone, '')
        FROM jsonb_to_recordset(entries) AS e (user_id text, wallet text, due_at float8, active_at float8,
            timezone text) ORDER BY 1, 2
        ON CONFLICT (user_id, wallet_address) DO UPDATE SET
            timezone = coalesce(excluded.timezone, w.timezone),
            last_active_at = greatest(w.last_active_at, excluded.last_active_at)
        RETURNING w.xmax = 0 AS is_new
    )
    SELECT count(*) FILTER (WHERE is_new) INTO added FROM put;
    UPDATE moonxd_wallet_schedule w SET due_at = to_timestamp(e.revive_at), look_at = to_timestamp(e.revive_at)
        FROM jsonb_to_recordset(entries) AS e (user_id text, wallet text, revive_at float8)
        WHERE w.look_at IS NULL AND w.user_id = moonxd_owner(e.user_id) AND w.wallet_address = e.wallet;
    PERFORM moonxd_schedule_settings(moonxd_owner(e.user_id), e.wallet, e.interval_minutes, NULL)
        FROM jsonb_to_recordset(entries) AS e (user_id text, wallet text, interval_minutes integer)
        WHERE e.interval_minutes IS NOT NULL;
    RETURN added;
END $$;

-- Changes one wallet of a user, or all of them; how many there are.
CREATE FUNCTION moonxd_schedule_change(owner text, wallet text, doc jsonb) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    stored text := moonxd_owner(owner);
    active timestamptz := to_timestamp((doc->>'active_at')::float8);
    forced timestamptz := to_timestamp((doc->>'force_at')::float8);
    changed integer;
BEGIN
    UPDATE moonxd_wallet_schedule w SET
        timezone = CASE WHEN doc->>'timezone' IS NULL THEN w.timezone ELSE nullif(doc->>'timezone', '') END,
        last_active_at = greatest(w.last_active_at, active),
        is_forced = w.is_forced OR forced IS NOT NULL,
        due_at = coalesce(forced, CASE WHEN w.look_at IS NULL AND active IS NOT NULL THEN active END, w.due_at),
        -- What is changed is looked at again at its slot: whoever was switched on need not wait for the next look.
        look_at = coalesce(forced, CASE WHEN w.look_at IS NULL THEN active
            WHEN (doc->>'is_enabled')::boolean THEN least(w.look_at, greatest(w.due_at, clock_timestamp()))
            ELSE w.look_at END)
        WHERE w.user_id = stored AND (wallet IS NULL OR w.wallet_address = wallet);
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF doc->>'interval_minutes' IS NOT NULL OR doc->>'is_enabled' IS NOT NULL THEN
        PERFORM moonxd_schedule_settings(stored, w.wallet_address, (doc->>'interval_minutes')::integer,
            (doc->>'is_enabled')::boolean)
            FROM moonxd_wallet_schedule w WHERE w.user_id = stored AND (wallet IS NULL OR w.wallet_address = wallet);
    END IF;
    RETURN changed;
END $$;

-- The schedule in numbers. Wallets in a time zone of their own are measured by the common target.
CREATE FUNCTION moonxd_schedule_figures(targets jsonb) RETURNS json LANGUAGE plpgsql STABLE AS $$
DECLARE
    at timestamptz := clock_timestamp();
    active timestamptz := at - make_interval(secs => (targets->>'active_s')::float8);
    stale timestamptz := at - make_interval(secs => (targets->>'stale_s')::float8);
    fresh timestamptz := at - make_interval(secs => (targets->>'fresh_s')::float8);
    own interval := make_interval(mins => 1) * (targets->>'fresh_intervals')::float8;
    counted record;
    living record;
BEGIN
    SELECT count(*) AS users, coalesce(sum(n), 0) AS wallets, count(*) FILTER (WHERE a > 0) AS active_users,
        coalesce(sum(a), 0) AS active_wallets INTO counted
        FROM (SELECT count(*) AS n, count(*) FILTER (WHERE w.last_active_at >= active) AS a
            FROM moonxd_wallet_schedule w GROUP BY w.user_id) u;
    SELECT count(*) FILTER (WHERE s.last_sync_at >= coalesce(at - s.minutes * own, fresh)) AS fresh,
        count(*) FILTER (WHERE s.last_sync_at IS NULL OR s.last_sync_at < stale) AS stale INTO living
        FROM moonxd_wallet_schedule w
        LEFT JOIN (SELECT u.user_id::text AS user_id, u.wallet_address, u.last_sync_at::timestamptz AS last_sync_at,
                nullif(u.auto_sync_interval_minutes, 0) AS minutes
            FROM user_sync_status u) s ON s.user_id = w.user_id AND s.wallet_address = w.wallet_address
        WHERE w.last_active_at >= active;
    RETURN json_build_object('at', moonxd_epoch(at), 'wallets', counted.wallets, 'users', counted.users,
        'active_wallets', counted.active_wallets, 'active_users', counted.active_users, 'fresh', living.fresh,
        'stale', living.stale,
        'due', (SELECT count(*) FROM moonxd_wallet_schedule w WHERE w.rank IN (0, 1) AND w.look_at <= at),
        'next_due_at', moonxd_epoch((SELECT min(w.look_at) FROM moonxd_wallet_schedule w WHERE w.look_at IS NOT NULL)),
        'is_paused', (SELECT s.is_paused FROM moonxd_schedule_state s),
        'paused_reason', (SELECT s.reason FROM moonxd_schedule_state s WHERE s.is_paused));
END $$;
