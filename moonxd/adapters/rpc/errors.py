"""How a request to an endpoint can fail. Every class is a domain error; `outcome` is its label in telemetry."""

from __future__ import annotations

from typing import ClassVar

from ...domain.errors import Permanent, Transient


class EndpointError(Transient):
    """The endpoint did not give a usable answer this time."""

    outcome: ClassVar[str] = "error"


class Unreachable(EndpointError):
    """No connection, or it broke before the whole answer was here."""

    outcome: ClassVar[str] = "unreachable"


class TimedOut(EndpointError):
    """No complete answer before the deadline."""

    outcome: ClassVar[str] = "timeout"


class Garbage(EndpointError):
    """What came back is not HTTP, not JSON, or not an answer to what was asked."""

    outcome: ClassVar[str] = "garbage"


class TooLarge(EndpointError):
    """The answer is over the limit (announced, streamed or unpacked), or ours was too large for them (413, 414)."""

    outcome: ClassVar[str] = "too_large"


class RateLimited(EndpointError):
    """The endpoint asks us to slow down; `retry_after` seconds when it said for how long."""

    outcome: ClassVar[str] = "rate_limited"


class HttpFailure(EndpointError):
    """An HTTP status that is no answer; `status` is the number."""

    outcome: ClassVar[str] = "http_error"

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status


class RpcError(EndpointError):
    """A JSON-RPC error object: `code` and `text` as the node gave them, `text` cleaned and cut."""

    outcome: ClassVar[str] = "rpc_error"

    def __init__(self, message: str, *, code: int, text: str) -> None:
        super().__init__(message)
        self.code = code
        self.text = text


class Refused(Permanent):
    """The endpoint will not serve us as configured: a missing or refused key, a used-up quota, an unknown method."""

    outcome: ClassVar[str] = "refused"


class KeyRefused(Refused):
    """The endpoint will not serve this key, plan or address of ours: asking again helps only after a change."""


#: What a request may raise, for callers that want to go on to another endpoint.
FAILURES = (EndpointError, Refused)


def outcome_of(error: BaseException) -> str:
    """The telemetry label of `error`."""
    return str(getattr(error, "outcome", "error"))
