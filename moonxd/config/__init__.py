"""Configuration: defaults, a TOML file, the old variables, MOONXD_*, flags -> one frozen tree, with origins."""

from __future__ import annotations

from .core import Daemon, Database, Http, Listen, Log, Queue, Redis, Worker
from .secret import Secret, SecretUrl, redact_url
from .sources import Alchemy, ChainEndpoints, Chains, Prices, Tokens
from .tree import Config

__all__ = [
    "Alchemy",
    "ChainEndpoints",
    "Chains",
    "Config",
    "Daemon",
    "Database",
    "Http",
    "Listen",
    "Log",
    "Prices",
    "Queue",
    "Redis",
    "Secret",
    "SecretUrl",
    "Tokens",
    "Worker",
    "redact_url",
]
