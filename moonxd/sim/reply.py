"""What an endpoint answers, before it is put on the wire."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import msgspec


class Reply(NamedTuple):
    """`headers` are complete lines, each with its line end."""

    body: bytes = b""
    status: int = 200
    headers: bytes = b""
    content_type: bytes = b"application/json"


class BadBody(Exception):
    """A request's body is not the JSON that was asked for; the message says why."""


_T = TypeVar("_T")


def from_json(body: bytes, kind: type[_T]) -> _T:
    """A request's body as `kind`. Raises BadBody."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(f"the body does not fit: {error}") from error


def as_json(content: Any, status: int = 200) -> Reply:
    return Reply(msgspec.json.encode(content), status)
