"""From settings to a connection that is ready for commands, with every failure said in our own words."""

from __future__ import annotations

import os
import ssl

import hiredis
import trio

from .errors import RedisRefused, RedisUnavailable
from .sentinel import confirm_master, find_master
from .settings import RedisSettings
from .wire import Address, Wire, dial, introduce


async def establish(settings: RedisSettings, tls: ssl.SSLContext | None) -> Wire:
    """Connect within connect_timeout_s.

    Raises RedisUnavailable when trying again can help, RedisRefused when somebody has to change something first.
    """
    try:
        with trio.fail_after(settings.connect_timeout_s):
            return await _establish(settings, tls)
    except trio.TooSlowError:
        raise RedisUnavailable(
            f"Redis at {settings.where} did not answer within {settings.connect_timeout_s:g} s", maybe_executed=False
        ) from None
    except (OSError, trio.BrokenResourceError, hiredis.ProtocolError) as error:
        cause = root_cause(error)
        # A server that dies during the handshake ends the stream early: that is no refusal.
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            raise RedisRefused(f"TLS with Redis at {settings.where} failed: {_tls_advice(cause)}") from error
        raise RedisUnavailable(
            f"cannot connect to Redis at {settings.where}: {_words(cause)}", maybe_executed=False
        ) from error


async def _establish(settings: RedisSettings, tls: ssl.SSLContext | None) -> Wire:
    address: Address | str
    if settings.unix_path is not None:
        address = settings.unix_path
    elif settings.sentinels:
        address = await find_master(settings, tls)
    else:
        address = Address(settings.host, settings.port)
    wire = Wire(await dial(address, tls))
    try:
        await introduce(wire, settings)
        if settings.sentinels:
            await confirm_master(wire, settings)
    except BaseException:
        await wire.close()
        raise
    return wire


def _words(cause: BaseException) -> str:
    """The system's own words: trio's repeat the address that the message names already."""
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)
    return str(cause)


def root_cause(error: BaseException) -> BaseException:
    """The error that says why: trio wraps refusals of several addresses, and TLS failures, in errors of its own."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif isinstance(error, OSError | trio.BrokenResourceError) and error.__cause__ is not None:
            error = error.__cause__
        else:
            return error


def _tls_advice(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message} (name the authority's file in tls_ca)"
    return f"{error.reason or error} (is the port a TLS port, and does it want a client certificate?)"
