-- Tables under the names and columns that existing readers use, and moonxd's own beside them (prefix moonxd_).
-- On a database that already has the shared tables this only adds and widens; shape.py refused foreign ones before.

CREATE TABLE IF NOT EXISTS user_token_holdings (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text NOT NULL,
    wallet_address text NOT NULL,
    chain_id integer NOT NULL,
    token_address text NOT NULL,
    balance text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_id, wallet_address, chain_id, token_address)
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS user_token_holdings_history (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text NOT NULL,
    wallet_address text NOT NULL,
    chain_id integer NOT NULL,
    token_address text NOT NULL,
    balance text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

DO $$
DECLARE
    tbl text;
BEGIN
    FOREACH tbl IN ARRAY ARRAY['user_token_holdings', 'user_token_holdings_history'] LOOP
        EXECUTE format(
            'ALTER TABLE %I '
            'ADD COLUMN IF NOT EXISTS token_symbol text, '
            'ADD COLUMN IF NOT EXISTS token_name text, '
            'ADD COLUMN IF NOT EXISTS token_decimals integer, '
            'ADD COLUMN IF NOT EXISTS balance_formatted numeric, '
            'ADD COLUMN IF NOT EXISTS price_usd numeric, '
            'ADD COLUMN IF NOT EXISTS value_usd numeric, '
            'ADD COLUMN IF NOT EXISTS logo_url text, '
            'ADD COLUMN IF NOT EXISTS is_spam boolean NOT NULL DEFAULT false, '
            'ADD COLUMN IF NOT EXISTS is_verified boolean NOT NULL DEFAULT false, '
            'ADD COLUMN IF NOT EXISTS last_updated timestamptz NOT NULL DEFAULT now(), '
            'ADD COLUMN IF NOT EXISTS alchemy_data jsonb, '
            'ADD COLUMN IF NOT EXISTS created_at timestamptz NOT NULL DEFAULT now(), '
            'ADD COLUMN IF NOT EXISTS updated_at timestamptz NOT NULL DEFAULT now()', tbl);
    END LOOP;
END $$;

ALTER TABLE user_token_holdings_history
    ADD COLUMN IF NOT EXISTS snapshot_type text NOT NULL DEFAULT 'auto'
        CHECK (snapshot_type IN ('auto', 'manual', 'scheduled', 'sync')),
    ADD COLUMN IF NOT EXISTS sync_operation_id uuid;

CREATE TABLE IF NOT EXISTS sync_operations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text NOT NULL,
    wallet_address text NOT NULL,
    status text NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled'))
);

ALTER TABLE sync_operations
    ADD COLUMN IF NOT EXISTS type text NOT NULL DEFAULT 'portfolio'
        CHECK (type IN ('portfolio', 'trades', 'metadata', 'full')),
    ADD COLUMN IF NOT EXISTS priority text NOT NULL DEFAULT 'medium',
    ADD COLUMN IF NOT EXISTS started_at timestamptz,
    ADD COLUMN IF NOT EXISTS completed_at timestamptz,
    ADD COLUMN IF NOT EXISTS duration_ms bigint,
    ADD COLUMN IF NOT EXISTS tokens_synced integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS chains_synced integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS total_value_usd numeric,
    ADD COLUMN IF NOT EXISTS error_message text,
    ADD COLUMN IF NOT EXISTS retry_count integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS max_retries integer NOT NULL DEFAULT 2,
    ADD COLUMN IF NOT EXISTS worker_id text,
    ADD COLUMN IF NOT EXISTS worker_version text,
    ADD COLUMN IF NOT EXISTS metadata jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS created_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS updated_at timestamptz NOT NULL DEFAULT now();

CREATE TABLE IF NOT EXISTS user_sync_status (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text NOT NULL,
    wallet_address text NOT NULL,
    UNIQUE (user_id, wallet_address)
) WITH (fillfactor = 70);

ALTER TABLE user_sync_status
    ADD COLUMN IF NOT EXISTS last_sync_at timestamptz,
    ADD COLUMN IF NOT EXISTS last_sync_operation_id uuid,
    ADD COLUMN IF NOT EXISTS sync_reason text,
    ADD COLUMN IF NOT EXISTS sync_type text,
    ADD COLUMN IF NOT EXISTS sync_status text,
    ADD COLUMN IF NOT EXISTS tokens_count integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS chains_count integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS total_value_usd numeric,
    ADD COLUMN IF NOT EXISTS sync_duration_ms bigint,
    ADD COLUMN IF NOT EXISTS total_syncs integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS successful_syncs integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS failed_syncs integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS avg_sync_duration_ms bigint,
    ADD COLUMN IF NOT EXISTS sync_metadata jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS is_sync_enabled boolean NOT NULL DEFAULT true,
    ADD COLUMN IF NOT EXISTS auto_sync_interval_minutes integer,
    ADD COLUMN IF NOT EXISTS last_error_message text,
    ADD COLUMN IF NOT EXISTS last_error_at timestamptz,
    ADD COLUMN IF NOT EXISTS consecutive_failures integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS created_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN IF NOT EXISTS updated_at timestamptz NOT NULL DEFAULT now();

-- Widen what overflows on real tokens. Dropping a length or a precision rewrites nothing.
DO $$
DECLARE
    col record;
BEGIN
    FOR col IN
        SELECT c.table_name, c.column_name, c.data_type, c.character_maximum_length, c.numeric_precision
        FROM information_schema.columns c
        WHERE c.table_schema = current_schema()
            AND c.table_name IN ('user_token_holdings', 'user_token_holdings_history', 'sync_operations',
                'user_sync_status')
    LOOP
        IF col.column_name IN ('token_symbol', 'token_name', 'logo_url', 'error_message', 'last_error_message',
                'worker_id', 'worker_version', 'sync_reason')
            AND col.character_maximum_length IS NOT NULL
        THEN
            EXECUTE format('ALTER TABLE %I ALTER COLUMN %I TYPE text', col.table_name, col.column_name);
        ELSIF col.column_name = 'balance' AND col.data_type <> 'text' THEN
            EXECUTE format('ALTER TABLE %I ALTER COLUMN balance TYPE text USING balance::text', col.table_name);
        ELSIF col.column_name IN ('balance_formatted', 'price_usd', 'value_usd', 'total_value_usd')
            AND (col.data_type <> 'numeric' OR col.numeric_precision IS NOT NULL)
        THEN
            EXECUTE format('ALTER TABLE %I ALTER COLUMN %I TYPE numeric USING %I::numeric',
                col.table_name, col.column_name, col.column_name);
        END IF;
    END LOOP;
END $$;

-- Unknown is NULL here, and a column of theirs that we do not know must not stop our inserts.
DO $$
DECLARE
    col record;
BEGIN
    FOR col IN
        SELECT c.table_name, c.column_name
        FROM information_schema.columns c
        WHERE c.table_schema = current_schema() AND c.is_nullable = 'NO'
            AND c.table_name IN ('user_token_holdings', 'user_token_holdings_history', 'sync_operations',
                'user_sync_status')
            AND c.column_name NOT IN ('id', 'user_id', 'wallet_address', 'chain_id', 'token_address', 'balance',
                'created_at', 'updated_at', 'last_updated', 'type', 'status', 'priority', 'snapshot_type')
            AND (c.column_default IS NULL OR c.column_name IN ('token_symbol', 'token_name', 'token_decimals',
                'balance_formatted', 'price_usd', 'value_usd', 'logo_url', 'alchemy_data', 'total_value_usd',
                'started_at', 'completed_at', 'duration_ms', 'error_message', 'last_sync_at', 'last_sync_operation_id',
                'sync_duration_ms', 'avg_sync_duration_ms', 'last_error_message', 'last_error_at', 'sync_status',
                'sync_type', 'sync_reason'))
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I DROP NOT NULL', col.table_name, col.column_name);
    END LOOP;

    FOR col IN
        SELECT c.table_name
        FROM information_schema.columns c
        WHERE c.table_schema = current_schema() AND c.column_name = 'id' AND c.column_default IS NULL
            AND c.is_identity = 'NO' AND c.data_type = 'uuid'
            AND c.table_name IN ('user_token_holdings', 'user_token_holdings_history', 'user_sync_status')
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN id SET DEFAULT gen_random_uuid()', col.table_name);
    END LOOP;
END $$;

-- The keys that upserts rely on, unless an index on just these columns exists under any name and in any order.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('user_token_holdings', ARRAY['chain_id', 'token_address', 'user_id', 'wallet_address']),
            ('user_sync_status', ARRAY['user_id', 'wallet_address']),
            ('sync_operations', ARRAY['id'])) AS v (tbl, cols)
    LOOP
        IF NOT EXISTS (
            SELECT FROM pg_index i
            WHERE i.indrelid = wanted.tbl::regclass AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
                AND i.indimmediate AND (
                    SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C") FROM pg_attribute a
                    WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[])) = wanted.cols
        ) THEN
            EXECUTE format('CREATE UNIQUE INDEX %I ON %I (%s)',
                'moonxd_' || wanted.tbl || '_key', wanted.tbl, array_to_string(wanted.cols, ', '));
        END IF;
    END LOOP;
END $$;

CREATE INDEX IF NOT EXISTS moonxd_holdings_wallet ON user_token_holdings (wallet_address);
CREATE INDEX IF NOT EXISTS moonxd_history_wallet ON user_token_holdings_history (user_id, wallet_address, created_at);
CREATE INDEX IF NOT EXISTS moonxd_operations_recent ON sync_operations (created_at);
CREATE INDEX IF NOT EXISTS moonxd_operations_user ON sync_operations (user_id, created_at);
CREATE INDEX IF NOT EXISTS moonxd_operations_wallet ON sync_operations (wallet_address, created_at);
CREATE INDEX IF NOT EXISTS moonxd_operations_running ON sync_operations (updated_at) WHERE status = 'running';
CREATE INDEX IF NOT EXISTS moonxd_status_wallet ON user_sync_status (wallet_address);

-- One row per wallet of a user: the lease, and the fence that only ever grows.
CREATE TABLE moonxd_wallets (
    user_id text NOT NULL,
    wallet_address text NOT NULL,
    fence bigint NOT NULL,
    lease_operation uuid,
    lease_expires_at timestamptz,
    snapshot_at timestamptz,
    PRIMARY KEY (user_id, wallet_address)
) WITH (fillfactor = 50);

-- Every token a wallet was ever seen to hold: a source that cannot discover is asked for these again.
CREATE TABLE moonxd_wallet_tokens (
    wallet_address text NOT NULL,
    chain_id integer NOT NULL,
    token_address text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (wallet_address, chain_id, token_address)
);

-- `id` is taken under the wallet's lock. `position` is given to committed rows only, by one reader at a time: sequence
-- numbers of open transactions would let a reader step over an event that commits after a later number.
CREATE TABLE moonxd_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    position bigint UNIQUE,
    event_id uuid NOT NULL UNIQUE,
    event_type text NOT NULL,
    topic text NOT NULL,
    event_key text NOT NULL,
    wallet_address text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz
);
CREATE SEQUENCE moonxd_outbox_position OWNED BY moonxd_outbox.position;
CREATE INDEX moonxd_outbox_fresh ON moonxd_outbox (id) WHERE position IS NULL;
CREATE INDEX moonxd_outbox_unpublished ON moonxd_outbox (id) WHERE published_at IS NULL;

CREATE TABLE moonxd_dead_letters (
    queue text NOT NULL,
    job_id text NOT NULL,
    name text NOT NULL,
    job_timestamp bigint NOT NULL,
    data bytea NOT NULL,
    options text NOT NULL,
    reason text NOT NULL,
    stack text NOT NULL,
    attempts_made integer NOT NULL,
    failed_at bigint NOT NULL,
    user_id text,
    wallet_address text,
    PRIMARY KEY (queue, job_id)
);
CREATE INDEX moonxd_dead_letters_recent ON moonxd_dead_letters (queue, failed_at);
