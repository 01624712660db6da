"""One endpoint of one chain: how fast it is, how many requests it takes, what it allows, and how high its head is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from ...domain.latency import Concurrency, Latency
from ...domain.quota import Charge
from ...ports import Quota
from ..rpc import RpcClient
from ..rpc.errors import EndpointError, HttpFailure, RateLimited, TimedOut

#: Longer waits than this are the queue's: a slot must not sleep through a rate limit.
WAIT_MAX_S = 10.0
#: How long an endpoint rests that asked us to slow down without saying for how long.
_REST_S = 1.0
#: A measurement older than this says nothing about an endpoint's speed now.
_FRESH_S = 300.0
_OVERLOADED_STATUS = (502, 503, 504)


class Throttled(RateLimited):
    """Our own limit for this endpoint is used up; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an endpoint grants. `charges`: what a request with these methods costs, of which budgets."""

    quota: Quota
    charges: Callable[[Sequence[str]], Sequence[Charge]]


class Provider:
    """`name` is the breaker's. The client goes through `gate` and is given to `serve_by` once it exists."""

    def __init__(self, name: str, *, limits: Limits | None = None, concurrency: int = 16) -> None:
        self.name = name
        self.latency = Latency()
        #: The highest block it has told us, and when (trio time).
        self.head = 0
        self.head_at = float("-inf")
        #: Until when (trio time) it is asked last because it failed, and not at all because it asked for a rest.
        self.avoid_until = 0.0
        self.rest_until = 0.0
        #: Until when (trio time) its chain id need not be checked again.
        self.checked_until = 0.0
        #: When (trio time) it was last looked at beside a read of another endpoint.
        self.scouted_at = float("-inf")
        self._limits = limits
        self._concurrency = Concurrency(concurrency)
        self._slots = trio.CapacityLimiter(self._concurrency.limit)
        self._client: RpcClient | None = None

    def serve_by(self, client: RpcClient) -> Provider:
        self._client = client
        return self

    @property
    def client(self) -> RpcClient:
        assert self._client is not None
        return self._client

    @property
    def slots(self) -> int:
        """How many requests at a time it takes, as far as we have found out."""
        return int(self._slots.total_tokens)

    def speed(self) -> float | None:
        """What a request takes, in seconds; None while unknown."""
        return self.latency.current(trio.current_time(), _FRESH_S)

    def saw_head(self, height: int) -> None:
        self.head, self.head_at = max(self.head, height), trio.current_time()

    @asynccontextmanager
    async def gate(self, methods: Sequence[str]) -> AsyncGenerator[None]:
        """Around every exchange. Raises Throttled when the wait for our turn would be too long."""
        await self._await_turn(methods)
        try:
            # Without the checkpoint of a wait that is not needed.
            self._slots.acquire_nowait()
        except trio.WouldBlock:
            await self._slots.acquire()
        try:
            started = trio.current_time()
            try:
                yield
            except trio.Cancelled:
                # Given up because it was slow (a second endpoint answered): it took at least this long.
                self._note_at_least(trio.current_time() - started)
                raise
            except EndpointError as error:
                self._learn(error)
                raise
            now = trio.current_time()
            self.latency.add(now - started, now)
            self._concurrency.succeeded(self._slots.borrowed_tokens)
            self._slots.total_tokens = self._concurrency.limit
        finally:
            self._slots.release()

    async def _await_turn(self, methods: Sequence[str]) -> None:
        give_up = trio.current_time() + WAIT_MAX_S
        while True:
            wait = self.rest_until - trio.current_time()
            if wait <= 0:
                if self._limits is None:
                    return
                wait = await self._limits.quota.take(self._limits.charges(methods))
                if wait <= 0:
                    return
            due = trio.current_time() + wait
            if due > min(give_up, trio.current_effective_deadline()):
                raise Throttled(f"{self.client.host}: its limit is used up for {wait:.1f} s", retry_after=wait)
            await trio.sleep_until(due)

    def _note_at_least(self, seconds: float) -> None:
        if self.latency.ewma is not None and seconds > self.latency.ewma:
            self.latency.add(seconds, trio.current_time())

    def _learn(self, error: EndpointError) -> None:
        now = trio.current_time()
        if isinstance(error, RateLimited):
            self.rest_until = max(self.rest_until, now + (_REST_S if error.retry_after is None else error.retry_after))
        elif not isinstance(error, TimedOut) and not (
            isinstance(error, HttpFailure) and error.status in _OVERLOADED_STATUS
        ):
            return
        self._concurrency.overloaded(now)
        self._slots.total_tokens = self._concurrency.limit
