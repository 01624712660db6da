"""A chain's endpoints behind one reader: which is asked, what its failure means, when another one is asked too."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import trio

from ...domain import latency
from ...domain.breaker import Policy, Verdict
from ...domain.breakers import Breakers, View
from ...domain.chain import Chain
from ...domain.errors import MoonxdError, Permanent, Transient
from ...log import log_once_per
from ..rpc import RpcClient
from ..rpc.errors import FAILURES, EndpointError, Garbage, KeyRefused, RateLimited, Refused, TooLarge
from .hedge import Lane
from .provider import WAIT_MAX_S, Provider

T = TypeVar("T")
logger = logging.getLogger("moonxd.chains")

#: An endpoint that failed is asked last for this long, so that a dead first one does not slow down every read.
_AVOID_S = 30.0
#: How far behind the best known head an endpoint may be.
_LAG_S = 30.0
#: An endpoint that is not asked is looked at so often, beside the reads of others: its head, its chain, its speed.
_SCOUT_S = 30.0
#: And so often while it has to show that it is well again.
_PROBE_S = 2.0
#: A refused key stays refused until somebody changes it; the breaker opens for this long.
_REFUSED_S = 900.0


class WrongChain(Refused):
    """The endpoint serves another chain than the one it is configured for."""


class Unreadable(Refused):
    """The wallet cannot be read this way; the endpoint is sound."""


class Lagging(EndpointError):
    """The endpoint is behind the others."""

    outcome = "lagging"


class Unpinned(EndpointError):
    """The endpoint answered for another block than the one asked for."""

    outcome = "unpinned"


class Shut(EndpointError):
    """No endpoint of the chain may be asked now: their breakers are open or cordoned."""

    outcome = "shut"


def _why_shut(view: View) -> str:
    host = view.name.rpartition("/")[2]
    # Most reasons begin with the host too.
    reason = (view.reason or "no reason given").removeprefix(f"{host.partition(':')[0]}: ")
    return f"{host} is {view.mode} ({reason})"


class _Elsewhere(Exception):
    """A read failed at another endpoint than the one it began with."""

    def __init__(self, provider: Provider, error: EndpointError | Refused) -> None:
        super().__init__(str(error))
        self.provider = provider
        self.error = error


class Caller(Protocol):
    """What a read asks: one endpoint, or one with a second behind it."""

    @property
    def host(self) -> str: ...

    async def call(self, method: str, params: Sequence[Any], kind: type[T]) -> T: ...


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
    """One chain's endpoints in order of preference.

    Every endpoint has a breaker in `breakers`, named by its provider. A read is one request to it: a failure counts
    against the endpoint, a rate limit does not, a refused key opens it for long, and one that serves another chain,
    lags or does not answer for the block asked for is cordoned until probes find it sound.
    """

    def __init__(
        self,
        chain: Chain,
        endpoints: Sequence[Provider | RpcClient],
        *,
        breakers: Breakers | None = None,
        policy: Policy | None = None,
        retries: int = 3,
        retry_delay_s: float = 1.0,
        recheck_s: float = 600.0,
        hedge_share: float = 0.1,
        rand: Callable[[], float] = random.random,
    ) -> None:
        if not endpoints:
            raise ValueError(f"{chain.slug} has no endpoint")
        self.chain = chain
        self.providers = tuple(
            endpoint if isinstance(endpoint, Provider) else Provider(f"{chain.slug}/{place}").serve_by(endpoint)
            for place, endpoint in enumerate(endpoints)
        )
        self._by_client: dict[Caller, Provider] = {provider.client: provider for provider in self.providers}
        self.breakers = breakers or Breakers(trio.current_time)
        for provider in self.providers:
            if breakers is None:
                self.breakers.register(provider.name, policy or Policy())
        self._lag_blocks = latency.lag_allowed(chain.block_time, _LAG_S)
        self._retries = retries
        self._retry_delay_s = retry_delay_s
        self._recheck_s = recheck_s
        self._rand = rand
        self.hedges = latency.HedgeBudget(hedge_share)

    async def run(self, attempt: Callable[[RpcClient], Awaitable[T]]) -> T:
        """`attempt` at one endpoint, at the others when it fails; see `run_hedged`."""
        return await self._retrying(lambda provider: attempt(provider.client))

    async def run_hedged(self, attempt: Callable[[Caller], Awaitable[T]]) -> T:
        """The same for reads that every endpoint answers alike: slow requests are sent to a second one too."""
        if len(self.providers) == 1:
            return await self.run(attempt)
        return await self._retrying(lambda provider: self._beside_scout(provider, attempt))

    async def _retrying(self, attempt: Callable[[Provider], Awaitable[T]]) -> T:
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
                if number == self._retries or late or wait > WAIT_MAX_S:
                    raise
                # A line a minute and chain: while it is away every job meets that.
                log_once_per(
                    60.0,
                    logger,
                    logging.INFO,
                    "%s could not be read, trying again in %.1f s: %s",
                    self.chain.slug,
                    wait,
                    error,
                    key=("reading", self.chain.slug),
                    extra={"chain": self.chain.slug, "attempt": number + 1},
                )
                await trio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _anywhere(self, attempt: Callable[[Provider], Awaitable[T]]) -> T:
        errors: list[Transient | Permanent] = []
        for provider in self.in_order():
            ticket = self.breakers.admit(provider.name)
            if ticket is None:
                continue
            verdict: Verdict = "neutral"
            try:
                result = await attempt(provider)
                verdict = "good"
            except _Elsewhere as failed:
                # Another endpoint had taken over and failed: it is the one to blame.
                errors.append(failed.error)
                self.judge(failed.provider, failed.error)
                self._pass_over(failed.provider, failed.error)
            except FAILURES as error:
                errors.append(error)
                verdict = self.judge(provider, error)
                self._pass_over(provider, error)
            finally:
                # Cancelled, the ticket says nothing but frees the place of a probe.
                reason = str(errors[-1]) if verdict == "bad" else None
                self.breakers.settle(provider.name, ticket, verdict, reason)
            if verdict == "good":
                provider.avoid_until = 0.0
                return result
        if not errors:
            raise self._shut()
        # An endpoint that may recover decides: with it, trying again can help.
        raise next((error for error in errors if isinstance(error, Transient)), errors[0])

    async def _beside_scout(self, provider: Provider, attempt: Callable[[Caller], Awaitable[T]]) -> T:
        """`attempt` at `provider`, and a look at another endpoint meanwhile if it is time for one."""
        lane = Lane(self, provider) if self.hedges.share > 0 else provider.client
        scouted = self._due_for_a_look(provider)
        try:
            return await (attempt(lane) if scouted is None else self._with_scout(scouted, partial(attempt, lane)))
        except FAILURES as error:
            if isinstance(lane, Lane) and lane.provider is not provider:
                raise _Elsewhere(lane.provider, error) from error
            raise

    async def _with_scout(self, scouted: Provider, attempt: Callable[[], Awaitable[T]]) -> T:
        outcome: list[T] = []
        failure: EndpointError | Refused | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._scout, scouted)
            try:
                outcome.append(await attempt())
            except FAILURES as error:
                failure = error
            # What the scout has not found out by now must not delay the read.
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return outcome[0]

    def _due_for_a_look(self, busy: Provider) -> Provider | None:
        now = trio.current_time()
        for provider in self.providers:
            on_probation = self.breakers.mode(provider.name) == "half-open"
            interval = _PROBE_S if on_probation else _SCOUT_S
            if provider is not busy and max(provider.scouted_at, provider.head_at) + interval <= now:
                return provider
        return None

    async def _scout(self, provider: Provider) -> None:
        provider.scouted_at = trio.current_time()
        ticket = self.breakers.admit(provider.name)
        if ticket is None:
            return
        verdict: Verdict = "neutral"
        reason: str | None = None
        try:
            await self.verify(provider.client)
            head = await provider.client.call("eth_blockNumber", [], str)
            self.saw_head(provider.client, parse_quantity(provider.client, "eth_blockNumber", head))
            verdict = "good"
        except FAILURES as error:
            verdict, reason = self.judge(provider, error), str(error)
            self._pass_over(provider, error)
        finally:
            self.breakers.settle(provider.name, ticket, verdict, reason)

    def rival(self, provider: Provider) -> Provider | None:
        """Whom to ask when `provider` is slow: sound, and known to serve our chain."""
        known = (other for other in self.in_order() if other is not provider and not self.needs_check(other.client))
        return next((other for other in known if self.is_sound(other)), None)

    def judge(self, provider: Provider, error: Exception) -> Verdict:
        """What a failure says about the endpoint; what its breaker needs besides that is done."""
        match error:
            case KeyRefused():
                self.breakers.trip(provider.name, str(error), _REFUSED_S)
            case WrongChain() | Lagging() | Unpinned():
                self.breakers.quarantine(provider.name, str(error))
            case RateLimited() | TooLarge() | Unreadable():
                pass
            case _:
                return "bad"
        return "neutral"

    def _shut(self) -> Shut:
        waits = [self.breakers.wait_s(provider.name) for provider in self.providers]
        soonest = min((wait for wait in waits if wait is not None), default=None)
        views = [self.breakers.view(provider.name) for provider in self.providers]
        why = "; ".join(_why_shut(view) for view in views)
        return Shut(f"no endpoint of {self.chain.slug} may be asked now: {why}", retry_after=soonest)

    def _pass_over(self, provider: Provider, error: Exception) -> None:
        if provider.avoid_until <= trio.current_time() and len(self.providers) > 1:
            logger.warning(
                "%s of %s is asked last for a while: %s",
                provider.client.host,
                self.chain.slug,
                error,
                extra={"chain": self.chain.slug, "provider": provider.client.host},
            )
        provider.avoid_until = trio.current_time() + _AVOID_S

    def in_order(self) -> list[Provider]:
        """Healthy ones first, then by latency, then as configured."""
        if len(self.providers) == 1:
            return list(self.providers)
        now = trio.current_time()
        ranked = []
        for place, provider in enumerate(self.providers):
            has_failed = max(provider.avoid_until, provider.rest_until) > now
            on_probation = self.breakers.mode(provider.name) != "closed"
            trouble = 2 if has_failed else 1 if on_probation else 0
            ranked.append((latency.rank(trouble, provider.speed(), place), provider))
        return [provider for _, provider in sorted(ranked, key=lambda pair: pair[0])]

    # ---- what readers find out about an endpoint -----------------------------------------------------------------

    def saw_head(self, caller: Caller, height: int) -> None:
        """Note an endpoint's head. Raises Lagging when it is far behind an endpoint that may be asked instead."""
        provider = self._provider(caller)
        provider.saw_head(height)
        others = self._others(provider)
        best = max((other.head for other in others), default=0)
        behind = latency.lag_blocks(height, best)
        if behind > self._lag_blocks:
            raise Lagging(f"{caller.host} is {behind} blocks behind the other endpoints of {self.chain.slug}")

    def saw_pin_ignored(self, caller: Caller, block: int) -> None:
        """An endpoint answered for another block than `block`. Raises Unpinned when there is another one to ask."""
        what = f"{caller.host} answers for another block than the one asked for ({block})"
        if self._others(self._provider(caller)):
            raise Unpinned(what)
        logger.warning("%s, and there is no other endpoint of %s", what, self.chain.slug)

    def _others(self, provider: Provider) -> list[Provider]:
        if len(self.providers) == 1:
            return []
        return [other for other in self.providers if other is not provider and self.is_sound(other)]

    def _provider(self, caller: Caller) -> Provider:
        return caller.provider if isinstance(caller, Lane) else self._by_client[caller]

    def is_sound(self, provider: Provider) -> bool:
        """It may be asked, and has not failed a moment ago."""
        now = trio.current_time()
        return max(provider.avoid_until, provider.rest_until) <= now and self.breakers.mode(provider.name) == "closed"

    def needs_check(self, caller: Caller) -> bool:
        """Whether `verify` would ask."""
        return self._provider(caller).checked_until <= trio.current_time()

    async def verify(self, caller: Caller) -> None:
        """Make sure, once in `recheck_s` seconds, that it serves our chain. Raises WrongChain naming both ids."""
        if not self.needs_check(caller):
            return
        provider = self._provider(caller)
        client = provider.client
        provider.checked_until = 0.0
        answer = await client.call("eth_chainId", [], str)
        served = parse_quantity(client, "eth_chainId", answer)
        if served != self.chain.id:
            raise WrongChain(
                f"{client.host} serves chain {served}, but it is configured for {self.chain.slug} "
                f"(chain {self.chain.id}): correct the endpoint's URL"
            )
        provider.checked_until = trio.current_time() + self._recheck_s


def parse_quantity(client: Caller, method: str, answer: str) -> int:
    """A JSON-RPC quantity (0x hex). Raises Garbage."""
    try:
        number = int(answer, 16)
    except ValueError:
        number = -1
    if not answer.startswith("0x") or not 0 <= number < 2**256:
        raise Garbage(f"{client.host}: answered garbage to {method}: {answer[:20]!r} is no quantity")
    return number
