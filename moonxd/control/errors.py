"""From an error to an answer. The client learns what, where and what to do; a traceback goes to our log only."""

from __future__ import annotations

import logging
import math
from uuid import uuid4

import msgspec
import trio
from starlette.responses import Response

from ..api.messages import ErrorReply, Problem
from ..domain.errors import ConfigError, LeaseLost, Permanent, Rejected, Transient

log = logging.getLogger("moonxd.control")


class Refused(Exception):
    """A request that is answered with an error on purpose."""

    def __init__(
        self, status: int, code: str, message: str, hint: str | None = None, *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(code=code, message=message, hint=hint)
        #: Seconds; for the header of that name.
        self.retry_after = retry_after


def not_found(what: str, hint: str | None = None) -> Refused:
    return Refused(404, "not-found", what, hint)


def invalid(message: str, hint: str | None = None) -> Refused:
    return Refused(400, "invalid", message, hint)


def conflict(message: str, hint: str | None = None) -> Refused:
    return Refused(409, "conflict", message, hint)


def answer(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def error_answer(status: int, problem: Problem, *, retry_after: float | None = None) -> Response:
    response = answer(ErrorReply(error=problem), status)
    if retry_after is not None:
        response.headers["retry-after"] = str(max(1, math.ceil(retry_after)))
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def explain(error: Exception) -> Response:
    """The answer to a request that ended with `error`."""
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return explain(error.exceptions[0])
    match error:
        case Refused():
            return error_answer(error.status, error.problem, retry_after=error.retry_after)
        case msgspec.MsgspecError():
            hint = "what stands at that path is wrong ($ is the whole body)"
            return error_answer(400, Problem(code="invalid", message=f"the request's body: {error}", hint=hint))
        case Transient():
            problem = Problem(code="unavailable", message=str(error), hint="try again: the daemon goes on by itself")
            return error_answer(503, problem, retry_after=error.retry_after or 1)
        case trio.TooSlowError():
            return error_answer(
                504,
                Problem(
                    code="too-slow",
                    message="the daemon's stores did not answer in time",
                    hint="GET /health/ready says which one; what was asked for may still happen",
                ),
            )
        case Permanent() | Rejected() | LeaseLost() | ConfigError():
            return error_answer(422, Problem(code="refused", message=str(error)))
    return _unexpected(error)


def _unexpected(error: Exception) -> Response:
    reference = uuid4().hex[:12]
    log.error("a control request failed unexpectedly", exc_info=error, extra={"error_id": reference})
    return error_answer(
        500,
        Problem(
            code="internal",
            message=f"the daemon failed to answer this request (error id {reference})",
            hint="this is a fault of moonxd: its log has the details under that id",
        ),
    )
