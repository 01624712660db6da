"""Who may ask what. The unix socket's file mode says who may come there; over TCP a token does: docs/adr/0064."""

from __future__ import annotations

from hmac import compare_digest
from urllib.parse import urlsplit

from starlette.requests import Request

from .connections import Connection
from .errors import Refused
from .socket import is_loopback

#: What probes and scrapers read without a token, wherever we listen.
_OPEN = ("/health", "/health/live", "/health/ready", "/metrics")


class Gate:
    """`token` None: nothing is changed over TCP. `is_public`: other machines reach us, so they do not read either."""

    def __init__(self, token: str | None = None, *, is_public: bool = False) -> None:
        self._token = token.encode() if token is not None else None
        self._is_public = is_public

    def check(self, request: Request) -> None:
        """Raises Refused."""
        connection: Connection = request.state.connection
        if connection.is_local_socket:
            return
        self._check_origin(request)
        if self._is_free(request):
            return
        if self._token is None:
            raise Refused(
                403,
                "forbidden",
                f"{request.method} over TCP needs a token, and this daemon has none",
                "set [http] token, or ask over the unix socket",
            )
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not compare_digest(shown.strip().encode(), self._token):
            raise Refused(
                401, "unauthorized", "the token is missing or wrong", "send Authorization: Bearer and [http] token"
            )

    def _is_free(self, request: Request) -> bool:
        if request.method not in ("GET", "HEAD"):
            return False
        return not self._is_public or request.url.path.removeprefix("/v1") in _OPEN

    def _check_origin(self, request: Request) -> None:
        """A page in a browser on this machine reaches loopback ports too: it must not act, nor read by rebinding."""
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if not self._is_public and not is_loopback(host):
            raise Refused(403, "forbidden", f"the Host header names {host[:100]!r}, not this machine", "use 127.0.0.1")
        origin = request.headers.get("origin")
        if origin is not None and not is_loopback(urlsplit(origin).hostname or ""):
            hint = "call it from this machine"
            raise Refused(403, "forbidden", f"pages of {origin[:100]!r} may not use this API", hint)
