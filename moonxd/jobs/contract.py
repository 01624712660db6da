"""What a job type is, and what it may use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..domain.ledger import Admitted
from ..domain.payload import WalletSync
from ..domain.portfolio import PortfolioChange, PriceLookup
from ..domain.token import ChainFailure, TokenRef
from ..ports import ChainReader

#: Told the name of each step an attempt enters (fetch, price), for whoever watches.
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Env:
    """The outside, as job types see it."""

    #: Enabled chains by id.
    readers: Mapping[int, ChainReader]
    prices: Callable[[Sequence[TokenRef]], Awaitable[PriceLookup]]
    #: Longest one chain may hold up a wallet whose other chains are done.
    chain_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a sync before it is committed."""

    change: PortfolioChange
    #: Chains that were read; only their rows are touched.
    chains: tuple[int, ...]
    failures: tuple[ChainFailure, ...] = ()
    #: For the audit row: heights, sources, quarantined tokens.
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobType:
    """`parse` raises Permanent on a payload it cannot use; `run` raises Transient or Permanent."""

    name: str
    parse: Callable[[bytes], WalletSync]
    run: Callable[[WalletSync, Admitted, Env, Step], Awaitable[Found]]
