"""What is asked of one endpoint in one round of statistics, and what came back."""

from __future__ import annotations

import msgspec

from .blocktime import Block
from .stats import Probe


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """The older block to measure the block time with: `older`, or, when that is None, `back` blocks before the head."""

    older: int | None
    back: int


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint at one moment. What could not be learnt is None, whatever the outcome."""

    #: The endpoint's host name: all that may be shown of it.
    host: str
    outcome: Probe
    error: str | None = None
    #: Seconds that each of a few equal requests on an open connection took; only of looks that are ok.
    latencies: tuple[float, ...] = ()
    head: Block | None = None
    older: Block | None = None
    finalized: int | None = None
    gas_price_wei: int | None = None
