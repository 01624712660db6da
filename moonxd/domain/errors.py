"""The errors that cross rooms. An adapter maps every foreign exception to one of these at its border.

Only `worker/attempt.py` turns one of them into an outcome of a job. A message says what happened, where, and
what to do about it; it never contains a URL's credentials, a key or a password.
"""

from __future__ import annotations


class MoonxdError(Exception):
    """Base of every error that moonxd raises on purpose."""


class Transient(MoonxdError):
    """It may work later: the attempt fails, the job is retried with backoff.

    `retry_after` is the number of seconds the other side asked us to wait, if it did.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SinkBroken(MoonxdError):
    """This producer will never send again (fenced, or its sequence is lost): build a new one."""


class Permanent(MoonxdError):
    """It will never work: the job goes to the dead letters at once, unretried."""


class Undeliverable(Permanent):
    """Some of the messages sent will never be taken, as `positions` (indices) says; of the others nothing is said."""

    def __init__(self, message: str, *, positions: tuple[int, ...]) -> None:
        super().__init__(message)
        self.positions = positions


class Rejected(MoonxdError):
    """We decline on purpose (a limit, a pause, a duplicate); nothing is broken on either side."""


class LeaseLost(MoonxdError):
    """Somebody else owns the job or the wallet now: whatever we still hold must not be written."""


class ConfigError(MoonxdError):
    """A configuration value cannot be used. The message names the key, the value and what is allowed."""


def single(error: Exception) -> Exception:
    """The one error inside nested one-member groups; the group itself when there are several."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def describe(error: BaseException) -> str:
    """One line for the status board: our own errors speak for themselves, foreign ones are named."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(describe(inner) for inner in error.exceptions))
    if isinstance(error, MoonxdError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
