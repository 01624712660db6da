"""What can go wrong between us and Redis."""

from __future__ import annotations

from moonxd.domain.errors import ConfigError, MoonxdError, Transient


class RedisUnavailable(Transient):
    """Redis could not be reached, went away, or did not answer in time; the client keeps reconnecting by itself.

    `maybe_executed` tells whether the command may have run on the server: False means that it certainly did not,
    so that repeating it is safe whatever it does.
    """

    def __init__(self, message: str, *, maybe_executed: bool) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed


class RedisRefused(ConfigError):
    """Redis was reached and turned us away (password, user, database number, certificate, version)."""


class RedisReplyError(MoonxdError):
    """Redis answered with an error: a command changed nothing then, a script may have done part of its work."""

    @property
    def code(self) -> str:
        """The reply's first word: "WRONGTYPE", "NOSCRIPT", "READONLY", "ERR", ..."""
        return str(self).partition(" ")[0]
