"""A daemon's control socket without a daemon: speaks the API's wire over HTTP on a unix socket, and remembers.

Run as a program (`python -m tests.tui.socket_daemon PATH`) it plays a busy worker until it is stopped.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from moonxd.api.messages import ErrorReply, PauseResult, Problem, RequeueRequest, RequeueResult
from moonxd.api.schema import Snapshot, difference
from moonxd.api.stats import OverviewReply
from tests.tui.scenes import NOW, busy
from tui.feed import Statistics


class SocketDaemon:
    """`scene` is what it shows; `say` shows another one to those who watch. `refuse` makes every change fail."""

    def __init__(self, scene: Snapshot) -> None:
        self.scene = scene
        self.calls: list[tuple[str, bytes]] = []
        self.refuse: Problem | None = None
        #: Answers to requeue calls, in order; the last one repeats.
        self.requeues = [RequeueResult(matched=5, requeued=5, restored=0, skipped=0, ids=())]
        #: None: this daemon keeps none.
        self.statistics: Statistics | None = None
        self._streams: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serve(self, path: Path) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._handle, path)
        try:
            yield
        finally:
            server.close()
            self.drop()
            os.unlink(path)

    def say(self, scene: Snapshot) -> None:
        """The next scene; its seq is set here."""
        scene = msgspec.structs.replace(scene, seq=self.scene.seq + 1)
        self._broadcast(b"event: delta\ndata: %s\n\n" % msgspec.json.encode(difference(self.scene, scene)))
        self.scene = scene

    def garbage(self) -> None:
        """Something that no version of the API says."""
        self._broadcast(b'event: delta\ndata: {"seq": "soon"}\n\n')

    def drop(self) -> None:
        """Break every stream in mid-air."""
        for writer in self._streams:
            writer.transport.abort()
        self._streams.clear()

    def _broadcast(self, frame: bytes) -> None:
        for writer in self._streams:
            writer.write(b"%x\r\n%s\r\n" % (len(frame), frame))

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                length = next((int(v) for k, v in _headers(head) if k == "content-length"), 0)
                self._answer(writer, method, path, await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._streams.discard(writer)
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, method: str, path: str, body: bytes) -> None:
        if path == "/v1/stream":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            self._streams.add(writer)
            frame = b"event: snapshot\ndata: %s\n\n" % msgspec.json.encode(self.scene)
            writer.write(b"%x\r\n%s\r\n" % (len(frame), frame))
            return
        if method == "POST":
            self.calls.append((path, body))
        status, reply = self._reply(path, body)
        content = msgspec.json.encode(reply)
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(content), content))

    def _reply(self, path: str, body: bytes) -> tuple[int, msgspec.Struct]:
        if path == "/v1/status":
            return 200, self.scene
        if path.startswith("/v1/stats/"):
            return self._statistics(path.partition("?")[0])
        if self.refuse is not None:
            return 503, ErrorReply(error=self.refuse)
        if path == "/v1/jobs/requeue":
            if msgspec.json.decode(body, type=RequeueRequest).dry_run:
                return 200, RequeueResult(matched=5, requeued=0, restored=0, skipped=0, ids=())
            return 200, self.requeues.pop(0) if len(self.requeues) > 1 else self.requeues[0]
        return 200, PauseResult(scope="queue", name="sync-jobs", is_paused=path.endswith("pause"))

    def _statistics(self, path: str) -> tuple[int, msgspec.Struct]:
        found = self.statistics
        if found is None:
            hint = "set stats.enabled = true"
            return 404, ErrorReply(
                error=Problem(code="not-found", message="this daemon keeps no statistics", hint=hint)
            )
        overview = OverviewReply(at_ms=None, status="unknown", chains=(), bridges=(), collectors=found.collectors)
        return 200, {"chains": found.chains, "bridges": found.bridges}.get(path.rsplit("/", 1)[1], overview)


def _headers(head: bytes) -> list[tuple[str, str]]:
    lines = head.decode().split("\r\n")[1:]
    return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]


def aged(scene: Snapshot, now: float) -> Snapshot:
    """`scene` as if it were now."""
    shift = now - NOW
    return msgspec.structs.replace(
        scene,
        at=now,
        daemon=msgspec.structs.replace(scene.daemon, started_at=scene.daemon.started_at + shift),
        running=tuple(msgspec.structs.replace(j, started_at=j.started_at + shift) for j in scene.running),
        failures=tuple(msgspec.structs.replace(f, at=f.at + shift) for f in scene.failures),
        children=tuple(msgspec.structs.replace(c, since=c.since + shift) for c in scene.children),
    )


async def play(path: Path) -> None:
    """Serve a busy worker on `path`, four changes a second, until cancelled."""
    daemon = SocketDaemon(aged(busy(), time.time()))
    beat = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with daemon.serve(path):
        for step in range(1_000_000):
            scene = aged(busy(), time.time())
            queue = msgspec.structs.replace(scene.queue, waiting=1_200 + step * 37 % 400)
            rates = msgspec.structs.replace(scene.rates, completed=scene.rates.completed + step * 4)
            daemon.say(msgspec.structs.replace(scene, queue=queue, rates=rates))
            beat.clear()
            loop.call_later(0.25, beat.set)
            await beat.wait()


if __name__ == "__main__":
    asyncio.run(play(Path(sys.argv[1])))
