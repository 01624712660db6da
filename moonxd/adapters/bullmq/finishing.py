"""Ending several jobs in one call: slots that finish about the same time share one script call.

There is no task of its own behind it. A caller that finds room for another call becomes its leader: it calls the
script for all who wait and hands each its reply. Two calls may be on their way, so that Redis works on one while we
read the other; while both are, callers gather for the next. A call leaves as soon as half of the usual crowd has
gathered, in the middle of a scheduler pass and past the writer: Redis begins while the others go on, and the two sides
do not fall into lock step. A smaller one leaves at the end of the pass. So batches grow with the load by themselves,
and a lone job waits for nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from outcome import Error, Value
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from moonxd.domain.errors import MoonxdError

from ..redis.errors import RedisUnavailable
from ..redis.wire import Argument

_LEAD = object()
#: Jobs per call: one call holds Redis for about 20 us a job, and other clients wait that long.
MAX_BATCH = 32
MAX_FLYING = 2
#: How slowly the memory of the usual crowd fades, in calls.
_MEMORY = 8


class Ending:
    """One job to end: its key and the script's arguments for it."""

    __slots__ = ("args", "key", "reply", "task")

    def __init__(self, key: str, args: tuple[Argument, ...]) -> None:
        self.key = key
        self.args = args
        #: The caller, while it waits for its reply or for its turn to lead.
        self.task: Task | None = None
        #: A reply that came before its caller began to wait.
        self.reply: Value[Any] | Error | None = None


class Finisher:
    """`send` calls the script for a batch and returns one reply per item."""

    def __init__(self, send: Callable[[Sequence[Ending]], Awaitable[list[Any]]]) -> None:
        self._send = send
        self._pending: deque[Ending] = deque()
        self._gathering = False
        #: Calls on their way, the jobs in them, and how many jobs are usually under way or waiting.
        self._flying = 0
        self._jobs = 0
        self._crowd = 1.0

    async def submit(self, ending: Ending) -> Any:
        """The script's reply for `ending`. Raises what `send` raises.

        Once sent it is not cancellable: its reply may bring the next job, which would be lost. The wait is bounded by
        the client's command timeout.
        """
        self._pending.append(ending)
        self._crowd = max(self._crowd, self._jobs + len(self._pending))
        if self._flying < MAX_FLYING:
            if MAX_FLYING * len(self._pending) >= self._crowd:
                return await self._lead(ending)
            if not self._gathering:
                self._gathering = True
                await trio.lowlevel.cancel_shielded_checkpoint()
                self._gathering = False
                if self._flying < MAX_FLYING and ending in self._pending:
                    return await self._lead(ending)
                self._elect()
        while (reply := await self._wait(ending)) is _LEAD:
            self._gathering = False
            # Between being chosen and running, somebody else's call may have taken it along.
            if self._flying < MAX_FLYING and ending in self._pending:
                return await self._lead(ending)
        return reply

    async def _wait(self, ending: Ending) -> Any:
        if ending.reply is not None:
            return ending.reply.unwrap()
        ending.task = current_task()

        def abort(_raise_cancel: Any) -> Abort:
            if ending not in self._pending:
                return Abort.FAILED
            self._pending.remove(ending)
            return Abort.SUCCEEDED

        return await wait_task_rescheduled(abort)

    async def _lead(self, mine: Ending) -> Any:
        self._pending.remove(mine)
        batch = [mine]
        while self._pending and len(batch) < MAX_BATCH:
            batch.append(self._pending.popleft())
        self._flying += 1
        self._jobs += len(batch)
        self._crowd -= (self._crowd - self._jobs - len(self._pending)) / _MEMORY
        self._elect()
        try:
            with trio.CancelScope(shield=True):
                replies = await self._send(batch)
        except MoonxdError as error:
            for other in batch[1:]:
                _wake(other, Error(_again(error)))
            raise
        except BaseException:
            for other in batch[1:]:
                _wake(other, Error(RedisUnavailable("the call that ended the job was stopped", maybe_executed=True)))
            raise
        finally:
            self._flying -= 1
            self._jobs -= len(batch)
            self._elect()
        for other, reply in zip(batch[1:], replies[1:], strict=True):
            _wake(other, Value(reply))
        if len(batch) > 1:
            # Go on beside the others, not a pass ahead of them: who leads next would leave half of them behind.
            await trio.lowlevel.cancel_shielded_checkpoint()
        return replies[0]

    def _elect(self) -> None:
        """Somebody who waits leads the next call, if there is room for one and nobody does already."""
        if self._pending and not self._gathering and self._flying < MAX_FLYING:
            leader = self._pending[0]
            if leader.task is not None:
                self._gathering = True
                task, leader.task = leader.task, None
                reschedule(task, Value(_LEAD))


def _wake(ending: Ending, what: Value[Any] | Error) -> None:
    if ending.task is None:
        ending.reply = what
    else:
        reschedule(ending.task, what)


def _again(error: MoonxdError) -> MoonxdError:
    """A copy: one exception raised in several tasks would collect all their tracebacks."""
    if isinstance(error, RedisUnavailable):
        return RedisUnavailable(str(error), maybe_executed=error.maybe_executed)
    return type(error)(str(error))
