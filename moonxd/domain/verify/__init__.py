"""Whether queue, ledger, outbox and topic tell one story. Pure: facts go in, findings come out."""

from __future__ import annotations

from .facts import Claim, Fact, Held, Letter, Record, Row, Told
from .findings import KINDS, Finding, Found, Kind, Report, Tally
from .job import judge_job, unknown_jobs
from .operation import Scope, judge_operation, open_jobs
from .outbox import Standing, Watch
from .wallet import judge_wallet

__all__ = [
    "KINDS",
    "Claim",
    "Fact",
    "Finding",
    "Found",
    "Held",
    "Kind",
    "Letter",
    "Record",
    "Report",
    "Row",
    "Scope",
    "Standing",
    "Tally",
    "Told",
    "Watch",
    "judge_job",
    "judge_operation",
    "judge_wallet",
    "open_jobs",
    "unknown_jobs",
]
