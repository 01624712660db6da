"""The states of breakers for as long as the process lives."""

from __future__ import annotations

from collections.abc import Mapping

import trio


class MemoryBreakers:
    """A `ports.BreakerStore`."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.aside: list[tuple[str, str]] = []

    async def load(self) -> dict[str, str]:
        await trio.lowlevel.checkpoint()
        return dict(self.states)

    async def save(self, states: Mapping[str, str]) -> None:
        await trio.lowlevel.checkpoint()
        self.states.update(states)

    async def set_aside(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self.aside.append((name, self.states.pop(name)))
