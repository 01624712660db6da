"""One endpoint looked at for statistics: its head and an older block, its fees, how fast it answers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec
import trio

from ...domain.breaker import Policy, Verdict
from ...domain.breakers import Breakers
from ...domain.chain import Chain
from ...domain.looks import Look, Want
from ...domain.stats import Probe
from ..rpc import Call, RpcClient
from ..rpc.errors import (
    FAILURES,
    EndpointError,
    Garbage,
    HttpFailure,
    KeyRefused,
    RateLimited,
    Refused,
    RpcError,
    TimedOut,
    TooLarge,
    Unreachable,
)
from .blocks import RawBlock, read_block
from .provider import Limits
from .reading import WrongChain, parse_quantity

#: Keyless endpoints answer three calls in one request at most.
_BATCH_MAX = 3
_LATENCY_CALLS = 5
#: An endpoint may be moved to another chain behind our back, but not every minute.
_RECHECK_S = 600.0
#: A refused key stays refused until somebody changes it.
_REFUSED_S = 900.0
#: How long an endpoint rests that asked us to slow down without saying for how long.
_REST_S = 30.0
#: What may go wrong with one question while the endpoint is sound.
_UNANSWERED = (RpcError, Garbage, TooLarge)
#: Chains without a base fee: their price is what the node suggests. And chains where nothing buys precedence.
_SUGGESTED_GAS, _NO_PRIORITY = frozenset((56,)), frozenset((42161,))

POLICY = Policy(streak=5, open_s=30.0, open_max_s=120.0, calm_s=120.0)


class _Fees(msgspec.Struct, rename="camel"):
    base_fee_per_gas: list[str]
    reward: list[list[str]] = []


class EndpointProbe:
    """`name` is its breaker's, `label` what is shown. On a metered endpoint a look is a lean one, once in `every_s`."""

    def __init__(
        self,
        chain: Chain,
        client: RpcClient,
        *,
        name: str,
        label: str,
        breakers: Breakers,
        limits: Limits | None = None,
        timeout_s: float = 10.0,
        every_s: float = 0.0,
        is_metered: bool = False,
        policy: Policy = POLICY,
        subject: str = "",
    ) -> None:
        self._chain = chain
        self._client = client
        self._name = name
        self.host = label
        self._breakers = breakers
        self._limits = limits
        self._timeout_s = timeout_s
        self._every_s = every_s
        self._is_metered = is_metered
        breakers.register(name, policy, subject)
        self._due_at = -math.inf
        self._rest_until = -math.inf
        self._checked_until = -math.inf
        self._batches = True

    async def look(self, want: Want) -> Look | None:
        """As the port says."""
        if trio.current_time() < self._due_at:
            return None
        ticket = self._breakers.admit(self._name)
        if ticket is None:
            # Not looked at is not failed again: what is known of it stands.
            return self._cordoned()
        verdict: Verdict = "neutral"
        reason: str | None = None
        try:
            look = await self._bounded(want)
            verdict, reason = self._verdict(look), look.error
        finally:
            self._breakers.settle(self._name, ticket, verdict, reason if verdict == "bad" else None)
        return look

    def _cordoned(self) -> Look | None:
        view = self._breakers.view(self._name)
        if view.mode != "cordoned":
            return None
        return self._missed(Probe.REFUSED, f"{self.host} is cordoned: {view.reason or 'no reason given'}")

    def _verdict(self, look: Look) -> Verdict:
        if look.outcome is Probe.OK:
            return "good"
        return "bad" if look.outcome in (Probe.TIMEOUT, Probe.NETWORK, Probe.SERVER_ERROR) else "neutral"

    async def _bounded(self, want: Want) -> Look:
        with trio.move_on_after(self._timeout_s):
            try:
                return await self._look(want)
            except FAILURES as error:
                return self._failed(error)
        return self._missed(Probe.TIMEOUT, f"{self.host}: not everything was answered within {self._timeout_s:g} s")

    def _failed(self, error: EndpointError | Refused) -> Look:
        if isinstance(error, RateLimited):
            self._rest(error)
        if isinstance(error, KeyRefused):
            self._breakers.trip(self._name, str(error), _REFUSED_S)
        return self._missed(outcome_of_probe(error), str(error))

    def _rest(self, error: RateLimited) -> None:
        rest_s = _REST_S if error.retry_after is None else error.retry_after
        self._rest_until = max(self._rest_until, trio.current_time() + rest_s)

    def _missed(self, outcome: Probe, error: str) -> Look:
        return Look(host=self.host, outcome=outcome, error=error)

    # ---- the questions -------------------------------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        """What a look asks, at most."""
        return look_methods(self._chain, is_metered=self._is_metered)

    async def _look(self, want: Want) -> Look:
        await self._take_turn()
        await self._verify()
        answers = await self._ask(self._block_calls(want))
        if not isinstance(answers[0], RawBlock):
            raise self._no_block(answers[0])
        head = read_block(answers[0], self.host)
        if want.older is None:
            number = max(0, head.number - want.back)
            # Still the same endpoint: another one may be on another height, or another branch.
            answers[1:1] = await self._ask([_block_call(hex(number))])
        older, finalized = (self._optional(answer) for answer in (*answers[1:3], None)[:2])
        gas = await self._gas()
        latencies = await self._latencies()
        return Look(
            host=self.host,
            outcome=Probe.OK,
            latencies=latencies,
            head=head,
            older=read_block(older, self.host) if older else None,
            finalized=read_block(finalized, self.host).number if finalized else None,
            gas_price_wei=gas,
        )

    async def _take_turn(self) -> None:
        """Pay for the whole look at once: nothing of it waits for a budget, which would look like a slow endpoint."""
        now = trio.current_time()
        wait = self._rest_until - now
        if wait <= 0 and self._limits is not None:
            wait = await self._limits.quota.take(self._limits.charges(self.methods()))
        if wait > 0:
            raise RateLimited(f"{self.host}: its limit is used up for {wait:.0f} s", retry_after=wait)
        self._due_at = now + self._every_s

    async def _verify(self) -> None:
        if trio.current_time() < self._checked_until:
            return
        served = parse_quantity(self._client, "eth_chainId", await self._client.call("eth_chainId", [], str))
        if served != self._chain.id:
            raise WrongChain(
                f"{self.host} serves chain {served}, but it is configured for {self._chain.slug} "
                f"(chain {self._chain.id}): correct the endpoint's URL"
            )
        self._checked_until = trio.current_time() + _RECHECK_S

    def _block_calls(self, want: Want) -> list[Call]:
        tags = ["latest"] if want.older is None else ["latest", hex(want.older)]
        return [_block_call(tag) for tag in (tags if self._is_metered else [*tags, "finalized"])]

    async def _ask(self, calls: Sequence[Call]) -> list[Any]:
        """The results in one request where the endpoint takes such; the place of a failed one holds its error."""
        if self._batches and 1 < len(calls) <= _BATCH_MAX:
            try:
                return await self._client.batch(calls)
            except (*_UNANSWERED, HttpFailure, Refused) as error:
                if isinstance(error, KeyRefused) or _is_theirs(error):
                    raise
                self._batches = False
        return [await self._answer(call) for call in calls]

    async def _answer(self, call: Call) -> Any:
        try:
            return await self._client.call(call.method, call.params, call.kind)
        except _UNANSWERED as error:
            return error

    def _optional(self, answer: Any) -> RawBlock | None:
        """A block that the endpoint may not have any more; trouble with the endpoint itself is raised."""
        if isinstance(answer, RawBlock):
            return answer
        if isinstance(answer, BaseException) and not isinstance(answer, (*_UNANSWERED, Refused)):
            raise answer
        return None

    def _no_block(self, answer: Any) -> BaseException:
        return answer if isinstance(answer, BaseException) else Garbage(f"{self.host}: has no latest block")

    async def _gas(self) -> int | None:
        """Wei per gas that a transaction pays now; None when the endpoint will not say."""
        try:
            if self._chain.id not in _SUGGESTED_GAS:
                return await self._priced_gas()
        except (*_UNANSWERED, Refused) as error:
            if isinstance(error, KeyRefused):
                raise
        if self._is_metered and self._chain.id not in _SUGGESTED_GAS:
            return None
        try:
            return parse_quantity(self._client, "eth_gasPrice", await self._client.call("eth_gasPrice", [], str))
        except _UNANSWERED:
            return None

    async def _priced_gas(self) -> int:
        """The next block's base fee, and the median of what the middle transaction of the last ones paid on top."""
        fees = await self._client.call("eth_feeHistory", ["0x5", "latest", [50]], _Fees)
        if not fees.base_fee_per_gas:
            raise Garbage(f"{self.host}: answered garbage to eth_feeHistory: it has no base fee")
        base = self._quantity(fees.base_fee_per_gas[-1])
        tips = [self._quantity(row[0]) for row in fees.reward if row]
        return base + (round(median(tips)) if tips and self._chain.id not in _NO_PRIORITY else 0)

    def _quantity(self, text: str) -> int:
        return parse_quantity(self._client, "eth_feeHistory", text)

    async def _latencies(self) -> tuple[float, ...]:
        latencies: list[float] = []
        for _ in range(1 if self._is_metered else _LATENCY_CALLS):
            try:
                latencies.append(await self._timed())
            except RateLimited as error:
                # Fewer samples are still samples.
                if not latencies:
                    raise
                self._rest(error)
                break
        return tuple(latencies)

    async def _timed(self) -> float:
        """Seconds of one request on the connection that the questions before have opened."""
        started = time.perf_counter()
        await self._client.call("eth_blockNumber", [], str)
        return time.perf_counter() - started


def _block_call(tag: str) -> Call:
    return Call("eth_getBlockByNumber", [tag, False], RawBlock | None)


def look_methods(chain: Chain, *, is_metered: bool) -> tuple[str, ...]:
    """The methods of one look; those of a metered endpoint are all that it costs."""
    gas = "eth_gasPrice" if chain.id in _SUGGESTED_GAS else "eth_feeHistory"
    blocks = 2 if is_metered else 3
    latency = 1 if is_metered else _LATENCY_CALLS
    return ("eth_chainId", *["eth_getBlockByNumber"] * blocks, gas, *["eth_blockNumber"] * latency)


def _is_theirs(error: BaseException) -> bool:
    """Whether the endpoint failed, rather than did not like the form of the question."""
    return isinstance(error, HttpFailure) and error.status >= 500


def outcome_of_probe(error: EndpointError | Refused) -> Probe:
    """What a failed request says."""
    match error:
        case WrongChain():
            return Probe.WRONG_CHAIN
        case Refused():
            return Probe.REFUSED
        case RateLimited():
            return Probe.RATE_LIMITED
        case TimedOut():
            return Probe.TIMEOUT
        case Unreachable():
            return Probe.NETWORK
        case HttpFailure(status=status) if status < 500:
            return Probe.REFUSED
        case _:
            return Probe.SERVER_ERROR
