"""The states of breakers on PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

Rows = list[tuple[Any, ...]]
Statement = Callable[[str, str, Sequence[Any]], Awaitable[Rows]]


class PostgresBreakers:
    """A `ports.BreakerStore`. `ask` and `change` run one statement, as the ledger does."""

    def __init__(self, ask: Statement, change: Statement) -> None:
        self._ask = ask
        self._change = change

    async def load(self) -> dict[str, str]:
        rows = await self._ask(
            "reading breakers", "SELECT name, state FROM moonxd_breakers WHERE set_aside_at IS NULL", ()
        )
        return dict(rows)

    async def save(self, states: Mapping[str, str]) -> None:
        # In one order everywhere: two workers must not lock the same rows crosswise.
        names = sorted(states)
        await self._change(
            "keeping breakers",
            "INSERT INTO moonxd_breakers (name, state) SELECT * FROM unnest(%s::text[], %s::text[]) "
            "ON CONFLICT (name) DO UPDATE SET state = excluded.state, updated_at = now(), set_aside_at = NULL",
            [names, [states[name] for name in names]],
        )

    async def set_aside(self, name: str) -> None:
        await self._change(
            f"setting breaker {name} aside",
            "UPDATE moonxd_breakers SET name = name || ' set aside ' || gen_random_uuid(), set_aside_at = now() "
            "WHERE name = %s AND set_aside_at IS NULL",
            [name],
        )
