"""Reaching a cluster: start a client in bounded time, or say why it cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError

from ....domain.errors import ConfigError, MoonxdError, Transient
from .errors import mapped
from .quiet import quieten
from .settings import KafkaSettings

C = TypeVar("C")

_CONNECTION = (
    "client_id", "request_timeout_ms", "security_protocol", "ssl_context", "sasl_mechanism", "sasl_plain_username",
    "sasl_plain_password",
)  # fmt: skip


async def reach(
    make: Callable[[], C],
    start: Callable[[C], Awaitable[object]],
    end: Callable[[C], Awaitable[None]],
    settings: KafkaSettings,
    options: dict[str, Any],
) -> C:
    """A started client. Raises Transient while no broker answers, ConfigError when they do not let us in."""
    quieten()
    client = make()
    try:
        async with asyncio.timeout(settings.start_s):
            await start(client)
    except (KafkaError, OSError) as error:
        await end(client)
        if isinstance(error, (KafkaConnectionError, TimeoutError)):
            raise await _why_not(settings, options) or mapped(error, settings.where) from error
        raise mapped(error, settings.where) from error
    except BaseException:
        await end(client)
        raise
    return client


async def _why_not(settings: KafkaSettings, options: dict[str, Any]) -> MoonxdError | None:
    """What a plain connection meets: the client itself tries the next broker and forgets the reason."""
    told: MoonxdError | None = None
    for host, port, _ in collect_hosts(options["bootstrap_servers"]):
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                connection = await create_conn(host, port, **{name: options[name] for name in _CONNECTION})
            connection.close()
        except (KafkaError, OSError) as error:
            told = mapped(error, f"Kafka at {host}:{port}")
            if isinstance(error, KafkaConnectionError):
                told = Transient(f"Kafka at {host}:{port} closes the connection: check kafka.tls and kafka.username")
            if isinstance(told, ConfigError):
                return told
    return told
