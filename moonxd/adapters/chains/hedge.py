"""A second request to another endpoint when the first one is slow: whoever answers first is believed.

Only for reads that any endpoint answers alike: the head, and calls pinned to a block. The budget is the pool's, so that
a slow day of one endpoint never doubles the load on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import trio

from ...domain.breaker import Verdict
from ...domain.breakers import Breakers
from ...domain.latency import HedgeBudget
from ..rpc import RpcClient
from ..rpc.errors import FAILURES, RpcError
from .provider import Provider

T = TypeVar("T")

#: What a read sends before anything is pinned: the rest of it goes to whoever answered this.
_UNPINNED = "eth_getBlockByNumber"


class Pool(Protocol):
    """What a lane needs of the chain's endpoints."""

    breakers: Breakers
    hedges: HedgeBudget

    def rival(self, provider: Provider) -> Provider | None: ...

    def judge(self, provider: Provider, error: Exception) -> Verdict: ...


class Lane:
    """One read's way to the chain: an endpoint, and behind it another one. Asked like an RpcClient."""

    def __init__(self, pool: Pool, provider: Provider) -> None:
        self._pool = pool
        #: Who is asked first; another one once it answered first where the read begins.
        self.provider = provider

    @property
    def host(self) -> str:
        return self.provider.client.host

    async def call(self, method: str, params: Sequence[Any], kind: type[T]) -> T:
        """See RpcClient.call."""
        first = self.provider
        self._pool.hedges.earn()
        after = first.latency.hedge_after()
        rival = None if after is None else self._pool.rival(first)
        if after is None or rival is None:
            return await first.client.call(method, params, kind)
        winner, result = await _Race(self._pool, first, rival).run(after, method, params, kind)
        if winner is rival and method == _UNPINNED:
            self.provider = rival
        return result


class _Race:
    """One question to two endpoints, the second one later."""

    def __init__(self, pool: Pool, first: Provider, rival: Provider) -> None:
        self._pool = pool
        self._first = first
        self._rival = rival
        self._answers: list[tuple[Provider, Any]] = []
        self._failure: Exception | None = None
        self._rival_asked = False

    async def run(self, after: float, method: str, params: Sequence[Any], kind: type[T]) -> tuple[Provider, T]:
        """The first answer and whose it is. Raises what the first endpoint raised when there is none."""

        async def first(scope: trio.CancelScope) -> None:
            try:
                self._answers.append((self._first, await self._first.client.call(method, params, kind)))
            except FAILURES as error:
                self._failure = error
            if self._answers or not self._rival_asked:
                scope.cancel()

        async def second(scope: trio.CancelScope) -> None:
            await trio.sleep(after)
            if not self._pool.hedges.spend():
                return
            self._rival_asked = True
            await self._ask_rival(self._rival.client, method, params, kind)
            self._rival_asked = False
            if self._answers or self._failure is not None:
                scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, nursery.cancel_scope)
            nursery.start_soon(second, nursery.cancel_scope)
        if self._answers:
            return self._answers[0]
        assert self._failure is not None
        raise self._failure

    async def _ask_rival(self, client: RpcClient, method: str, params: Sequence[Any], kind: type[T]) -> None:
        ticket = self._pool.breakers.admit(self._rival.name)
        if ticket is None:
            return
        verdict: Verdict = "neutral"
        reason: str | None = None
        try:
            self._answers.append((self._rival, await client.call(method, params, kind)))
            verdict = "good"
        except RpcError:
            # It may not know the block that the first one told us: no fault of its own.
            pass
        except FAILURES as error:
            verdict, reason = self._pool.judge(self._rival, error), str(error)
        finally:
            self._pool.breakers.settle(self._rival.name, ticket, verdict, reason)
