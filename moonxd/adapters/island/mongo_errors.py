"""pymongo's errors as ours. Texts are kept short and hold hosts, never a user or a password."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
)

from ...domain.errors import ConfigError, MoonxdError, Permanent, Transient

DUPLICATE = 11000
#: Unauthorized, UserNotFound, AuthenticationFailed, and Atlas' own.
_REFUSED = {13, 11, 18, 8000}
#: BadValue, FailedToParse, TypeMismatch, DocumentValidationFailure, BSONObjectTooLarge: the document is at fault.
_UNFIT = {2, 9, 14, 121, 10334}
_LONGEST = 200


def ours(error: PyMongoError | OverflowError, where: str) -> MoonxdError:
    """`where`: the hosts. What is not known to last may pass: Transient."""
    name = f"MongoDB at {where}"
    text = _short(error)
    if isinstance(error, BulkWriteError):
        return _of_bulk(error, name)
    if isinstance(error, ConnectionFailure) or getattr(error, "timeout", False):
        return Transient(f"{name} does not answer ({type(error).__name__}: {text}): is it up, and reachable from here?")
    if isinstance(error, OperationFailure):
        return _of_code(error.code, text, name)
    if isinstance(error, ConfigurationError):
        return ConfigError(f"{name} cannot be used ({text}): mend mongodb.uri")
    if isinstance(error, InvalidOperation):
        return Transient(f"{name}: the client is closed")
    return Permanent(f"{name}: a document cannot be stored ({type(error).__name__}: {text})")


def _of_code(code: int | None, text: str, name: str) -> MoonxdError:
    if code in _REFUSED:
        return ConfigError(
            f"{name} refused us ({text}): user and password of mongodb.uri need readWrite on the database; a user of "
            "another database needs ?authSource="
        )
    if code in _UNFIT:
        return Permanent(f"{name} refused a document ({code}: {text})")
    return Transient(f"{name} failed ({code}: {text})")


def _of_bulk(error: BulkWriteError, name: str) -> MoonxdError:
    faults: list[Mapping[str, Any]] = [
        *error.details.get("writeErrors", ()),
        *error.details.get("writeConcernErrors", ()),
    ]
    empty: Mapping[str, Any] = {}
    worst = next((fault for fault in faults if fault.get("code") != DUPLICATE), empty)
    return _of_code(worst.get("code"), str(worst.get("errmsg", error))[:_LONGEST], name)


def is_only_duplicates(error: BulkWriteError) -> bool:
    """Another writer was first with the same: what we wanted is there."""
    details = error.details
    return not details.get("writeConcernErrors") and all(
        fault.get("code") == DUPLICATE for fault in details.get("writeErrors", ())
    )


def _short(error: BaseException) -> str:
    """Without the server's whole answer or the topology, which pymongo appends."""
    text = str(error)
    for tail in (", full error:", ", Timeout:", " (configured timeouts:"):
        text = text.partition(tail)[0]
    return text[:_LONGEST]
