-- What the last portfolio.updated of a wallet told: prices alone are told again once they moved far enough from there.
ALTER TABLE moonxd_wallets ADD COLUMN told_value_usd numeric;

CREATE FUNCTION moonxd_told_value(given_user text, wallet text) RETURNS numeric LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT w.told_value_usd FROM moonxd_wallets w
        WHERE w.user_id = moonxd_owner(given_user) AND w.wallet_address = wallet);
END $$;

-- Notes what is told beside a commit; `standing` is the commit's own answer.
CREATE FUNCTION moonxd_note_told(given_user text, wallet text, told numeric, standing text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF standing = 'ours' THEN
        UPDATE moonxd_wallets w SET told_value_usd = told
            WHERE w.user_id = moonxd_owner(given_user) AND w.wallet_address = wallet;
    END IF;
    RETURN standing;
END $$;

-- Running rows that no live lease stands behind. Who closes one looks again, under the wallet's lock.
CREATE FUNCTION moonxd_orphans(grace_s float8, foreign_s float8, most integer)
RETURNS TABLE (operation uuid, owner text, wallet text, fence bigint, attempt integer) LANGUAGE sql STABLE AS $$
    SELECT o.id::text::uuid, o.user_id::text, o.wallet_address::text,
        coalesce((o.metadata::jsonb->>'fence')::bigint, 0), (o.metadata::jsonb->>'attempt')::integer
    FROM sync_operations o
    LEFT JOIN moonxd_wallets w ON w.user_id = o.user_id::text AND w.wallet_address = o.wallet_address
        AND w.lease_operation::text = o.id::text
    WHERE o.status = 'running'
        AND coalesce(w.lease_expires_at, o.updated_at) <= clock_timestamp() - make_interval(secs => grace_s)
        AND (o.metadata::jsonb ? 'fence'
            OR o.updated_at <= clock_timestamp() - make_interval(secs => grace_s + foreign_s))
    LIMIT most;
$$;

-- Instead of moonxd_sweep, which stays for daemons of the version before that still run.
-- Closes those of the orphans that still are some, each with its events: [{operation, user_id, wallet, events}].
CREATE FUNCTION moonxd_close_orphans(orphans jsonb, grace_s float8, reason text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    ended timestamptz := clock_timestamp() - make_interval(secs => grace_s);
    orphan record;
    op_id sync_operations.id%TYPE;
    held moonxd_wallets%ROWTYPE;
    closed integer := 0;
BEGIN
    FOR orphan IN SELECT * FROM jsonb_to_recordset(orphans) AS x (operation uuid, user_id text, wallet text, events jsonb)
    LOOP
        PERFORM FROM moonxd_wallets w WHERE w.user_id = orphan.user_id AND w.wallet_address = orphan.wallet;
        IF FOUND THEN
            SELECT * INTO held FROM moonxd_wallets w
                WHERE w.user_id = orphan.user_id AND w.wallet_address = orphan.wallet FOR UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND OR (held.lease_operation = orphan.operation AND held.lease_expires_at > ended);
        END IF;
        -- Looked at again now that nobody else can end it.
        op_id := orphan.operation::text;
        PERFORM FROM sync_operations o WHERE o.id = op_id AND o.status = 'running';
        CONTINUE WHEN NOT FOUND;
        PERFORM moonxd_end(orphan.operation, orphan.user_id, orphan.wallet, 'failed',
            jsonb_build_object('error', reason));
        PERFORM moonxd_emit(orphan.events);
        PERFORM moonxd_free(orphan.operation, orphan.user_id, orphan.wallet);
        closed := closed + 1;
    END LOOP;
    RETURN closed;
END $$;

-- Notes that jobs will not run any more: [{ask, reason}]. Operations that have ended stay as they are.
CREATE FUNCTION moonxd_withdraw(jobs jsonb) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    job record;
    op_id sync_operations.id%TYPE;
    owner text;
    at timestamptz;
    done integer := 0;
BEGIN
    -- In one order for everybody.
    FOR job IN SELECT x.ask, x.reason FROM jsonb_to_recordset(jobs) AS x (ask jsonb, reason text)
        ORDER BY x.ask->>'user_id', x.ask->>'wallet'
    LOOP
        owner := moonxd_owner(job.ask->>'user_id');
        op_id := job.ask->>'operation';
        PERFORM FROM moonxd_wallets w WHERE w.user_id = owner AND w.wallet_address = job.ask->>'wallet' FOR UPDATE;
        PERFORM FROM sync_operations o
            WHERE o.id = op_id AND o.status::text IN ('completed', 'failed', 'cancelled') FOR UPDATE;
        CONTINUE WHEN FOUND;
        at := clock_timestamp();
        PERFORM moonxd_refuse(job.ask || jsonb_build_object('rejection', job.ask->'events',
            'rejection_reason', job.reason), at);
        -- It was not the limit that said so.
        UPDATE sync_operations o SET duration_ms = NULL, metadata = coalesce(o.metadata::jsonb, '{}') - 'rejected'
            WHERE o.id = op_id;
        PERFORM moonxd_free((job.ask->>'operation')::uuid, owner, job.ask->>'wallet');
        done := done + 1;
    END LOOP;
    RETURN done;
END $$;
