"""Which server is the master now, asked of the Sentinels in turn."""

from __future__ import annotations

import ssl

import trio

from .errors import RedisRefused, RedisReplyError, RedisUnavailable
from .settings import RedisSettings
from .wire import Address, Argument, Wire, dial

#: Seconds one Sentinel may take before the next is asked.
_PATIENCE_S = 2.0


async def find_master(settings: RedisSettings, tls: ssl.SSLContext | None) -> Address:
    """Address of the service's master. Raises RedisUnavailable when no Sentinel knows one."""
    reasons: list[str] = []
    for host, port in settings.sentinels:
        try:
            with trio.fail_after(min(_PATIENCE_S, settings.connect_timeout_s)):
                return await _ask_one(Address(host, port), settings, tls)
        except trio.TooSlowError:
            reasons.append(f"{host}:{port} did not answer")
        except (OSError, trio.BrokenResourceError, ssl.SSLError, RedisRefused, RedisUnavailable) as error:
            reasons.append(f"{host}:{port}: {error}")
    raise RedisUnavailable(
        f"no Sentinel named a master for {settings.sentinel_service!r}: {'; '.join(reasons)}", maybe_executed=False
    )


async def _ask_one(address: Address, settings: RedisSettings, tls: ssl.SSLContext | None) -> Address:
    wire = Wire(await dial(address, tls))
    try:
        commands: list[tuple[Argument, ...]] = []
        if settings.sentinel_password is not None:
            user = (settings.sentinel_username,) if settings.sentinel_username else ()
            commands.append(("AUTH", *user, settings.sentinel_password))
        commands.append(("SENTINEL", "get-master-addr-by-name", settings.sentinel_service or ""))
        reply = (await wire.ask(*commands))[-1]
    finally:
        await wire.close()
    if isinstance(reply, RedisReplyError):
        raise RedisUnavailable(f"Sentinel answered {reply}", maybe_executed=False)
    if reply is None:
        raise RedisUnavailable(f"it watches no service {settings.sentinel_service!r}", maybe_executed=False)
    return Address(reply[0].decode(), int(reply[1]))


async def confirm_master(wire: Wire, settings: RedisSettings) -> None:
    """A Sentinel may lag behind a failover: take the server at its own word. Raises RedisUnavailable."""
    [role] = await wire.ask(("ROLE",))
    if isinstance(role, RedisReplyError) or role[0] != b"master":
        raise RedisUnavailable(
            f"Redis at {settings.where}: the server named by Sentinel is no master", maybe_executed=False
        )
