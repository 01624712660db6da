"""The live feed for browsers."""

from __future__ import annotations

from typing import Annotated

from .keys import Key, Section
from .secret import Secret


class Live(Section, frozen=True, kw_only=True):
    """The live feed for browsers: WebSocket /v1/ws on every address of the API. Off until a key (or public_stats) is
    set. Who shows a token (a JWT that names its user and expires) hears of that user's wallets."""

    enabled: Annotated[bool, Key("false switches it off whatever else is set")] = True
    hs256_secret: Annotated[
        Secret | None, Key("Tokens signed by HS256: the shared secret, 32 bytes or more", check="hs256")
    ] = None
    eddsa_public_key: Annotated[
        str | None,
        Key(
            "Tokens signed by EdDSA (Ed25519): the public key as PEM text, or the path of its file",
            check="eddsa",
            example="/etc/moonxd/live.pub.pem",
        ),
    ] = None
    issuer: Annotated[str | None, Key("What 'iss' of a token must be. Unset: anything", example="auth.example")] = None
    audience: Annotated[
        str | None, Key("What 'aud' of a token must name. Unset: tokens with an 'aud' are refused", example="moonxd")
    ] = None
    user_claim: Annotated[str, Key("The claim that is the user's id")] = "sub"
    role_claim: Annotated[str, Key("The claim with the bearer's roles: a list, or words in one text")] = "roles"
    system_role: Annotated[str, Key("The role that lets into the room 'system'")] = "system"
    leeway_s: Annotated[float, Key("Tolerated difference of the clocks", low=0, high=300)] = 10.0
    public_stats: Annotated[bool, Key("Let everybody into the room 'stats', without a token")] = False
    origins: Annotated[
        tuple[str, ...],
        Key(
            "Web sites whose pages may connect, as https://app.example; '*' means all, 'null' pages opened from a "
            "file. Pages of this machine always may",
            check="origin",
            example='["https://app.example"]',
        ),
    ] = ()
    max_clients: Annotated[int, Key("Most connections at a time", low=1, high=100_000)] = 5000
    backlog_kb: Annotated[
        int, Key("Unsent messages of one client, in kB; a client that falls behind further is cut off", low=16)
    ] = 256
    ping_s: Annotated[float, Key("Between pings; who is silent for two and a half of them is gone", low=0.1)] = 20.0
    replay_events: Annotated[
        int, Key("A client that comes back is told what it missed of this many newest events", low=0, high=1_000_000)
    ] = 10_000

    @property
    def is_on(self) -> bool:
        """Whether anybody could join a room."""
        return self.enabled and bool(self.hs256_secret or self.eddsa_public_key or self.public_stats)
