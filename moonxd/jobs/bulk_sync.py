"""Refresh many wallets of many users: each as if it had a job of its own, page by page, with one result for all."""

from __future__ import annotations

from ..domain.batch import parse_wallet_batch
from .contract import JobType, ManyType


def of(each: JobType) -> ManyType:
    """The type whose wallets go through `each`."""
    return ManyType(name="bulk-sync", parse=parse_wallet_batch, each=each)
