"""The job types: on what terms each of them runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from ..domain.job import Backoff
from .keys import Key, Section


class JobTerms(Section, frozen=True, kw_only=True):
    """One job type."""

    timeout_s: Annotated[float | None, Key("Deadline of an attempt. Unset: worker.timeout_s", low=0.001, live=True)] = (
        None
    )
    attempts: Annotated[
        int | None, Key("Attempts before a job is a dead letter. Unset: queue.attempts", low=1, live=True)
    ] = None
    backoff_delay_s: Annotated[
        float | None, Key("First pause after a failure. Unset: queue.backoff_delay_s", low=0, high=86400, live=True)
    ] = None
    share: Annotated[
        float, Key("Part of this worker's slots that jobs of this type may hold", low=0.001, high=1, live=True)
    ] = 1.0


class Jobs(Section, frozen=True, kw_only=True):
    """What differs by type of job. What a job's producer said wins."""

    portfolio_sync: JobTerms = JobTerms()
    bulk_sync: JobTerms = JobTerms(timeout_s=3600.0, share=0.3)
    chain_sync: JobTerms = JobTerms(timeout_s=900.0, share=0.3)
    token_metadata: JobTerms = JobTerms(timeout_s=120.0, share=0.2)

    def by_type(self) -> Iterator[tuple[str, JobTerms]]:
        """Each with the type's name as jobs carry it."""
        for name in self.__struct_fields__:
            yield name.replace("_", "-"), getattr(self, name)


def backoff_of(terms: JobTerms, otherwise: Backoff) -> Backoff | None:
    """None when the type says nothing of its own."""
    if terms.backoff_delay_s is None:
        return None
    return Backoff(otherwise.kind, round(terms.backoff_delay_s * 1000), otherwise.jitter, otherwise.multiplier)
