"""Configuration: defaults, a TOML file, the old variables, MOONXD_*, flags -> one frozen tree, with origins."""

from __future__ import annotations

from .core import Daemon, Database, Http, Listen, Log, Queue, Redis, Worker
from .dotenv import Env, parse_env
from .load import InvalidConfig, Loaded, find_file, load_config
from .rules import diff_reloadable
from .secret import Secret, SecretUrl, redact_url
from .sources import Alchemy, ChainEndpoints, Chains, Prices, Tokens
from .tree import Config, secrets_in
from .write import effective, example, import_env

__all__ = [
    "Alchemy",
    "ChainEndpoints",
    "Chains",
    "Config",
    "Daemon",
    "Database",
    "Env",
    "Http",
    "InvalidConfig",
    "Listen",
    "Loaded",
    "Log",
    "Prices",
    "Queue",
    "Redis",
    "Secret",
    "SecretUrl",
    "Tokens",
    "Worker",
    "diff_reloadable",
    "effective",
    "example",
    "find_file",
    "import_env",
    "load_config",
    "parse_env",
    "redact_url",
    "secrets_in",
]
