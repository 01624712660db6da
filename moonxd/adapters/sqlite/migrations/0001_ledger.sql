-- The ledger's tables under the names that readers of the PostgreSQL ledger know.
-- Amounts and values are decimal text (exact), times ISO 8601 text in UTC of one width (they compare as text).

CREATE TABLE user_token_holdings (
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    user_id TEXT NOT NULL,
    wallet_address TEXT NOT NULL,
    chain_id INTEGER NOT NULL,
    token_address TEXT NOT NULL,
    token_symbol TEXT,
    token_name TEXT,
    token_decimals INTEGER,
    balance TEXT NOT NULL,
    balance_formatted TEXT,
    price_usd TEXT,
    value_usd TEXT,
    logo_url TEXT,
    is_spam INTEGER NOT NULL DEFAULT 0,
    is_verified INTEGER NOT NULL DEFAULT 0,
    last_updated TEXT NOT NULL,
    alchemy_data TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (user_id, wallet_address, chain_id, token_address)
) WITHOUT ROWID;
CREATE INDEX user_token_holdings_wallet ON user_token_holdings (wallet_address);

CREATE TABLE user_token_holdings_history (
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    user_id TEXT NOT NULL,
    wallet_address TEXT NOT NULL,
    chain_id INTEGER NOT NULL,
    token_address TEXT NOT NULL,
    token_symbol TEXT,
    token_name TEXT,
    token_decimals INTEGER,
    balance TEXT NOT NULL,
    balance_formatted TEXT,
    price_usd TEXT,
    value_usd TEXT,
    logo_url TEXT,
    is_spam INTEGER NOT NULL DEFAULT 0,
    is_verified INTEGER NOT NULL DEFAULT 0,
    last_updated TEXT NOT NULL,
    alchemy_data TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    snapshot_type TEXT NOT NULL CHECK (snapshot_type IN ('auto', 'manual', 'scheduled', 'sync')),
    sync_operation_id TEXT
);
CREATE INDEX user_token_holdings_history_wallet
    ON user_token_holdings_history (user_id, wallet_address, created_at);

CREATE TABLE sync_operations (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    wallet_address TEXT NOT NULL,
    type TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    priority TEXT NOT NULL,
    started_at TEXT,
    completed_at TEXT,
    duration_ms INTEGER,
    tokens_synced INTEGER NOT NULL DEFAULT 0,
    chains_synced INTEGER NOT NULL DEFAULT 0,
    total_value_usd TEXT,
    error_message TEXT,
    retry_count INTEGER NOT NULL DEFAULT 0,
    max_retries INTEGER NOT NULL DEFAULT 0,
    worker_id TEXT,
    worker_version TEXT,
    metadata TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX sync_operations_recent ON sync_operations (created_at);
CREATE INDEX sync_operations_user ON sync_operations (user_id, created_at);
CREATE INDEX sync_operations_wallet ON sync_operations (wallet_address, created_at);
CREATE INDEX sync_operations_running ON sync_operations (updated_at) WHERE status = 'running';

CREATE TABLE user_sync_status (
    user_id TEXT NOT NULL,
    wallet_address TEXT NOT NULL,
    last_sync_at TEXT,
    last_sync_operation_id TEXT,
    sync_reason TEXT,
    sync_type TEXT,
    sync_status TEXT,
    tokens_count INTEGER NOT NULL DEFAULT 0,
    chains_count INTEGER NOT NULL DEFAULT 0,
    total_value_usd TEXT,
    sync_duration_ms INTEGER,
    total_syncs INTEGER NOT NULL DEFAULT 0,
    successful_syncs INTEGER NOT NULL DEFAULT 0,
    failed_syncs INTEGER NOT NULL DEFAULT 0,
    avg_sync_duration_ms INTEGER,
    sync_metadata TEXT NOT NULL DEFAULT '{}',
    is_sync_enabled INTEGER NOT NULL DEFAULT 1,
    auto_sync_interval_minutes INTEGER,
    last_error_message TEXT,
    last_error_at TEXT,
    consecutive_failures INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (user_id, wallet_address)
) WITHOUT ROWID;
CREATE INDEX user_sync_status_wallet ON user_sync_status (wallet_address);

-- One row per wallet of a user: the lease, and the fence that only ever grows.
CREATE TABLE moonxd_wallets (
    user_id TEXT NOT NULL,
    wallet_address TEXT NOT NULL,
    fence INTEGER NOT NULL,
    lease_operation TEXT,
    lease_expires_at TEXT,
    snapshot_at TEXT,
    PRIMARY KEY (user_id, wallet_address)
) WITHOUT ROWID;

-- Every token a wallet was ever seen to hold: a source that cannot discover is asked for these again.
CREATE TABLE moonxd_wallet_tokens (
    wallet_address TEXT NOT NULL,
    chain_id INTEGER NOT NULL,
    token_address TEXT NOT NULL,
    first_seen_at TEXT NOT NULL,
    PRIMARY KEY (wallet_address, chain_id, token_address)
) WITHOUT ROWID;

CREATE TABLE moonxd_outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    event_type TEXT NOT NULL,
    topic TEXT NOT NULL,
    event_key TEXT NOT NULL,
    wallet_address TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at TEXT NOT NULL,
    published_at TEXT
);
CREATE INDEX moonxd_outbox_unpublished ON moonxd_outbox (position) WHERE published_at IS NULL;

CREATE TABLE moonxd_dead_letters (
    queue TEXT NOT NULL,
    job_id TEXT NOT NULL,
    name TEXT NOT NULL,
    job_timestamp INTEGER NOT NULL,
    data BLOB NOT NULL,
    options TEXT NOT NULL,
    reason TEXT NOT NULL,
    stack TEXT NOT NULL,
    attempts_made INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,
    user_id TEXT,
    wallet_address TEXT,
    PRIMARY KEY (queue, job_id)
) WITHOUT ROWID;
CREATE INDEX moonxd_dead_letters_recent ON moonxd_dead_letters (queue, failed_at);
