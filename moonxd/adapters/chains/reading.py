"""Trying again within one read: the next endpoint when one is out of reach, the same ones later when none answered."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from ...domain.chain import Chain
from ...domain.errors import MoonxdError, Permanent, Transient
from ..rpc import RpcClient
from ..rpc.errors import FAILURES, Garbage, Refused

T = TypeVar("T")
logger = logging.getLogger("moonxd.chains")

#: An endpoint that failed is asked last for this long, so that a dead first one does not slow down every read.
_AVOID_S = 30.0
#: Longer waits than this are the queue's: a slot must not sleep through a rate limit.
_WAIT_MAX_S = 10.0


class WrongChain(Refused):
    """The endpoint serves another chain than the one it is configured for."""


async def together(*tasks: Callable[[], Awaitable[object]]) -> None:
    """Run `tasks` at once. The first of our errors cancels the others and is raised by itself, in no group."""
    if len(tasks) == 1:
        await tasks[0]()
        return
    failures: list[MoonxdError] = []

    async def guarded(task: Callable[[], Awaitable[object]]) -> None:
        try:
            await task()
        except MoonxdError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(guarded, task)
    if failures:
        raise failures[0]


class Endpoints:
    """One chain's endpoints in order of preference, each with the chain id it was last seen to serve."""

    def __init__(
        self,
        chain: Chain,
        clients: Sequence[RpcClient],
        *,
        retries: int = 3,
        retry_delay_s: float = 1.0,
        recheck_s: float = 600.0,
        rand: Callable[[], float] = random.random,
    ) -> None:
        if not clients:
            raise ValueError(f"{chain.slug} has no endpoint")
        self._chain = chain
        self._clients = tuple(clients)
        self._retries = retries
        self._retry_delay_s = retry_delay_s
        self._recheck_s = recheck_s
        self._rand = rand
        self._avoid_until: dict[RpcClient, float] = {}
        self._checked_until: dict[RpcClient, float] = {}

    async def run(self, attempt: Callable[[RpcClient], Awaitable[T]]) -> T:
        """`attempt` at one endpoint after the other, then all over again after a growing delay, `retries` times.

        Waits as long as an endpoint asked, but never past the deadline around us nor long enough to hog a slot:
        then the error is raised with its `retry_after`. Raises Transient, or Permanent when nothing else is left.
        """
        for number in range(self._retries + 1):
            try:
                return await self._anywhere(attempt)
            except Transient as error:
                # Up to half of the delay is left to chance: slots that failed together do not come back together.
                delay = self._retry_delay_s * 2**number * (1 - self._rand() / 2)
                wait = max(delay, error.retry_after or 0.0)
                late = trio.current_time() + wait >= trio.current_effective_deadline()
                if number == self._retries or late or wait > _WAIT_MAX_S:
                    raise
                logger.info(
                    "%s could not be read, trying again in %.1f s: %s",
                    self._chain.slug,
                    wait,
                    error,
                    extra={"chain": self._chain.slug, "attempt": number + 1},
                )
                await trio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _anywhere(self, attempt: Callable[[RpcClient], Awaitable[T]]) -> T:
        errors: list[Transient | Permanent] = []
        for client in self._in_order():
            try:
                result = await attempt(client)
            except FAILURES as error:
                errors.append(error)
                self._pass_over(client, error)
                continue
            self._avoid_until.pop(client, None)
            return result
        # An endpoint that may recover decides: with it, trying again can help.
        raise next((error for error in errors if isinstance(error, Transient)), errors[0])

    def _pass_over(self, client: RpcClient, error: Exception) -> None:
        if client not in self._avoid_until and len(self._clients) > 1:
            logger.warning(
                "%s of %s is asked last for a while: %s",
                client.host,
                self._chain.slug,
                error,
                extra={"chain": self._chain.slug, "provider": client.host},
            )
        self._avoid_until[client] = trio.current_time() + _AVOID_S

    def _in_order(self) -> list[RpcClient]:
        now = trio.current_time()
        return sorted(self._clients, key=lambda client: self._avoid_until.get(client, 0.0) > now)

    def needs_check(self, client: RpcClient) -> bool:
        """Whether `verify` would ask."""
        return self._checked_until.get(client, 0.0) <= trio.current_time()

    async def verify(self, client: RpcClient) -> None:
        """Make sure, once in `recheck_s` seconds, that `client` serves our chain. Raises WrongChain naming both ids."""
        if not self.needs_check(client):
            return
        self._checked_until.pop(client, None)
        answer = await client.call("eth_chainId", [], str)
        served = parse_quantity(client, "eth_chainId", answer)
        if served != self._chain.id:
            raise WrongChain(
                f"{client.host} serves chain {served}, but it is configured for {self._chain.slug} "
                f"(chain {self._chain.id}): correct the endpoint's URL"
            )
        self._checked_until[client] = trio.current_time() + self._recheck_s


def parse_quantity(client: RpcClient, method: str, answer: str) -> int:
    """A JSON-RPC quantity (0x hex). Raises Garbage."""
    try:
        number = int(answer, 16)
    except ValueError:
        number = -1
    if not answer.startswith("0x") or not 0 <= number < 2**256:
        raise Garbage(f"{client.host}: answered garbage to {method}: {answer[:20]!r} is no quantity")
    return number
