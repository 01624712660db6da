"""Reading a request: bounded body, typed by msgspec, query parameters with limits, and who may ask."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..api.messages import MAX_BODY
from .connections import Connection
from .errors import Refused, explain, invalid
from .gate import Gate

log = logging.getLogger("moonxd.control")

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

#: Seconds for an ordinary request; long polls and bulk requests name their own.
DEADLINE_S = 30.0
_BODY_S = 10.0
#: What an oversized sender may still push before its connection is cut (it must finish sending to read our answer).
_DRAIN_BYTES = 8 * MAX_BODY


def guarded(handler: Handler, gate: Gate, deadline: float | None = DEADLINE_S) -> Handler:
    """`handler` for whom `gate` lets in, with a deadline, an answer for every error, a log line for every change."""

    async def run(request: Request) -> Response:
        try:
            gate.check(request)
            with trio.fail_after(deadline if deadline is not None else float("inf")):
                response = await handler(request)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            response = explain(error)
        if request.method not in ("GET", "HEAD"):
            _log_change(request, response.status_code)
        return response

    return run


def connection_of(request: Request) -> Connection:
    connection: Connection = request.state.connection
    return connection


def _log_change(request: Request, status: int) -> None:
    peer = connection_of(request)
    log.info(
        "control call",
        extra={
            "method": request.method,
            "path": request.url.path,
            "status": status,
            "peer_uid": peer.uid,
            "peer_pid": peer.pid,
        },
    )


async def read_body(request: Request, kind: type[T]) -> T:
    """The body as `kind`. 400 with the path of what is wrong, 408 when it does not arrive, 413 over 1 MB."""
    with trio.move_on_after(_BODY_S) as waiting:
        body = await _read(request)
    if waiting.cancelled_caught:
        raise Refused(408, "too-slow", f"the request's body did not arrive within {_BODY_S:.0f} s")
    if not body:
        raise invalid("the request has no body", "send a JSON object")
    return msgspec.json.decode(body, type=kind)


async def read_optional_body(request: Request, kind: type[T], default: T) -> T:
    """As read_body, but nothing sent means `default`."""
    length = request.headers.get("content-length", "0" if "transfer-encoding" not in request.headers else "")
    return default if length == "0" else await read_body(request, kind)


async def _read(request: Request) -> bytes:
    body = bytearray()
    size = 0
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            size += len(piece)
            if size <= MAX_BODY:
                body += piece
            elif size > _DRAIN_BYTES:
                connection_of(request).cut()
                break
    if size > MAX_BODY:
        raise Refused(413, "too-large", f"the request's body has more than {MAX_BODY} bytes", "send less metadata")
    return bytes(body)


def integer(request: Request, name: str, default: int, *, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise invalid(f"{name}={text[:40]!r} is not a whole number from {low} to {high}")
    return number


def seconds(request: Request, name: str, default: float, *, high: float) -> float:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= high:
        raise invalid(f"{name}={text[:40]!r} is not a number of seconds from 0 to {high:.0f}")
    return number


def moment(request: Request, name: str) -> datetime | None:
    """A time given as ISO 8601 (UTC when it names no zone) or as epoch seconds; None when it was not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        if text.replace(".", "", 1).isdecimal():
            return datetime.fromtimestamp(float(text), UTC)
        # A plus sign that nobody escaped arrives as a space.
        at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    except (ValueError, OverflowError, OSError):
        raise invalid(f"{name}={text[:40]!r} is no time", "use 2025-01-31T12:00:00Z or epoch seconds") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
