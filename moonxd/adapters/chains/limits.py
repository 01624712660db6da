"""What providers grant, in their own unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from ...domain.quota import Charge
from ...ports import Quota
from .provider import Limits

#: Alchemy's price list: compute units per method (2026-11).
_UNITS = {
    "alchemy_getTokenBalances": 20,
    "alchemy_getTokenMetadata": 10,
    "eth_call": 26,
    "eth_getBalance": 20,
    "eth_getBlockByNumber": 20,
    "eth_blockNumber": 10,
    "eth_feeHistory": 10,
    "eth_gasPrice": 20,
    "eth_chainId": 0,
}
_UNITS_OTHERWISE = 26
#: And for a head that is announced over a subscription: 0.04 a byte, which are about a thousand.
UNITS_PER_HEAD = 40
#: Alchemy measures its throughput over so many seconds.
_ALCHEMY_WINDOW_S = 10.0
_MINUTE_S = 60.0
_DAY_S = 86400.0


def alchemy_units(methods: Iterable[str]) -> int:
    """Compute units that calls of these methods cost."""
    return sum(_UNITS.get(method, _UNITS_OTHERWISE) for method in methods)


def alchemy_limits(
    quota: Quota, key: str, *, units_per_s: int, rpm: int, statistics_per_day: int | None = None
) -> Limits:
    """One key's compute units and requests, whichever chains they are for.

    `statistics_per_day`: these requests are for statistics, which may spend no more units of the key than this.
    """
    # A name for the key's budget that does not give the key away.
    name = f"alchemy:{sha256(key.encode()).hexdigest()[:12]}"

    def charges(methods: Sequence[str]) -> Sequence[Charge]:
        units = alchemy_units(methods)
        shared = (
            Charge(f"{name}:units", units, round(units_per_s * _ALCHEMY_WINDOW_S), _ALCHEMY_WINDOW_S),
            Charge(f"{name}:requests", len(methods), rpm, _MINUTE_S),
        )
        if statistics_per_day is None:
            return shared
        return *shared, Charge(f"{name}:statistics", units, statistics_per_day, _DAY_S)

    return Limits(quota, charges)


def request_limits(quota: Quota, name: str, rpm: int) -> Limits:
    """So many requests a minute to one endpoint."""

    def charges(methods: Sequence[str]) -> Sequence[Charge]:
        return (Charge(f"requests:{name}", len(methods), rpm, _MINUTE_S),)

    return Limits(quota, charges)
