"""What a job type is, and what it may use. There are three kinds:

JobType     one wallet: admitted, read, committed
ManyType    many wallets in one job, each of which goes through a JobType by itself
ErrandType  no wallet at all
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..domain.batch import WalletBatch
from ..domain.job import Backoff
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
class Terms:
    """What holds for the jobs of one type whose producer did not say otherwise. None: what holds for every job."""

    timeout_s: float | None = None
    attempts: int | None = None
    backoff: Backoff | None = None
    #: Of this worker's slots, rounded up: more jobs of the type than that wait, however many slots are idle.
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class JobType:
    """`parse` raises Permanent on a payload it cannot use; `run` raises Transient or Permanent."""

    name: str
    parse: Callable[[bytes], WalletSync]
    run: Callable[[WalletSync, Admitted, Env, Step], Awaitable[Found]]


@dataclass(frozen=True, slots=True)
class ManyType:
    """Each wallet goes through `each`. `is_shared`: the wallets of a page are read together, in shared requests."""

    name: str
    parse: Callable[[bytes], WalletBatch]
    each: JobType
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class ErrandType:
    """`run` gets the payload, and returns what becomes the job's return value. It may be repeated at any time."""

    name: str
    run: Callable[[bytes, Env, Step], Awaitable[dict[str, Any]]]


AnyType = JobType | ManyType | ErrandType
