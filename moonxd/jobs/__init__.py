"""The job types: one file each, one line each in JOBS. A name that is not here fails with a clear reason, unretried."""

from __future__ import annotations

from ..domain.errors import Permanent
from . import portfolio_sync
from .contract import Env, Found, JobType, Step

__all__ = ["JOBS", "Env", "Found", "JobType", "Step", "job_type"]

JOBS: dict[str, JobType] = {
    "portfolio-sync": portfolio_sync.TYPE,
    # What the producers that exist already call the same thing.
    "sync-job": portfolio_sync.TYPE,
}


def job_type(name: str) -> JobType:
    """Raises Permanent for a name nobody handles."""
    kind = JOBS.get(name)
    if kind is None:
        raise Permanent(f"unknown job type {name!r:.80}: this worker handles {', '.join(JOBS)}")
    return kind
