"""Who waits for a job to end hears of it from the worker at once, as long as the job ends in this process."""

from __future__ import annotations

from collections import OrderedDict

import msgspec
import trio

from ..api.messages import JobDetail, Timestamps
from ..domain.job import Completed, Failed, Job, JobState, Outcome

#: Results remembered for clients that ask just after the queue removed the job (removeOnComplete: true).
_REMEMBERED = 512
_LARGEST_RESULT = 16_384


class Settlements:
    """The jobs that ended here lately, and the clients waiting for one."""

    def __init__(self) -> None:
        self._recent: OrderedDict[str, JobDetail] = OrderedDict()
        self._waiting: dict[str, trio.Event] = {}

    def note(self, job: Job, outcome: Outcome, now_ms: int) -> None:
        """To be called after the queue took `outcome`. Outcomes that do not end a job are ignored."""
        if isinstance(outcome, Completed):
            result = msgspec.Raw(outcome.value if len(outcome.value) <= _LARGEST_RESULT else b"null")
            self._keep(_detail(job, JobState.COMPLETED, now_ms, result=result))
        elif isinstance(outcome, Failed):
            self._keep(_detail(job, JobState.FAILED, now_ms, reason=outcome.reason))

    @property
    def watched(self) -> int:
        return len(self._waiting)

    def recent(self, job_id: str) -> JobDetail | None:
        return self._recent.get(job_id)

    def watch(self, job_id: str) -> trio.Event:
        """Set when `job_id` ends here; take it before looking at the job, so that no end falls in between."""
        return self._waiting.setdefault(job_id, trio.Event())

    def forget(self, job_id: str) -> None:
        """Nobody waits for `job_id` any more (or whoever still does falls back to asking the queue)."""
        event = self._waiting.pop(job_id, None)
        if event is not None:
            event.set()

    def _keep(self, detail: JobDetail) -> None:
        self._recent[detail.job_id] = detail
        self._recent.move_to_end(detail.job_id)
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        self.forget(detail.job_id)


def _detail(
    job: Job, state: JobState, now_ms: int, *, result: msgspec.Raw | None = None, reason: str | None = None
) -> JobDetail:
    return JobDetail(
        job_id=job.id,
        name=job.name,
        queue=job.queue,
        state=state.value,
        attempts=job.attempts_made + 1,
        max_attempts=job.options.attempts,
        priority=job.options.priority,
        timestamps=Timestamps(created=job.timestamp, finished=now_ms),
        result=result,
        reason=reason,
        source="worker",
    )
