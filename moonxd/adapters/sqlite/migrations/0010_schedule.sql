-- Which wallets are synced periodically and when each is due; see the PostgreSQL ledger's migration of the same name.
-- Times are unix seconds.
CREATE TABLE moonxd_wallet_schedule (
    user_id TEXT NOT NULL,
    wallet_address TEXT NOT NULL,
    rank INTEGER NOT NULL DEFAULT 1,
    due_at INTEGER NOT NULL,
    look_at REAL,
    is_forced INTEGER NOT NULL DEFAULT 0,
    queued_at REAL,
    last_active_at REAL NOT NULL,
    timezone TEXT,
    PRIMARY KEY (user_id, wallet_address)
) WITHOUT ROWID;
CREATE INDEX moonxd_schedule_due ON moonxd_wallet_schedule (rank, look_at) WHERE look_at IS NOT NULL;
CREATE INDEX moonxd_schedule_active ON moonxd_wallet_schedule (last_active_at);

CREATE TABLE moonxd_schedule_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    is_paused INTEGER NOT NULL DEFAULT 0,
    reason TEXT
);
INSERT INTO moonxd_schedule_state (id) VALUES (1);
