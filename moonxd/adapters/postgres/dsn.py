"""A connection string with what libpq takes as parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo

from .connection import parsed


def with_parameters(url: str, files: Mapping[str, Path | None], statement_timeout_s: float) -> str:
    """`url` with TLS `files` (libpq's name -> path) and the server's own bound on a statement. Holds the password."""
    given: dict[str, Any] = parsed(url)
    beside = {name: str(path) for name, path in files.items() if path}
    given = {name: value for name, value in given.items() if name not in beside}
    # Options in the URL are the operator's word; a connection pooler may know none.
    given.setdefault("options", f"-c statement_timeout={int(statement_timeout_s * 1000)}")
    return make_conninfo(**given, **beside)
