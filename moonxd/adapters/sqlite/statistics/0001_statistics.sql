-- Latest values as JSON of the domain's types; histories as columns, which are averaged by step when they are read.
CREATE TABLE chains (chain_id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE bridges (provider TEXT NOT NULL, route TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (provider, route));
CREATE TABLE overviews (at_ms INTEGER PRIMARY KEY, body TEXT NOT NULL);

CREATE TABLE chain_history (
    chain_id INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    -- 0 healthy, 1 unknown, 2 degraded, 3 unhealthy
    severity INTEGER NOT NULL,
    block_time_s REAL,
    head_age_s REAL,
    finality_lag REAL,
    gas_price_wei REAL,
    rpc_p50_s REAL,
    rpc_p95_s REAL,
    volume_24h_usd REAL,
    tvl_usd REAL,
    UNIQUE (chain_id, at_ms)
);
CREATE INDEX chain_history_at ON chain_history (at_ms);

CREATE TABLE bridge_history (
    provider TEXT NOT NULL,
    route TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    severity INTEGER NOT NULL,
    latency_s REAL,
    p50_s REAL,
    p95_s REAL,
    quoted_s REAL,
    UNIQUE (provider, route, at_ms)
);
CREATE INDEX bridge_history_at ON bridge_history (at_ms);
