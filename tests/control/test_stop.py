"""The live stream over a real socket, and a stop that is bounded whatever the clients do."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from moonxd.api import calls
from moonxd.api.client import ApiError, Client, DaemonUnreachable
from moonxd.api.schema import Delta, Failure, Snapshot, apply
from moonxd.control.connections import MAX_CONNECTIONS
from moonxd.control.feed import Feed
from moonxd.control.gate import Gate
from moonxd.control.server import MAX_VIEWERS, ControlPlane, serve_control
from moonxd.control.socket import tcp_listeners, unix_listener
from tests.control.harness import PICTURE, Bench, in_thread, queue_on, serving
from tests.services.redis import until

#: For scheduling on a busy machine.
SLACK_S = 1.5

TOKEN = "correct-horse-battery"


class BigPictures:
    """Samples of 100 kB that always change: a few of them fill a socket's buffers."""

    def __init__(self) -> None:
        self.taken = 0

    async def __call__(self) -> Snapshot:
        await trio.lowlevel.checkpoint()
        self.taken += 1
        failure = Failure(
            at=self.taken, job_id="1", name="n", user="u", wallet="w", attempt=1, reason="x" * 100_000, final=True
        )
        return msgspec.structs.replace(PICTURE, failures=(failure,))

    async def fill_buffers(self) -> None:
        enough = self.taken + 30
        await until(lambda: self.taken > enough)


@asynccontextmanager
async def unread_stream(socket: Path) -> AsyncGenerator[trio.SocketStream]:
    """A viewer that asked and never reads."""
    connection = await trio.open_unix_socket(str(socket))
    try:
        await connection.send_all(b"GET /v1/stream HTTP/1.1\r\nhost: x\r\n\r\n")
        yield connection
    finally:
        await trio.aclose_forcefully(connection)


async def test_viewer_sees_a_snapshot_then_what_changes(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:

        def watch(client: Client) -> Snapshot:
            events = client.stream()
            picture = next(events)
            assert isinstance(picture, Snapshot)
            trio.from_thread.run_sync(setattr, bench, "slots_busy", 7)
            while picture.daemon.slots_busy != 7:
                delta = next(events)
                assert isinstance(delta, Delta)
                picture = apply(picture, delta)
            events.close()
            return picture

        with trio.fail_after(10):
            assert (await in_thread(watch, socket_path)).queue.name == bench.queue.name
        await until(lambda: bench.plane.viewers == 0)


async def test_viewer_that_vanishes_is_noticed(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        async with unread_stream(socket_path):
            await until(lambda: bench.plane.viewers == 1)
        await until(lambda: bench.plane.viewers == 0)


async def test_viewer_that_does_not_read_is_cut_and_the_others_go_on(redis_url: str, socket_path: Path) -> None:
    pictures = BigPictures()
    async with (
        serving(redis_url, socket_path, feed={"period": 0.005}, stalled=0.2, sample=pictures) as bench,
        unread_stream(socket_path),
    ):
        await until(lambda: bench.plane.viewers == 1)
        assert (await bench.call(calls.version())).worker == "test-worker"
        await until(lambda: bench.plane.viewers == 0)


async def test_too_many_viewers_are_refused(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path, feed={"period": 1.0}) as bench, AsyncExitStack() as viewers:
        for _ in range(MAX_VIEWERS):
            await viewers.enter_async_context(unread_stream(socket_path))
        await until(lambda: bench.plane.viewers == MAX_VIEWERS)
        with pytest.raises(ApiError, match="viewers watch already"):
            await in_thread(lambda client: next(client.stream()), socket_path)


@pytest.mark.parametrize("request_line", [b"", b"GET /health/live HTTP/1.1\r\nHost: moonxd\r\n\r\n"])
async def test_clients_that_have_gone_are_no_longer_counted(
    redis_url: str, socket_path: Path, request_line: bytes
) -> None:
    """More than may be open at once, one after the other."""
    async with serving(redis_url, socket_path) as bench:
        for _ in range(MAX_CONNECTIONS + 40):
            stream = await trio.open_unix_socket(socket_path)
            if request_line:
                await stream.send_all(request_line)
                await stream.receive_some()
            await stream.aclose()
        assert (await bench.call(calls.version())).worker == "test-worker"


# ---- stopping ----------------------------------------------------------------------------------------------------


async def test_client_that_does_not_read_delays_the_stop_by_the_grace_only(redis_url: str, socket_path: Path) -> None:
    pictures = BigPictures()
    async with AsyncExitStack() as held:
        async with serving(redis_url, socket_path, grace=0.5, feed={"period": 0.005}, sample=pictures):
            await held.enter_async_context(unread_stream(socket_path))
            await pictures.fill_buffers()
            began = trio.current_time()
        assert trio.current_time() - began < 0.5 + SLACK_S


async def test_half_a_request_delays_the_stop_by_the_grace_only(redis_url: str, socket_path: Path) -> None:
    async with AsyncExitStack() as held:
        async with serving(redis_url, socket_path, grace=0.5) as bench:
            connection = await held.enter_async_context(await trio.open_unix_socket(str(socket_path)))
            await connection.send_all(b"POST /jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            await bench.call(calls.version())
            began = trio.current_time()
        assert trio.current_time() - began < 0.5 + SLACK_S


async def test_viewers_and_waiters_end_at_once(redis_url: str, socket_path: Path) -> None:
    """Not after the grace: each is told to end, and its connection closes behind its last byte."""
    ended: list[object] = []
    async with (
        serving(redis_url, socket_path, grace=30, feed={"period": 0.02}) as bench,
        trio.open_nursery() as nursery,
    ):
        job_id = await bench.add()

        async def wait() -> None:
            ended.append((await bench.call(calls.wait_for_job(job_id, 60))).state)

        async def watch() -> None:
            ended.append(await in_thread(lambda client: list(client.stream()), socket_path))

        nursery.start_soon(wait)
        nursery.start_soon(watch)
        await until(lambda: bench.plane.viewers == 1 and bench.plane.waiters == 1)
        began = trio.current_time()
        bench.stop.set()
    assert trio.current_time() - began < SLACK_S
    assert len(ended) == 2
    assert "waiting" in ended, "the waiter gets the job as it is"


async def test_cancellation_does_not_wait_for_a_client_that_does_not_read(redis_url: str, socket_path: Path) -> None:
    pictures = BigPictures()
    async with queue_on(redis_url) as queue, AsyncExitStack() as held:
        deps = dataclasses.replace(Bench(queue).deps(), sample=pictures)
        plane = ControlPlane(deps, feed=Feed(pictures, period=0.005))
        with unix_listener(socket_path) as listener:
            async with trio.open_nursery() as nursery:
                await nursery.start(partial(serve_control, plane, [listener], trio.Event(), grace=60))
                await held.enter_async_context(unread_stream(socket_path))
                await pictures.fill_buffers()
                began = trio.current_time()
                nursery.cancel_scope.cancel()
            assert trio.current_time() - began < SLACK_S


async def test_client_of_a_stopped_daemon_is_told(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bench.call(calls.version())
    with pytest.raises(DaemonUnreachable, match="no daemon is running"):
        await in_thread(lambda client: client.call(calls.version()), socket_path)


# ---- TCP ---------------------------------------------------------------------------------------------------------


async def test_tcp_serves_this_machine_but_no_web_page(redis_url: str) -> None:
    async with queue_on(redis_url) as queue, trio.open_nursery() as nursery:
        bench = Bench(queue)
        deps = dataclasses.replace(bench.deps(), gate=Gate(TOKEN))
        stop = trio.Event()
        (listener,) = await tcp_listeners("127.0.0.1:0")
        port = listener.socket.getsockname()[1]
        await nursery.start(partial(serve_control, ControlPlane(deps), [listener], stop, grace=1))

        def ask(method: str, path: str, **headers: str) -> int:
            with httpx.Client(trust_env=False) as client:
                shown = headers | {"authorization": f"Bearer {TOKEN}"}
                return client.request(method, f"http://127.0.0.1:{port}{path}", headers=shown).status_code

        in_background = partial(trio.to_thread.run_sync, abandon_on_cancel=True)
        assert await in_background(partial(ask, "GET", "/health")) == 200
        assert await in_background(partial(ask, "POST", "/workers/pause", origin="http://localhost:8080")) == 200
        assert await in_background(partial(ask, "POST", "/workers/resume", origin="https://evil.example")) == 403
        assert await in_background(partial(ask, "GET", "/jobs", host="rebound.evil.example")) == 403
        assert (await queue.counts()).is_paused, "the page of another site changed nothing"
        stop.set()
