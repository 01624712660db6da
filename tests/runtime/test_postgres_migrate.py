"""Migrations on an empty database, on one that an older program filled, and on foreign ones."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import trio

from moonxd.adapters.postgres import migrate as module
from moonxd.adapters.postgres.ledger import open_postgres_ledger
from moonxd.adapters.postgres.migrate import migrate, migrations
from moonxd.domain.errors import ConfigError, Permanent
from moonxd.domain.ledger import Admitted
from moonxd.domain.token import TokenRef
from tests.conformance.ledger_data import address, admission, admitted, change, ending, event, holding, lease_of

pytestmark = pytest.mark.postgres
NAMES = [name for _, name, _ in migrations()]
USER = "6f0b2f0e-7d5c-4a52-9a39-6a6f0c9f3a11"
OTHER_USER = "00000000-0000-4000-8000-000000000002"

#: What an earlier program's migrations leave: uuid users, narrow text and precision, NOT NULL where we know nothing,
#: enums, columns without a zone, no sync_metadata, a column of its own.
OLD_TABLES = """
CREATE TYPE operation_status AS ENUM ('pending', 'running', 'completed', 'failed', 'cancelled');
CREATE TABLE users (id uuid PRIMARY KEY);
CREATE TABLE user_token_holdings (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users (id),
    wallet_address varchar(42) NOT NULL,
    chain_id integer NOT NULL,
    token_address varchar(42) NOT NULL,
    token_symbol varchar(50) NOT NULL,
    token_name varchar(255) NOT NULL DEFAULT '',
    token_decimals integer NOT NULL DEFAULT 18,
    balance varchar(78) NOT NULL,
    balance_formatted numeric(38,18) NOT NULL,
    price_usd numeric(20,8) NOT NULL DEFAULT 0,
    value_usd numeric(20,2) NOT NULL DEFAULT 0,
    logo_url varchar(500),
    is_spam boolean DEFAULT false,
    is_verified boolean DEFAULT false,
    last_updated timestamp DEFAULT now(),
    alchemy_data jsonb,
    their_own_column integer NOT NULL,
    created_at timestamp DEFAULT now(),
    updated_at timestamp DEFAULT now(),
    CONSTRAINT one_row UNIQUE (wallet_address, user_id, token_address, chain_id)
);
CREATE TABLE user_token_holdings_history (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    wallet_address varchar(42) NOT NULL,
    chain_id integer NOT NULL,
    token_address varchar(42) NOT NULL,
    token_symbol varchar(50) NOT NULL,
    token_decimals integer NOT NULL,
    balance text NOT NULL,
    balance_formatted numeric(38,18) NOT NULL,
    snapshot_type varchar(20) NOT NULL DEFAULT 'auto'
);
CREATE TABLE sync_operations (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    wallet_address varchar(42) NOT NULL,
    type varchar(20) NOT NULL CHECK (type IN ('portfolio', 'trades', 'metadata', 'full')),
    status operation_status NOT NULL DEFAULT 'pending',
    priority varchar(10) NOT NULL DEFAULT 'medium',
    started_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    duration_ms integer,
    tokens_synced integer DEFAULT 0,
    total_value_usd numeric(20,2) DEFAULT 0,
    error_message varchar(255),
    retry_count integer DEFAULT 0,
    max_retries integer DEFAULT 3,
    worker_id varchar(50),
    metadata jsonb DEFAULT '{}',
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);
CREATE TABLE user_sync_status (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    wallet_address varchar(42) NOT NULL,
    last_sync_at timestamptz,
    last_sync_operation_id uuid REFERENCES sync_operations (id),
    sync_status varchar(20),
    total_syncs integer DEFAULT 0,
    successful_syncs integer DEFAULT 0,
    failed_syncs integer DEFAULT 0,
    avg_sync_duration_ms integer,
    is_sync_enabled boolean NOT NULL DEFAULT true,
    last_error_message varchar(255),
    last_error_at timestamptz,
    consecutive_failures integer DEFAULT 0,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    UNIQUE (user_id, wallet_address)
);
"""
#: A trigger of theirs that counts syncs as well; once on every change of a row, and eager.
TRIGGER = """
CREATE FUNCTION count_syncs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_sync_status AS s (user_id, wallet_address, last_sync_at, total_syncs, successful_syncs,
            failed_syncs, consecutive_failures, sync_status)
        VALUES (NEW.user_id, NEW.wallet_address, now(), 1, (NEW.status = 'completed')::integer,
            (NEW.status = 'failed')::integer, (NEW.status = 'failed')::integer, NEW.status::text)
        ON CONFLICT (user_id, wallet_address) DO UPDATE SET last_sync_at = now(), total_syncs = s.total_syncs + 1,
            successful_syncs = s.successful_syncs + (NEW.status = 'completed')::integer,
            failed_syncs = s.failed_syncs + (NEW.status = 'failed')::integer,
            consecutive_failures = s.consecutive_failures + (NEW.status = 'failed')::integer,
            sync_status = NEW.status::text;
    RETURN NULL;
END $$;
"""
EAGER = "CREATE TRIGGER watch AFTER INSERT OR UPDATE ON sync_operations FOR EACH ROW EXECUTE FUNCTION count_syncs();"
DEFERRED = """
CREATE CONSTRAINT TRIGGER watch AFTER INSERT OR UPDATE ON sync_operations DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION count_syncs();
"""


@pytest.fixture
def database(empty_postgres_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(empty_postgres_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def old_database(database: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    database.execute(OLD_TABLES.encode())
    database.execute("INSERT INTO users VALUES (%s), (%s)", [USER, OTHER_USER])
    return database


def column_types(database: psycopg.Connection[Any], table: str) -> dict[str, str]:
    rows = database.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [table],
    )
    return dict(rows.fetchall())


async def test_an_empty_database_gets_everything_once(
    empty_postgres_dsn: str, database: psycopg.Connection[Any]
) -> None:
    assert await migrate(empty_postgres_dsn) == NAMES
    assert await migrate(empty_postgres_dsn) == []
    rows = database.execute("SELECT name FROM moonxd_schema ORDER BY version").fetchall()
    assert [name for (name,) in rows] == NAMES
    assert column_types(database, "user_sync_status")["sync_metadata"] == "jsonb"


async def test_a_dry_run_tells_and_leaves_nothing(empty_postgres_dsn: str, database: psycopg.Connection[Any]) -> None:
    assert await migrate(empty_postgres_dsn, dry_run=True) == NAMES
    assert database.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    assert await migrate(empty_postgres_dsn) == NAMES
    assert await migrate(empty_postgres_dsn, dry_run=True) == []


async def test_daemons_that_start_together_migrate_once(empty_postgres_dsn: str) -> None:
    applied: list[list[str]] = []

    async def one() -> None:
        applied.append(await migrate(empty_postgres_dsn))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert sorted(applied) == [[], [], [], [], NAMES]


async def test_old_columns_are_widened_and_missing_ones_added(
    empty_postgres_dsn: str, old_database: psycopg.Connection[Any]
) -> None:
    await migrate(empty_postgres_dsn)
    holdings = column_types(old_database, "user_token_holdings")
    assert {holdings[name] for name in ("balance_formatted", "price_usd", "value_usd")} == {"numeric"}
    assert {holdings[name] for name in ("token_symbol", "token_name", "logo_url", "balance")} == {"text"}
    assert holdings["user_id"] == "uuid"
    assert holdings["last_updated"] == "timestamp without time zone"
    status = column_types(old_database, "user_sync_status")
    assert status["sync_metadata"] == "jsonb"
    assert {"tokens_count", "sync_duration_ms", "auto_sync_interval_minutes", "sync_reason"} <= set(status)
    assert "sync_operation_id" in column_types(old_database, "user_token_holdings_history")
    # Its own unique key serves, whatever its name and order of columns.
    keys = old_database.execute(
        "SELECT count(*) FROM pg_index WHERE indrelid = 'user_token_holdings'::regclass AND indisunique"
    ).fetchone()
    assert keys == (2,)


async def test_existing_rows_are_kept_and_read(empty_postgres_dsn: str, old_database: psycopg.Connection[Any]) -> None:
    wallet = address(0xAAA)
    old_database.execute(
        "INSERT INTO user_token_holdings (user_id, wallet_address, chain_id, token_address, token_symbol, balance, "
        "balance_formatted, their_own_column, alchemy_data) VALUES (%s, %s, 1, %s, 'OLD', '1500000', 1.5, 7, %s), "
        "(%s, %s, 1, '0xAbC', 'ODD', 'not a number', 0, 7, '[1]')",
        [USER, wallet, address(1), '{"a": 1}', USER, wallet],
    )
    await migrate(empty_postgres_dsn)
    async with open_postgres_ledger(empty_postgres_dsn) as ledger:
        # A uuid column folds case: the id in any spelling is the same user.
        answer = await ledger.admit(admission(wallet, user=USER.upper()))
        assert isinstance(answer, Admitted)
        by_address = {row.address: row for row in answer.previous}
        assert (by_address[address(1)].raw, by_address[address(1)].said) == (1500000, {"a": 1})
        assert (by_address["0xAbC"].raw, by_address["0xAbC"].said) == (0, {})
        assert set(answer.seen) == {TokenRef(1, address(1)), TokenRef(1, "0xAbC")}


async def test_a_whole_sync_on_old_tables(empty_postgres_dsn: str, old_database: psycopg.Connection[Any]) -> None:
    await migrate(empty_postgres_dsn)
    wallet = address(0xBBB)
    rows = (
        holding(1, symbol="S" * 200, raw=2**256 - 1, decimals=0, price=Decimal("1e30")),
        holding(2, symbol=None, name=None, decimals=None, price=None),
    )
    async with open_postgres_ledger(empty_postgres_dsn) as ledger:
        ask = admission(wallet, user=USER, worker_id="w" * 100)
        answer = await ledger.admit(ask)
        assert isinstance(answer, Admitted)
        lease = lease_of(ask, answer.fence)
        await ledger.close(ending(lease, "retrying", "e" * 1000))
        answer = await ledger.admit(admission(wallet, user=USER.upper(), attempt=2))
        assert isinstance(answer, Admitted)
        lease = lease_of(ask, answer.fence)
        assert await ledger.renew([lease], 60) == ()
        await ledger.commit(change(lease, rows, snapshot=rows, events=(event(wallet),)))
        (view,) = await ledger.portfolio(wallet, USER.upper())
        assert (view.user_id, view.holdings) == (USER, rows)
        assert view.last_sync_at is not None
        assert view.last_sync_at.tzinfo is not None
        (operation,) = await ledger.operations(user_id=USER.upper(), status="completed")
        assert operation.retry_count == 1
        assert await ledger.sweep(0.0) == 0
        await admitted(ledger, admission(wallet, user=USER, job="crash", lease_s=0.0))
        assert await ledger.sweep(0.0) == 1


async def test_users_that_the_database_cannot_know_are_permanent_errors(
    empty_postgres_dsn: str, old_database: psycopg.Connection[Any]
) -> None:
    await migrate(empty_postgres_dsn)
    async with open_postgres_ledger(empty_postgres_dsn) as ledger:
        with pytest.raises(Permanent, match="invalid input syntax for type uuid"):
            await ledger.admit(admission(address(1), user="not-a-uuid"))
        stranger = await admitted(ledger, admission(address(2), user="00000000-0000-4000-8000-00000000dead"))
        with pytest.raises(Permanent, match="create it first"):
            await ledger.commit(change(stranger, [holding(1)]))


@pytest.mark.parametrize("trigger", ["", TRIGGER + EAGER, TRIGGER + DEFERRED], ids=["none", "eager", "deferred"])
async def test_each_sync_counts_once_with_or_without_their_trigger(
    empty_postgres_dsn: str, old_database: psycopg.Connection[Any], trigger: str
) -> None:
    old_database.execute(trigger.encode() or b"SELECT 1")
    await migrate(empty_postgres_dsn)
    wallet = address(0xCCC)

    def counters() -> Any:
        return old_database.execute(
            "SELECT total_syncs, successful_syncs, failed_syncs, consecutive_failures FROM user_sync_status"
        ).fetchall()

    async with open_postgres_ledger(empty_postgres_dsn) as ledger:
        for number in range(3):
            lease = await admitted(ledger, admission(wallet, user=USER, job=f"ok-{number}"))
            await ledger.close(ending(lease, "retrying"))
            lease = await admitted(ledger, admission(wallet, user=USER, job=f"ok-{number}", attempt=2))
            await ledger.commit(change(lease, [holding(1)]))
            assert counters() == [(number + 1, number + 1, 0, 0)]
        synced_at = old_database.execute("SELECT last_sync_at FROM user_sync_status").fetchone()
        lease = await admitted(ledger, admission(wallet, user=USER, job="bad"))
        await ledger.close(ending(lease, "failed"))
        assert counters() == [(4, 3, 1, 1)]
        lease = await admitted(ledger, admission(wallet, user=USER, job="handed back"))
        await ledger.close(ending(lease, "released"))
        assert counters() == [(4, 3, 1, 1)]
        await admitted(ledger, admission(wallet, user=USER, job="crash", lease_s=0.0))
        await ledger.sweep(0.0)
        assert counters() == [(5, 3, 2, 2)]
        # A failure is no sync: the time of the last one stays.
        assert old_database.execute("SELECT last_sync_at FROM user_sync_status").fetchone() == synced_at


async def test_the_janitor_closes_rows_that_an_earlier_program_left_running(
    empty_postgres_dsn: str, old_database: psycopg.Connection[Any]
) -> None:
    for identifier, age in ((1, "3 hours"), (2, "10 minutes")):
        old_database.execute(
            "INSERT INTO sync_operations (id, user_id, wallet_address, type, status, updated_at) "
            "VALUES (%s, %s, %s, 'portfolio', 'running', now() - %s::interval)",
            [f"00000000-0000-4000-8000-00000000000{identifier}", USER, address(7), age],
        )
    await migrate(empty_postgres_dsn)
    async with open_postgres_ledger(empty_postgres_dsn) as ledger:
        # Neither blocks its user meanwhile.
        assert isinstance(await ledger.admit(admission(address(7), user=USER)), Admitted)
        assert await ledger.sweep(60.0) == 1
        running = await ledger.operations(user_id=USER, status="running")
        assert len(running) == 2


async def test_a_deadlock_with_another_program_is_tried_again(
    empty_postgres_dsn: str, old_database: psycopg.Connection[Any]
) -> None:
    await migrate(empty_postgres_dsn)
    wallet = address(0xDDD)
    async with open_postgres_ledger(empty_postgres_dsn) as ledger:
        lease = await admitted(ledger, admission(wallet, user=USER, job="first"))
        await ledger.commit(change(lease, [holding(1), holding(2)]))
        lease = await admitted(ledger, admission(wallet, user=USER, job="second"))
        async with (
            trio.open_nursery() as nursery,
            open_postgres_ledger(empty_postgres_dsn) as other,
            other._pool.connection() as theirs,
        ):
            # They hold row 2 and want row 1; we come from row 1. Their deadlock check is off: ours must give way.
            await theirs.execute("SET deadlock_timeout = '60s'")
            await theirs.execute("BEGIN")
            update = b"UPDATE user_token_holdings SET is_verified = true WHERE token_address = %s"
            await theirs.execute(update, [address(2)])
            nursery.start_soon(ledger.commit, change(lease, [holding(1, raw=5), holding(2, raw=5)]))
            waiting = b"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            with trio.fail_after(10):
                while old_database.execute(waiting).fetchone() == (0,):  # noqa: ASYNC110 (a real server)
                    await trio.sleep(0.005)
            await theirs.execute(update, [address(1)])
            await theirs.execute("COMMIT")
        (view,) = await ledger.portfolio(wallet)
        assert [row.raw for row in view.holdings] == [5, 5]


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("CREATE TABLE user_token_holdings (name text)", "user_token_holdings .* has no column user_id"),
        (
            "CREATE TABLE sync_operations (id bigint PRIMARY KEY, user_id text, wallet_address text, status text)",
            "sync_operations .* has a column id of type bigint, not",
        ),
        (
            "CREATE TABLE user_sync_status (user_id text UNIQUE, wallet_address text)",
            r"user_sync_status .* may hold only one row per user_id \(index user_sync_status_user_id_key\)",
        ),
        (
            "CREATE TABLE user_token_holdings_history (user_id text, wallet_address text, chain_id text, "
            "token_address text, balance text)",
            "user_token_holdings_history .* has a column chain_id of type text",
        ),
    ],
)
async def test_a_foreign_table_is_refused_by_name(
    empty_postgres_dsn: str, database: psycopg.Connection[Any], sql: str, complaint: str
) -> None:
    database.execute(sql.encode())
    with pytest.raises(ConfigError, match=complaint):
        await migrate(empty_postgres_dsn)
    assert database.execute("SELECT to_regclass('moonxd_schema')").fetchone() == (None,)


async def test_what_the_database_refuses_is_undone_and_told(
    empty_postgres_dsn: str, old_database: psycopg.Connection[Any]
) -> None:
    old_database.execute("CREATE VIEW rich AS SELECT value_usd FROM user_token_holdings")
    with pytest.raises(ConfigError, match=r"view or rule \(rule _RETURN on view rich depends on column"):
        await migrate(empty_postgres_dsn)
    assert column_types(old_database, "user_token_holdings")["price_usd"] == "numeric(20,8)"


async def test_a_newer_schema_is_refused(empty_postgres_dsn: str, database: psycopg.Connection[Any]) -> None:
    await migrate(empty_postgres_dsn)
    database.execute("INSERT INTO moonxd_schema (version, name) VALUES (99, '0099_future.sql')")
    with pytest.raises(ConfigError, match="schema version 99, this moonxd knows up to"):
        await migrate(empty_postgres_dsn)
    with pytest.raises(ConfigError, match="upgrade moonxd"):
        async with open_postgres_ledger(empty_postgres_dsn):
            raise AssertionError("opened a schema from the future")


async def test_an_unmigrated_database_is_not_opened(empty_postgres_dsn: str) -> None:
    with pytest.raises(ConfigError, match="run `moonxd migrate`"):
        async with open_postgres_ledger(empty_postgres_dsn):
            raise AssertionError("opened a database without a schema")


async def test_an_old_server_is_refused(empty_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OLDEST_SERVER", 990000)
    with pytest.raises(ConfigError, match="is too old, 99 or newer is needed"):
        await migrate(empty_postgres_dsn)
