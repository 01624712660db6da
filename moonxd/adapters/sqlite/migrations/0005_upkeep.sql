-- For what the janitor removes by age, and for reading a wallet's past of every user.
CREATE INDEX user_token_holdings_history_age ON user_token_holdings_history (created_at);
CREATE INDEX user_token_holdings_history_past ON user_token_holdings_history (wallet_address, created_at);
