-- What the last portfolio.updated of a wallet told: prices alone are told again once they moved far enough from there.
ALTER TABLE moonxd_wallets ADD COLUMN told_value_usd TEXT;
