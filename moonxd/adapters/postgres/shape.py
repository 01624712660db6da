"""Whether tables that stand in the database already are the ones we know, before anything is changed."""

from __future__ import annotations

from ...domain.errors import ConfigError
from .connection import TrioConnection

_TEXT = frozenset({"text", "character varying", "character", "uuid", "USER-DEFINED"})
_NUMBER = frozenset({"numeric", "double precision", "real", "integer", "bigint", "smallint"})
_INTEGER = frozenset({"integer", "bigint", "smallint", "numeric"})
_TIME = frozenset({"timestamp with time zone", "timestamp without time zone"})
_FLAG = frozenset({"boolean"})
_JSON = frozenset({"jsonb", "json"})
_ID = frozenset({"uuid", "text", "character varying"})
_BALANCE = _TEXT | {"numeric"}

_HOLDING: dict[str, frozenset[str]] = {
    "user_id": _TEXT,
    "wallet_address": _TEXT,
    "chain_id": _INTEGER,
    "token_address": _TEXT,
    "balance": _BALANCE,
    "token_symbol": _TEXT,
    "token_name": _TEXT,
    "token_decimals": _INTEGER,
    "balance_formatted": _NUMBER,
    "price_usd": _NUMBER,
    "value_usd": _NUMBER,
    "logo_url": _TEXT,
    "is_spam": _FLAG,
    "is_verified": _FLAG,
    "last_updated": _TIME,
    "alchemy_data": _JSON,
    "created_at": _TIME,
    "updated_at": _TIME,
}
#: What each column may be made of, if it is there.
KINDS: dict[str, dict[str, frozenset[str]]] = {
    "user_token_holdings": _HOLDING,
    "user_token_holdings_history": {**_HOLDING, "snapshot_type": _TEXT, "sync_operation_id": _ID},
    "sync_operations": {
        "id": _ID,
        "user_id": _TEXT,
        "wallet_address": _TEXT,
        "status": _TEXT,
        "type": _TEXT,
        "priority": _TEXT,
        "started_at": _TIME,
        "completed_at": _TIME,
        "duration_ms": _INTEGER,
        "tokens_synced": _INTEGER,
        "chains_synced": _INTEGER,
        "total_value_usd": _NUMBER,
        "error_message": _TEXT,
        "retry_count": _INTEGER,
        "max_retries": _INTEGER,
        "worker_id": _TEXT,
        "worker_version": _TEXT,
        "metadata": _JSON,
        "created_at": _TIME,
        "updated_at": _TIME,
    },
    "user_sync_status": {
        "user_id": _TEXT,
        "wallet_address": _TEXT,
        "last_sync_at": _TIME,
        "last_sync_operation_id": _ID,
        "sync_type": _TEXT,
        "sync_status": _TEXT,
        "tokens_count": _INTEGER,
        "chains_count": _INTEGER,
        "total_value_usd": _NUMBER,
        "sync_duration_ms": _INTEGER,
        "total_syncs": _INTEGER,
        "successful_syncs": _INTEGER,
        "failed_syncs": _INTEGER,
        "avg_sync_duration_ms": _NUMBER,
        "last_error_message": _TEXT,
        "last_error_at": _TIME,
        "consecutive_failures": _INTEGER,
        "created_at": _TIME,
        "updated_at": _TIME,
    },
}
#: Columns that a table of ours cannot be without; the others are added when missing.
KEYS: dict[str, tuple[str, ...]] = {
    "user_token_holdings": ("user_id", "wallet_address", "chain_id", "token_address", "balance"),
    "user_token_holdings_history": ("user_id", "wallet_address", "chain_id", "token_address", "balance"),
    "sync_operations": ("id", "user_id", "wallet_address", "status"),
    "user_sync_status": ("user_id", "wallet_address"),
}
#: Columns whose uniqueness in a smaller group than this would refuse our rows (one wallet per user, and the like).
_UNIQUE = {
    "user_token_holdings": {"user_id", "wallet_address", "chain_id", "token_address"},
    "user_sync_status": {"user_id", "wallet_address"},
    "sync_operations": {"user_id", "wallet_address", "status", "type"},
    "user_token_holdings_history": {"user_id", "wallet_address", "chain_id", "token_address"},
}


async def assert_ours(connection: TrioConnection) -> None:
    """Raises ConfigError, naming table and column or index, when a table of one of our names is another program's."""
    columns = await _columns(connection)
    for table, found in columns.items():
        lacking = [name for name in KEYS[table] if name not in found]
        if lacking:
            raise _foreign(table, f"has no column {', '.join(lacking)}")
        for name, kinds in KINDS[table].items():
            if name in found and found[name] not in kinds:
                raise _foreign(table, f"has a column {name} of type {found[name]}, not {' or '.join(sorted(kinds))}")
    await _assert_not_narrow(connection)


async def _columns(connection: TrioConnection) -> dict[str, dict[str, str]]:
    cursor = await connection.execute(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND table_name = ANY(%s)",
        [list(KINDS)],
    )
    tables: dict[str, dict[str, str]] = {}
    for table, column, kind in await cursor.fetchall():
        tables.setdefault(table, {})[column] = kind
    return tables


async def _assert_not_narrow(connection: TrioConnection) -> None:
    cursor = await connection.execute(
        "SELECT t.relname, c.relname, array_agg(a.attname::text) FROM pg_index i "
        "JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (i.indkey::int2[]) "
        "WHERE t.relnamespace = current_schema()::regnamespace AND t.relname = ANY(%s) AND i.indisunique "
        "AND i.indpred IS NULL GROUP BY 1, 2",
        [list(KINDS)],
    )
    rows: list[tuple[str, str, list[str]]] = await cursor.fetchall()
    for table, index, names in rows:
        key, ours = set(names), _UNIQUE[table]
        if key <= ours and (key < ours or table in ("sync_operations", "user_token_holdings_history")):
            raise _foreign(table, f"may hold only one row per {', '.join(sorted(key))} (index {index})")


def _foreign(table: str, why: str) -> ConfigError:
    return ConfigError(
        f"the table {table} in this database is not the one moonxd knows: it {why}. "
        "Rename it, or give moonxd a database or schema of its own"
    )
