-- A change that came too soon after a snapshot is owed to the history: the next sync pays it, changed or not.
ALTER TABLE moonxd_wallets ADD COLUMN snapshot_owed INTEGER NOT NULL DEFAULT 0;
