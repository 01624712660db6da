"""The settings of an external Redis."""

from __future__ import annotations

from ..adapters.redis.settings import RedisSettings, parse_redis_url
from ..config import Config

#: Concurrent slots from which a second connection to Redis pays off.
_SECOND_CONNECTION_FROM = 32


def redis_settings(config: Config) -> RedisSettings:
    """An external Redis, from its URL and the keys beside it."""
    redis = config.redis
    beside = {
        "tls_ca": str(redis.tls_ca) if redis.tls_ca else None,
        "tls_cert": str(redis.tls_cert) if redis.tls_cert else None,
        "tls_key": str(redis.tls_key) if redis.tls_key else None,
        "sentinels": tuple(_host_port(one) for one in redis.sentinels),
        "sentinel_service": redis.service,
        "sentinel_username": redis.sentinel_username,
        "sentinel_password": redis.sentinel_password.reveal() if redis.sentinel_password else None,
    }
    return parse_redis_url(
        redis.to_url().reveal(),
        connect_timeout_s=redis.connect_timeout_s,
        command_timeout_s=redis.command_timeout_s,
        connections=connections(config),
        **{name: value for name, value in beside.items() if value},
    )


def connections(config: Config) -> int:
    return 2 if config.worker.slots >= _SECOND_CONNECTION_FROM else 1


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
