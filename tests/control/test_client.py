"""The clients: what they import, and what they say when the daemon is not as it should be."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from moonxd.api import calls
from moonxd.api.client import ApiError, AsyncClient, Client, ClientError, DaemonUnreachable, EventParser
from moonxd.api.schema import Snapshot
from moonxd.control.socket import unix_listener
from tests.control.harness import serving
from tests.services.redis import until


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_api_loads_neither_the_server_nor_the_stores() -> None:
    loaded = loaded_by("import moonxd.api.client, moonxd.api.calls, moonxd.api.messages, moonxd.api.schema")
    heavy = {"trio", "anyio", "asyncio", "psycopg", "starlette", "hypercorn", "redis", "hiredis", "httpx", "typer"}
    assert not loaded & heavy
    assert not [name for name in loaded if name.startswith(("moonxd.adapters", "moonxd.control"))]


def refused(path: Path) -> DaemonUnreachable:
    with Client(path) as client, pytest.raises(DaemonUnreachable) as error:
        client.call(calls.version())
    return error.value


def test_missing_socket(socket_path: Path) -> None:
    error = refused(socket_path)
    assert f"no daemon is running at {socket_path}" in error.message
    assert "moonxd serve" in (error.hint or "")


def test_socket_of_a_dead_daemon(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_path))
    assert "left over from one that died" in refused(socket_path).message


def test_path_that_is_no_socket(socket_path: Path) -> None:
    socket_path.write_text("")
    refused(socket_path)


def test_socket_of_somebody_else(socket_path: Path) -> None:
    """Root may open everything, so as root the question is asked by a child that is nobody."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from moonxd.api import calls; from moonxd.api.client import Client, NotPermitted; import httpx, httpcore\n"
        "client = Client(Path(sys.argv[1]))\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: client.call(calls.version())\n"
        "except NotPermitted as error: print(error.message, error.hint)\n"
    )
    with unix_listener(socket_path, mode=0o000):
        asked = subprocess.run(
            [sys.executable, "-c", code, str(socket_path)], check=True, capture_output=True, text=True, timeout=60
        )
    assert "you may not connect" in asked.stdout
    assert "member of the socket's group" in asked.stdout


async def told_by(answer: bytes, path: Path, use: Callable[[Client], object]) -> ClientError:
    """What the client says of a server that answers `answer` to anything and hangs up."""

    async def respond(stream: trio.SocketStream) -> None:
        async with stream:
            if await stream.receive_some():
                await stream.send_all(answer)

    def ask() -> ClientError:
        with Client(path) as client, pytest.raises(ClientError) as error:
            use(client)
        return error.value

    with unix_listener(path) as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, respond, [listener])
            told = await trio.to_thread.run_sync(ask)
            nursery.cancel_scope.cancel()
    return told


async def test_other_programs_on_the_socket_are_recognised(socket_path: Path) -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    told = await told_by(page, socket_path, lambda client: client.call(calls.version()))
    assert "not what this version expects" in told.message
    told = await told_by(b"", socket_path, lambda client: client.call(calls.version()))
    assert isinstance(told, DaemonUnreachable)
    assert "broke" in told.message
    error = b"HTTP/1.1 502 Bad\r\ncontent-length: 0\r\n\r\n"
    told = await told_by(error, socket_path, lambda client: next(client.stream()))
    assert isinstance(told, ApiError)
    assert told.status == 502


async def test_async_client_under_asyncio(redis_url: str, socket_path: Path) -> None:
    """The live view's loop is asyncio's."""

    async def watch() -> tuple[str, int]:
        async with AsyncClient(socket_path) as daemon:
            worker = (await daemon.call(calls.version())).worker
            with pytest.raises(ApiError, match="there is no job"):
                await daemon.call(calls.job("nope"))
            async with aclosing(daemon.stream()) as events:
                first = await anext(events)
                assert isinstance(first, Snapshot)
                second = await anext(events)
            return worker, second.seq - first.seq

    async with serving(redis_url, socket_path) as bench:
        assert await trio.to_thread.run_sync(asyncio.run, watch()) == ("test-worker", 1)
        await until(lambda: bench.plane.viewers == 0)


def test_async_client_without_a_daemon(socket_path: Path) -> None:
    async def ask() -> None:
        async with AsyncClient(socket_path) as daemon:
            with pytest.raises(DaemonUnreachable, match="there is no such socket"):
                await daemon.call(calls.version())
            with pytest.raises(DaemonUnreachable, match="there is no such socket"):
                await anext(daemon.stream())

    asyncio.run(ask())


def test_event_parser_skips_what_it_does_not_know() -> None:
    parser = EventParser()
    lines = [": still here", "", "event: weather", "data: {}", "", "id: 4", "retry: 10", ""]
    assert [parser.line(line) for line in lines] == [None] * len(lines)
