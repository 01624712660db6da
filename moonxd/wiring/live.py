"""The live feed for browsers, as configured."""

from __future__ import annotations

import logging
import resource
from pathlib import Path

from ..config import Config
from ..control.live.server import LiveFeed, Terms
from ..domain.errors import ConfigError
from ..ports import Outbox
from ..telemetry import Telemetry

log = logging.getLogger("moonxd.wiring")

#: Files that all the rest of a daemon has open, with room to spare.
_OTHER_FILES = 1024


def live_feed(config: Config, outbox: Outbox, telemetry: Telemetry) -> LiveFeed:
    """Raises ConfigError when the key cannot be used."""
    live = config.live
    terms = Terms(
        public_stats=live.public_stats,
        origins=frozenset(live.origins),
        max_clients=live.max_clients,
        backlog_bytes=live.backlog_kb * 1024,
        ping_s=live.ping_s,
        replay_events=live.replay_events,
    )
    if not live.is_on:
        return LiveFeed(None, outbox, telemetry, terms)
    # Loads the cryptography.
    from ..control.live.tokens import Tokens

    _make_room(live.max_clients)
    tokens = Tokens(
        hs256_secret=live.hs256_secret.reveal() if live.hs256_secret else None,
        eddsa_public_key=_pem(live.eddsa_public_key) if live.eddsa_public_key else None,
        issuer=live.issuer,
        audience=live.audience,
        user_claim=live.user_claim,
        role_claim=live.role_claim,
        system_role=live.system_role,
        leeway_s=live.leeway_s,
    )
    return LiveFeed(tokens.check, outbox, telemetry, terms)


def _pem(given: str) -> str:
    if not given.startswith("/"):
        return given
    try:
        return Path(given).read_text("ascii")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"live.eddsa_public_key: {given} cannot be read as a PEM file: {error}") from error


def _make_room(clients: int) -> None:
    """Every client is an open file. The soft limit is ours to raise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        if raised < wanted:
            log.warning(
                "live.max_clients = %d needs %d open files, this process may have %d: raise LimitNOFILE (ulimit -n)",
                clients, wanted, raised,
            )  # fmt: skip
