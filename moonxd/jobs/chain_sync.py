"""Refresh one chain of many wallets: the wallets of a page share their requests to the chain."""

from __future__ import annotations

from ..domain.batch import parse_chain_batch
from .contract import JobType, ManyType


def of(each: JobType) -> ManyType:
    """The type whose wallets go through `each`."""
    return ManyType(name="chain-sync", parse=parse_chain_batch, each=each, is_shared=True)
