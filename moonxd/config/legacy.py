"""The variables of the earlier Node workers: which key each one sets, and which have no effect here, and why."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from .keys import Spec, specs_of
from .parse import FALSE, TRUE, Bad
from .tree import Config


class Effectless(msgspec.Struct, frozen=True):
    """Why a known variable changes nothing; setting it still makes its `part` external."""

    why: str
    part: str | None = None


EFFECTLESS: dict[str, Effectless] = {
    "NODE_ENV": Effectless("moonxd behaves alike everywhere; for the form of the log set log.format"),
    "SERVICE_VERSION": Effectless("moonxd reports its own version"),
    "REDIS_RETRY_DELAY_ON_FAILOVER": Effectless("reconnecting has a jittered backoff of its own", "redis"),
    "REDIS_ENABLE_READY_CHECK": Effectless("a connection is always checked before it is used", "redis"),
    "REDIS_MAX_RETRIES_PER_REQUEST": Effectless("redis.command_timeout_s bounds a command instead", "redis"),
    "REDIS_LAZY_CONNECT": Effectless("the daemon connects when it starts", "redis"),
    "KAFKA_PRODUCER_MAX_IN_FLIGHT": Effectless(
        "there is always one request in flight per node, to keep the order", "kafka"
    ),
    "KAFKA_PRODUCER_IDEMPOTENT": Effectless("the producer is always idempotent", "kafka"),
    "KAFKA_PRODUCER_TRANSACTION_TIMEOUT": Effectless("the outbox takes the place of Kafka's transactions", "kafka"),
}


@cache
def old_variables() -> Mapping[str, Spec]:
    """Every old variable that sets a key; where a key has several, the better one comes first."""
    table: dict[str, Spec] = {}
    for spec in specs_of(Config).values():
        for name in old_names(spec):
            table[name] = spec
    return table


def old_names(spec: Spec) -> tuple[str, ...]:
    """The old variables of one key, best first."""
    parts = spec.path.split(".")
    return tuple(name.replace("{CHAIN}", parts[1].upper()) for name in spec.key.old)


def from_old(name: str, spec: Spec, text: str) -> Any:
    """What `parse` understands instead of the old `text`: milliseconds become seconds, PORT an address."""
    special = _SPECIAL.get(name)
    if special is not None:
        return special(text)
    if spec.name.endswith("_s"):
        return _seconds(text)
    return text


def is_link(name: str, text: str) -> bool:
    """Kubernetes puts REDIS_PORT=tcp://10.0.0.1:6379 into every pod beside a service called redis: not meant for us."""
    return name.endswith("_PORT") and text.startswith(("tcp://", "udp://"))


def _seconds(text: str) -> float:
    try:
        return float(text) / 1000
    except ValueError:
        raise Bad("must be a number of milliseconds") from None


def _port(text: str) -> str:
    if not text.isdecimal() or not 0 < int(text) <= 65535:
        raise Bad("must be a port from 1 to 65535")
    return f"127.0.0.1:{text}"


def _sslmode(text: str) -> str:
    lowered = text.lower()
    return "require" if lowered in TRUE else "disable" if lowered in FALSE else text


_SPECIAL = {"PORT": _port, "DB_SSL": _sslmode}
