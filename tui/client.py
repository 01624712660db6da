"""The feed over the daemon's control socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from moonxd.api.schema import Delta, Snapshot

from .feed import Connect, Failed, FeedError, NoStatistics, Requeued, Statistics

if TYPE_CHECKING:
    from moonxd.api.client import AsyncClient

#: Calls that one requeue makes at most; each moves thousands of jobs.
MAX_ROUNDS = 100


class SocketFeed:
    """Feed on top of the API's client."""

    def __init__(self, client: AsyncClient) -> None:
        from moonxd.api import calls, messages, stats

        self._client = client
        self._calls = calls
        self._stats = stats
        self._messages = messages

    async def stream(self) -> AsyncGenerator[Snapshot | Delta]:
        with _explained():
            async with aclosing(self._client.stream()) as messages:
                async for message in messages:
                    yield message

    async def statistics(self, *, since: float, step: float) -> Statistics:
        with _explained(missing=NoStatistics):
            chains = await self._client.call(self._stats.chains(since=since, step=step))
            bridges = await self._client.call(self._stats.bridges(since=since, step=step))
            overview = await self._client.call(self._stats.overview())
        return Statistics(chains, bridges, overview.collectors)

    async def pause(self) -> None:
        with _explained():
            await self._client.call(self._calls.pause())

    async def resume(self, *, worker: bool = False) -> None:
        ask = self._messages.PauseRequest(worker="this" if worker else None)
        with _explained():
            await self._client.call(self._calls.resume(ask))

    async def requeueable(self) -> Failed:
        ask = self._messages.RequeueRequest(all=True, dry_run=True)
        with _explained():
            found = await self._client.call(self._calls.requeue(ask))
        return Failed(found.matched, found.more)

    async def requeue_failed(self) -> Requeued:
        """In as many calls as it takes; ends early when a call moves nothing."""
        ask = self._messages.RequeueRequest(all=True)
        moved = skipped = 0
        for _ in range(MAX_ROUNDS):
            with _explained():
                result = await self._client.call(self._calls.requeue(ask))
            moved += result.requeued + result.restored
            skipped += result.skipped
            if not result.more or not result.requeued + result.restored:
                break
        return Requeued(moved, skipped)


@contextmanager
def _explained(missing: type[FeedError] = FeedError) -> Generator[None]:
    """Errors of the client as ours; `missing` is what "not found" becomes."""
    from moonxd.api.client import ApiError, ClientError

    try:
        yield
    except ClientError as error:
        is_missing = isinstance(error, ApiError) and error.status == 404
        raise (missing if is_missing else FeedError)(error.message, error.hint or "") from error
    except msgspec.MsgspecError as error:
        hint = "Compare `moonxd version` with the daemon's, and restart the daemon after an upgrade"
        raise FeedError(f"The daemon says something that this version does not understand: {error}", hint) from error


def over(socket: Path) -> Connect:
    """How to connect to the daemon that listens on `socket`."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[SocketFeed]:
        # 0.2 s of importing: in a thread, so that the screen stays alive meanwhile.
        await asyncio.to_thread(import_module, "httpx")
        from moonxd.api.client import AsyncClient

        async with AsyncClient(socket) as client:
            yield SocketFeed(client)

    return connect
