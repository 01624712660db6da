"""What an endpoint answers, before it is put on the wire."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec


class Reply(NamedTuple):
    """`headers` are complete lines, each with its line end."""

    body: bytes = b""
    status: int = 200
    headers: bytes = b""
    content_type: bytes = b"application/json"


def as_json(content: Any, status: int = 200) -> Reply:
    return Reply(msgspec.json.encode(content), status)
