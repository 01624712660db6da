"""The workers of one queue in Redis: a heartbeat each under a key that expires, and a mailbox each for orders.

A mailbox is a list that its worker waits on, inside Redis, so that an order arrives as fast as Redis answers. Orders
and answers expire: what nobody took in time is never carried out later. An order may be lost with a connection; the
one who sent it learns that from the missing answer and may send it again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from moonxd.domain.errors import Permanent
from moonxd.domain.fleet import Answer, Heartbeat, Order

from .client import Redis, RedisReplyError

log = logging.getLogger("moonxd.fleet")

#: Seconds of one wait in Redis.
_WAIT_S = 10.0
#: Seconds after which an answer that nobody fetched is gone.
_ANSWER_S = 10
_encode = msgspec.json.Encoder().encode


def fleet_prefix(key_prefix: str, queue_prefix: str, queue: str) -> str:
    """What the keys of a queue's workers begin with."""
    return f"{key_prefix}fleet:{queue_prefix}:{queue}:"


class RedisFleet:
    """Implements ports.Fleet. `prefix` is shared by all workers of a queue and by nobody else."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    async def beat(self, heartbeat: Heartbeat, ttl_s: float) -> None:
        """See ports.Fleet."""
        await self._checked(
            ("SET", self._prefix + "beat:" + heartbeat.worker, _encode(heartbeat), "PX", max(1, int(ttl_s * 1000))),
            ("SADD", self._prefix + "names", heartbeat.worker),
        )

    async def leave(self, worker: str) -> None:
        """See ports.Fleet."""
        await self._checked(
            ("DEL", self._prefix + "beat:" + worker, self._prefix + "orders:" + worker),
            ("SREM", self._prefix + "names", worker),
        )

    async def heartbeats(self) -> tuple[Heartbeat, ...]:
        """See ports.Fleet. Names whose heartbeat has expired are forgotten on the way."""
        names = sorted(name.decode() for name in await self._redis.call("SMEMBERS", self._prefix + "names"))
        if not names:
            return ()
        values = await self._redis.call("MGET", *(self._prefix + "beat:" + name for name in names))
        gone = [name for name, value in zip(names, values, strict=True) if value is None]
        if gone:
            await self._redis.call("SREM", self._prefix + "names", *gone)
        return tuple(beat for value in values if value is not None and (beat := _heartbeat(value)) is not None)

    async def ask(self, worker: str, order: Order, timeout: float) -> Answer | None:
        """See ports.Fleet."""
        mailbox = self._prefix + "orders:" + worker
        await self._checked(("RPUSH", mailbox, _encode(order)), ("PEXPIRE", mailbox, max(1, int(timeout * 1000))))
        reply = self._prefix + "answer:" + order.id
        found = await self._redis.block("BLPOP", reply, f"{max(timeout, 0.001):.3f}", timeout=timeout)
        return None if found is None else msgspec.json.decode(found[1], type=Answer)

    async def next_order(self, worker: str) -> Order | None:
        """See ports.Fleet."""
        found = await self._redis.block("BLPOP", self._prefix + "orders:" + worker, _WAIT_S, timeout=_WAIT_S)
        if found is None:
            return None
        try:
            return msgspec.json.decode(found[1], type=Order)
        except msgspec.MsgspecError as error:
            log.warning("an order that cannot be read was dropped: %s", error)
            return None

    async def answer(self, order: Order, answer: Answer) -> None:
        """See ports.Fleet."""
        reply = self._prefix + "answer:" + order.id
        await self._checked(("RPUSH", reply, _encode(answer)), ("EXPIRE", reply, _ANSWER_S))

    async def _checked(self, *commands: Sequence[Any]) -> None:
        for reply in await self._redis.many(commands):
            if isinstance(reply, RedisReplyError):
                raise Permanent(f"Redis does not keep the fleet's keys: {reply}")


def _heartbeat(value: bytes) -> Heartbeat | None:
    """None for what another version wrote and this one cannot read."""
    try:
        return msgspec.json.decode(value, type=Heartbeat)
    except msgspec.MsgspecError:
        return None
