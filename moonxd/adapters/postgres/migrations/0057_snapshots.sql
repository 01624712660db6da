-- A change that came too soon after a snapshot is owed to the history: the next sync pays it, changed or not.
ALTER TABLE moonxd_wallets ADD COLUMN snapshot_owed boolean NOT NULL DEFAULT false;

CREATE FUNCTION moonxd_snapshot_owed(given_user text, wallet text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce((SELECT w.snapshot_owed FROM moonxd_wallets w
        WHERE w.user_id = moonxd_owner(given_user) AND w.wallet_address = wallet), false);
END $$;

-- Instead of moonxd_note_told, which stays for daemons of the version before that still run. NULL leaves what stands.
CREATE FUNCTION moonxd_note_commit(given_user text, wallet text, told numeric, owed boolean, standing text)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF standing = 'ours' THEN
        UPDATE moonxd_wallets w
            SET told_value_usd = coalesce(told, told_value_usd), snapshot_owed = coalesce(owed, snapshot_owed)
            WHERE w.user_id = moonxd_owner(given_user) AND w.wallet_address = wallet;
    END IF;
    RETURN standing;
END $$;
