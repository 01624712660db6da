"""What the worker's side and the operators' side of one queue share: keys, options, and how scripts are run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from moonxd.domain.errors import LeaseLost, Permanent, Transient
from moonxd.domain.job import JobOptions

from ..redis.client import Redis
from ..redis.errors import RedisReplyError
from ..redis.script import Script
from ..redis.wire import Argument
from .codec import Decoder
from .keys import Keys

#: Replies that say "not now": memory full, disk full, replicas or cluster not ready.
_LATER = frozenset(
    {"OOM", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "LOADING", "BUSY", "READONLY", "MASTERDOWN"}
)

_CODES = {
    -1: "it does not exist any more",
    -2: "its lock expired",
    -3: "it is not in the state that was expected",
    -6: "another worker holds it",
}


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def lease_lost(job_id: str, code: int) -> LeaseLost:
    """The error for a negative reply about a job that we believed to hold."""
    return LeaseLost(f"job {job_id} is not ours any more: {_CODES.get(code, f'BullMQ says {code}')}")


def refused(error: RedisReplyError, what: str) -> NoReturn:
    """Raise an error reply as our own error: Transient when Redis may be willing later, else Permanent."""
    message = f"Redis refused {what}: {error}"
    raise (Transient(message) if error.code in _LATER else Permanent(message)) from error


class Room:
    """See the module."""

    def __init__(self, redis: Redis, name: str, *, prefix: str, defaults: JobOptions, clock: Callable[[], int]) -> None:
        self._redis = redis
        self._name = name
        self._keys = Keys(prefix, name)
        self._defaults = defaults
        self._decoder = Decoder(name, defaults)
        self._now = clock

    @property
    def name(self) -> str:
        return self._name

    async def _run(
        self, script: Script, keys: Sequence[Argument], args: Sequence[Argument], *, at_once: bool = False
    ) -> Any:
        try:
            return await self._redis.script(script, keys, args, at_once=at_once)
        except RedisReplyError as error:
            refused(error, f"{script.name} on queue {self._name}")

    async def _run_many(
        self, script: Script, calls: Sequence[tuple[Sequence[Argument], Sequence[Argument]]]
    ) -> list[Any]:
        """The same script for several (keys, args) in one write, in order; error replies stay in their places."""
        commands: list[Sequence[Argument]] = [("SCRIPT", "LOAD", script.text)]
        commands += [("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in calls]
        return (await self._redis.many(commands))[1:]

    async def _ask(self, *args: Argument) -> Any:
        try:
            return await self._redis.call(*args)
        except RedisReplyError as error:
            refused(error, f"{args[0]!s} on queue {self._name}")

    async def _ask_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Plain commands in one write; the first error reply is raised."""
        replies = await self._redis.many(commands)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, RedisReplyError):
                refused(reply, f"{command[0]!s} on queue {self._name}")
        return replies
