"""How one upstream is asked with manners: a budget, a rest when it asks for one, a breaker, retries with backoff."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import msgspec
import trio

from ..domain.breaker import Policy, Verdict
from ..domain.breakers import Breakers
from ..domain.errors import Transient
from ..domain.job import Backoff
from ..domain.quota import Charge, Windows
from ..domain.retry import backoff_delay
from .rpc.errors import EndpointError, HttpFailure, RateLimited, Refused, TimedOut, Unreachable
from .rpc.wire import Reply

T = TypeVar("T")

#: Five failed asks in a row, then it is left alone for two minutes, later for up to ten.
POLICY = Policy(streak=5, min_volume=1_000_000_000, open_s=120.0, open_max_s=600.0, closes_after=1)
#: Rest when it asked for one without saying how long, and the longest that is believed.
_REST_S = 60.0
_REST_MAX_S = 2 * 3600.0
#: With so few requests granted any more it is left alone until they are counted anew.
_SPARED = 5
#: Taken off a surrounding deadline, so that our own timeout comes first and says what happened.
_MARGIN_S = 0.05


class Held(Transient):
    """It was not asked at all: the message says why, `retry_after` when it may be.

    `limited`: for the sake of its limits, else for its failures.
    """

    def __init__(self, message: str, *, retry_after: float | None, limited: bool) -> None:
        super().__init__(message, retry_after=retry_after)
        self.limited = limited


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """What one upstream allows: `most` requests within any `window_s`. `timeout_s` bounds one request."""

    timeout_s: float = 10.0
    most: int = 50
    window_s: float = 60.0
    #: Tries of one ask, and the wait between them.
    tries: int = 2
    backoff: Backoff = Backoff(delay=500, jitter=0.5)
    policy: Policy = POLICY


class Upstream:
    """One upstream. Its breaker is `name` in `breakers`; time is trio's."""

    def __init__(self, name: str, breakers: Breakers, manners: Manners) -> None:
        self.name = name
        self._breakers = breakers
        self._manners = manners
        self._windows = Windows(trio.current_time)
        self._charge = Charge(name, 1, manners.most, manners.window_s)
        self._rest_until = 0.0
        breakers.register(name, manners.policy)

    async def ask(self, once: Callable[[float], Awaitable[T]]) -> T:
        """What `once(deadline)` gives, tried again where that can help and there is time.

        Raises Held when nothing was asked, else what the last try raised: EndpointError or Refused.
        """
        self._look_out()
        ticket = self._breakers.admit(self.name)
        if ticket is None:
            wait = self._breakers.wait_s(self.name)
            until = "" if wait is None else f" for {wait:.0f} s"
            raise Held(f"not asked: it failed too often and is left alone{until}", retry_after=wait, limited=False)
        verdict: Verdict = "neutral"
        reason: str | None = None
        try:
            result = await self._tried(once)
            verdict = "good"
            return result
        except (EndpointError, Refused) as error:
            verdict, reason = _judge(error), str(error)
            raise
        finally:
            self._breakers.settle(self.name, ticket, verdict, reason)

    async def aside(self, once: Callable[[float], Awaitable[T]], *, timeout_s: float) -> T:
        """One try that may fail without consequences; it counts against the budget. Raises as `ask`."""
        self._look_out()
        self._spend()
        return await once(self._deadline(min(timeout_s, self._manners.timeout_s)))

    def heard(self, reply: Reply) -> None:
        """Note what it says about our budget with it."""
        if reply.status == 429:
            self._rest(_REST_S if reply.retry_after is None else reply.retry_after)
        elif reply.remaining is not None and reply.remaining <= _SPARED:
            self._rest(_REST_S if reply.reset_s is None else reply.reset_s)

    def _rest(self, seconds: float) -> None:
        self._rest_until = max(self._rest_until, trio.current_time() + min(seconds, _REST_MAX_S))

    def _look_out(self) -> None:
        wait = self._rest_until - trio.current_time()
        if wait > 0:
            said = f"not asked: its limit is used up, it is left alone for {wait:.0f} s"
            raise Held(said, retry_after=wait, limited=True)

    def _spend(self) -> None:
        wait = self._windows.take((self._charge,))
        if wait > 0:
            most, window_s = self._charge.limit, self._charge.window_s
            said = f"not asked: our {most} requests in {window_s:g} s are used up"
            raise Held(said, retry_after=wait, limited=True)

    async def _tried(self, once: Callable[[float], Awaitable[T]]) -> T:
        self._spend()
        for attempt in range(1, self._manners.tries):
            try:
                return await once(self._deadline(self._manners.timeout_s))
            except EndpointError as error:
                wait_s = backoff_delay(self._manners.backoff, attempt, random.random()) / 1000
                if not _is_worth_it(error) or trio.current_effective_deadline() < trio.current_time() + 2 * wait_s:
                    raise
                failed = error
            await trio.sleep(wait_s)
            try:
                self._spend()
            except Held:
                raise failed from None
        return await once(self._deadline(self._manners.timeout_s))

    def _deadline(self, timeout_s: float) -> float:
        return min(trio.current_time() + timeout_s, trio.current_effective_deadline() - _MARGIN_S)


def _is_worth_it(error: EndpointError) -> bool:
    """Whether a second try may help. Who had to wait for a timeout has waited long enough; a limit is a limit."""
    if isinstance(error, HttpFailure):
        return error.status >= 500
    return not isinstance(error, (TimedOut, RateLimited))


def _judge(error: Exception) -> Verdict:
    # Without a connection nobody was burdened, and it may be our own network.
    return "neutral" if isinstance(error, (RateLimited, Refused, Unreachable)) else "bad"


class Kept(Generic[T]):
    """One answer, kept for `ttl_s`; that there was none is kept for `failed_s`. Times are trio's."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], *, ttl_s: float, failed_s: float = 60.0) -> None:
        self._fetch = fetch
        self._ttl_s = ttl_s
        self._failed_s = failed_s
        self._lock = trio.Lock()
        self._until = float("-inf")
        #: The last answer, however old.
        self.last: T | None = None
        #: Why the last attempt to fetch one failed.
        self.error: str | None = None

    async def get(self) -> T | None:
        """The answer, at most `ttl_s` old; an older one, or None, when there is no newer one to be had."""
        async with self._lock:
            if trio.current_time() >= self._until:
                try:
                    self.last, self.error = await self._fetch(), None
                    self._until = trio.current_time() + self._ttl_s
                except (Transient, Refused) as error:
                    self.error = str(error)
                    self._until = trio.current_time() + self._failed_s
        return self.last
