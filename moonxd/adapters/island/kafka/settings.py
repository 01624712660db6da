"""Where Kafka is and how to get in. Secrets never show in a repr or a message."""

from __future__ import annotations

import ssl
from typing import Any

import msgspec
import trio

from ....domain.errors import ConfigError

#: How the configuration calls it -> how aiokafka does.
_CODECS = {"none": None, "gzip": "gzip", "snappy": "snappy", "lz4": "lz4", "zstd": "zstd"}


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one cluster. Times are seconds."""

    #: Bootstrap brokers as host:port.
    brokers: tuple[str, ...] = ("localhost:9092",)
    client_id: str = "moonxd"
    #: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; used when there is a username.
    mechanism: str = "PLAIN"
    username: str | None = None
    password: str | None = None
    tls: bool = False
    #: PEM files. Without `tls_ca` the system's authorities are trusted.
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    connect_timeout_s: float = 1.0
    request_timeout_s: float = 5.0
    #: none, gzip, snappy, lz4 or zstd.
    compression: str = "none"

    @property
    def where(self) -> str:
        """Addresses for messages: no credentials in it."""
        return f"Kafka at {', '.join(self.brokers)}{' (TLS)' if self.tls else ''}"

    @property
    def codec(self) -> str | None:
        return _CODECS[self.compression]

    @property
    def start_s(self) -> float:
        """Bound of reaching the cluster: connecting to each bootstrap broker and one request."""
        return self.connect_timeout_s * len(self.brokers) + self.request_timeout_s

    @property
    def answer_s(self) -> float:
        """Bound of one exchange with a cluster that was reached before: it may have to connect again."""
        return self.connect_timeout_s + self.request_timeout_s

    def __repr__(self) -> str:
        return f"KafkaSettings({self.where}, user={self.username!r}, password={'set' if self.password else 'none'})"

    def __rich_repr__(self) -> Any:
        yield self.where

    async def client_options(self) -> dict[str, Any]:
        """What every client of aiokafka is made with. Raises ConfigError when a TLS file cannot be used."""
        context = await trio.to_thread.run_sync(self._tls_context) if self.tls else None
        protocol = "SSL" if self.tls else "PLAINTEXT"
        return {
            "bootstrap_servers": list(self.brokers),
            "client_id": self.client_id,
            "request_timeout_ms": max(1, int(self.request_timeout_s * 1000)),
            "security_protocol": f"SASL_{protocol}" if self.username else protocol,
            "ssl_context": context,
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
        }

    def _tls_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_cert is not None:
                context.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(file for file in (self.tls_ca, self.tls_cert, self.tls_key) if file)
            raise ConfigError(f"kafka: cannot read the TLS files {files}: {error}") from error
        return context
