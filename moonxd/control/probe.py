"""Asks what the daemon leans on whether it is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from ..api.messages import DependencyState
from ..domain.errors import MoonxdError

#: Seconds that a dependency may take to answer.
PROBE_S = 2.0


async def probe(what: Mapping[str, Callable[[], Awaitable[object]]]) -> Mapping[str, DependencyState]:
    """Ask every dependency at once, each within PROBE_S."""
    states: dict[str, DependencyState] = {}

    async def ask(name: str, question: Callable[[], Awaitable[object]]) -> None:
        began = trio.current_time()
        try:
            with trio.fail_after(PROBE_S):
                await question()
        except (MoonxdError, trio.TooSlowError) as error:
            states[name] = DependencyState(ok=False, detail=str(error) or f"no answer within {PROBE_S:g} s")
        else:
            states[name] = DependencyState(ok=True, latency_ms=round((trio.current_time() - began) * 1000, 2))

    async with trio.open_nursery() as nursery:
        for name, question in what.items():
            nursery.start_soon(ask, name, question)
    return dict(sorted(states.items()))
