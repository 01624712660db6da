"""The job types: one file each, one line each in JOBS. A name that is not here fails with a clear reason, unretried."""

from __future__ import annotations

from ..domain.errors import Permanent
from . import bulk_sync, chain_sync, portfolio_sync, token_metadata
from .contract import AnyType, Env, ErrandType, Found, JobType, ManyType, Step, Terms

__all__ = ["JOBS", "AnyType", "Env", "ErrandType", "Found", "JobType", "ManyType", "Step", "Terms", "job_type"]

JOBS: dict[str, AnyType] = {
    "portfolio-sync": portfolio_sync.TYPE,
    # What the producers that exist already call the same thing.
    "sync-job": portfolio_sync.TYPE,
    "bulk-sync": bulk_sync.of(portfolio_sync.TYPE),
    "chain-sync": chain_sync.of(portfolio_sync.TYPE),
    "token-metadata": token_metadata.TYPE,
}


def job_type(name: str) -> AnyType:
    """Raises Permanent for a name nobody handles."""
    kind = JOBS.get(name)
    if kind is None:
        raise Permanent(f"unknown job type {name!r:.80}: this worker handles {', '.join(JOBS)}")
    return kind
