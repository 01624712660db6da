"""What may go wrong, per upstream, and the dice that decide when.

Every upstream rolls its own dice from the seed: the n-th request to it meets the same fate in every run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any, Literal, NamedTuple

import msgspec

from moonxd.domain.errors import ConfigError

Rate = float

_RATES = (
    "error_rate",
    "rpc_error_rate",
    "rate_limit_rate",
    "hang_rate",
    "drop_rate",
    "malformed_rate",
    "oversize_rate",
)


class Knobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The knobs of one upstream. Rates are shares of the requests, 0..1, tried in the order they stand here."""

    #: Median of the answer time; with sigma 0 it is fixed, else lognormal. Jitter adds up to +- so many ms.
    latency_ms: float = 0.0
    latency_sigma: float = 0.0
    latency_jitter_ms: float = 0.0
    #: Never answered; the connection stays open.
    hang_rate: Rate = 0.0
    #: The connection is closed instead of an answer.
    drop_rate: Rate = 0.0
    error_rate: Rate = 0.0
    error_status: int = 503
    rate_limit_rate: Rate = 0.0
    #: Seconds in the Retry-After header; None leaves it out.
    retry_after_s: int | None = 1
    malformed_rate: Rate = 0.0
    malformed_kind: Literal["html", "truncated", "empty", "wrong-shape"] = "html"
    oversize_rate: Rate = 0.0
    oversize_bytes: int = 10_000_000
    #: A JSON-RPC error inside an HTTP 200; chains only.
    rpc_error_rate: Rate = 0.0
    rpc_error_code: int = -32000
    rpc_error_message: str = "internal error"
    #: Faults (not latency) hold for these JSON-RPC methods only; empty: for every request.
    methods: tuple[str, ...] = ()
    #: How many faults may still happen; None: no end.
    fault_budget: int | None = None
    #: Prices of this source are multiplied by it.
    price_factor: float = 1.0
    #: Bridges know no way for any transfer; the service is fine.
    no_route: bool = False
    #: What LI.FI says that it still grants.
    granted: int = 199
    # The rest is about chains and stands at the plain endpoint's name; Alchemy's endpoint shares its chain's state.
    wrong_chain_id: int | None = None
    halted: bool = False
    #: Seconds; None is the chain's own pace.
    block_time_s: float | None = None
    #: Subscriptions to new heads stand and say nothing, or are refused.
    mute_heads: bool = False
    no_subscriptions: bool = False
    #: A share `lag_rate` of the requests is answered by a node that is `lag_blocks` behind.
    lag_blocks: int = 0
    lag_rate: Rate = 1.0
    #: Share of the eth_calls that revert.
    revert_rate: Rate = 0.0
    gas_cap: int = 50_000_000
    #: Token addresses whose balanceOf burns its gas, or reverts, besides those that do so by themselves.
    poison: tuple[str, ...] = ()
    reverting: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*_RATES, "lag_rate", "revert_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {getattr(self, name)}")
        for name in ("latency_ms", "latency_sigma", "latency_jitter_ms", "lag_blocks", "gas_cap", "oversize_bytes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, it is {getattr(self, name)}")
        if self.block_time_s is not None and self.block_time_s <= 0:
            raise ValueError("block_time_s must be more than 0; use halted for a chain that stands still")
        if not 100 <= self.error_status <= 599:
            raise ValueError(f"error_status must be an HTTP status, not {self.error_status}")


class Fate(NamedTuple):
    """What happens to one request: a delay in seconds, then a fault (the name of its rate without `_rate`) or none."""

    delay: float = 0.0
    fault: str = ""


FINE = Fate()


class Upstream:
    """One simulated server with its knobs, its dice and its counters."""

    def __init__(self, name: str, seed: str) -> None:
        self.name = name
        self._seed = f"{seed}/{name}"
        self.turn(Knobs())
        self.restart()

    def turn(self, knobs: Knobs) -> None:
        """Put other knobs in force."""
        self.knobs = knobs
        self._rates = [(name[:-5], getattr(knobs, name)) for name in _RATES if getattr(knobs, name)]
        self._left = knobs.fault_budget
        self._quiet = not self._rates and not (knobs.latency_ms or knobs.latency_jitter_ms)

    def restart(self) -> None:
        """Fresh dice and counters."""
        self._dice = Random(self._seed)
        self.requests = 0
        self.methods: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def fate(self, methods: tuple[str, ...] = ()) -> Fate:
        """Roll the dice for one request that carries `methods`."""
        self.requests += 1
        if self._quiet:
            return FINE
        return Fate(self._delay(), self._fault(methods))

    def chance(self, rate: Rate) -> bool:
        """Whether something with this share happens now; 0 and 1 roll no dice."""
        return rate > 0 and (rate >= 1 or self._dice.random() < rate)

    def _delay(self) -> float:
        knobs = self.knobs
        delay = knobs.latency_ms
        if knobs.latency_sigma:
            delay *= math.exp(self._dice.gauss(0.0, knobs.latency_sigma))
        if knobs.latency_jitter_ms:
            delay += self._dice.uniform(-knobs.latency_jitter_ms, knobs.latency_jitter_ms)
        return max(0.0, delay / 1000)

    def _fault(self, methods: tuple[str, ...]) -> str:
        if self.knobs.methods and not set(self.knobs.methods).intersection(methods):
            return ""
        for name, rate in self._rates:
            if self._left == 0:
                return ""
            if self.chance(rate):
                if self._left is not None:
                    self._left -= 1
                self.faults[name] += 1
                return name
        return ""


def patched(knobs: Knobs, change: Mapping[str, Any]) -> Knobs:
    """`knobs` with some of them changed. Raises ConfigError that names the knob and what is allowed."""
    try:
        return msgspec.convert({**msgspec.to_builtins(knobs), **change}, Knobs)
    except msgspec.ValidationError as error:
        raise ConfigError(f"knob not understood: {error}. Known knobs: {', '.join(Knobs.__struct_fields__)}") from error
