"""psycopg's errors as ours, in plain sentences. Nothing of a connection string ever gets into one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as e

from ...domain.errors import ConfigError, MoonxdError, Permanent, Transient

#: Refused by the server until somebody changes its or our configuration. libpq gives no code while connecting, only
#: the server's sentence; one in another language passes for a server that is away, and is tried again.
_REFUSAL = re.compile(r"authentication failed|no password supplied|no pg_hba\.conf entry|does not exist")
#: libpq's afterthought, beside the host and port that it named already.
_QUESTION = " Is the server running on that host and accepting TCP/IP connections?"
#: Two transactions met; the server undid ours and it may simply be sent again.
COLLISIONS = (e.SerializationFailure, e.DeadlockDetected)


def reason(error: psycopg.Error) -> str:
    """The server's own sentence, or the first line of the client library's."""
    text = error.diag.message_primary or str(error).strip() or type(error).__name__
    return text.splitlines()[0]


def translated(error: psycopg.Error, doing: str) -> MoonxdError:
    """`error`, met while `doing` ("committing operation ..."), as one of ours."""
    said = reason(error)
    if isinstance(error, (e.UndefinedTable, e.UndefinedFunction, e.UndefinedColumn)):
        return Transient(f"PostgreSQL lacks a part of the ledger while {doing} ({said}): run `moonxd migrate`")
    if isinstance(error, e.InsufficientPrivilege):
        return Transient(f"PostgreSQL forbids {doing} ({said}): grant the daemon's role what is missing")
    if isinstance(error, e.ForeignKeyViolation):
        return Permanent(f"PostgreSQL does not know what {doing} refers to ({said}): create it first")
    if isinstance(error, (e.DataError, e.IntegrityError)):
        return Permanent(f"PostgreSQL refused a value while {doing}: {said}")
    return Transient(f"PostgreSQL failed while {doing}: {said}")


def unreachable(error: psycopg.Error) -> MoonxdError:
    """A connection that could not be opened. ConfigError when trying again cannot help."""
    if _REFUSAL.search(str(error)):
        return ConfigError(f"PostgreSQL refuses us ({_last_line(error)}): check user, password and database name")
    return Transient(f"PostgreSQL cannot be reached: {_last_line(error)}")


def _last_line(error: psycopg.Error) -> str:
    # libpq writes 'connection to server at "host" (address), port N failed: FATAL:  reason'; never a password.
    text = " ".join((str(error).strip() or type(error).__name__).split())
    return text.removeprefix("connection failed: ").replace(_QUESTION, "")


@contextmanager
def bordered(doing: str) -> Iterator[None]:
    """Lets only our errors out."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error, doing) from error
