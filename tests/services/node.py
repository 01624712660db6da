"""Real Node programs for the tests: npm's bullmq 5.x and 6.x under remote control (tests/node/peer.mjs)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

from tests.services import NODE_DIR, have, missing
from tests.services.redis import RedisServer

PATIENCE_S = 60.0


class NodePeer:
    """One Node process; `await peer("add", queue="q", jobs=[...])` runs a command of peer.mjs and gives its answer."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._waiting: dict[int, tuple[trio.Event, list[Any]]] = {}
        self._count = 0

    async def __call__(self, call: str, **arguments: Any) -> Any:
        """Raises RuntimeError with what Node said, trio.TooSlowError after PATIENCE_S."""
        self._count += 1
        number, event, answers = self._count, trio.Event(), []
        self._waiting[number] = event, answers
        assert self.process.stdin is not None
        line = json.dumps({"call": call, "id_": number, **arguments}) + "\n"
        with trio.fail_after(PATIENCE_S):
            await self.process.stdin.send_all(line.encode())
            await event.wait()
        [answer] = answers
        if "error" in answer:
            raise RuntimeError(f"node: {call}: {answer['error']}")
        return answer["value"]

    async def until(self, call: str, condition: Callable[[Any], object], **arguments: Any) -> Any:
        """Repeat a command until its answer meets `condition`; the answer."""
        with trio.fail_after(PATIENCE_S):
            while not condition(answer := await self(call, **arguments)):  # noqa: ASYNC110 (another process)
                await trio.sleep(0.01)
        return answer

    async def read(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async for chunk in self.process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                event, answers = self._waiting.pop(answer["id"])
                answers.append(answer)
                event.set()

    def kill(self) -> None:
        self.process.kill()


Start = Callable[..., AbstractAsyncContextManager[NodePeer]]


@pytest.fixture(scope="session")
def node_binary() -> str:
    """node with the pinned packages installed."""
    node = shutil.which("node")
    if node is None:
        missing("node", "no node on PATH (install Node.js 20)")
    for package in ("bullmq5", "bullmq6", "ioredis", "@bull-board/api"):
        if not (NODE_DIR / "node_modules" / package).is_dir():
            missing("node", f"npm package {package} is not installed (npm ci in tests/node)")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    packages = [
        json.loads((NODE_DIR / "node_modules" / name / "package.json").read_text())["version"]
        for name in ("bullmq5", "bullmq6")
    ]
    have("node", f"{version}, npm bullmq {' and '.join(packages)}")
    return node


@pytest.fixture
def start_node(node_binary: str) -> Start:
    """`async with start_node("bullmq6", server) as peer:` runs one Node process against a Redis server."""

    @asynccontextmanager
    async def start(version: str, server: RedisServer) -> AsyncIterator[NodePeer]:
        async with _peer([node_binary, "peer.mjs", version, "127.0.0.1", str(server.port)]) as peer:
            yield peer

    return start


@pytest.fixture
def start_core_service(node_binary: str) -> Start:
    """`async with start_core_service(prefix, server) as client:` runs what asks for syncs by Redis lists."""

    @asynccontextmanager
    async def start(prefix: str, server: RedisServer) -> AsyncIterator[NodePeer]:
        async with _peer([node_binary, "core_service.mjs", prefix, "127.0.0.1", str(server.port)]) as peer:
            yield peer

    return start


@asynccontextmanager
async def _peer(command: list[str]) -> AsyncIterator[NodePeer]:
    # It ends by itself with its stdin. No die_with_parent: its parent is a thread of trio's, which ends when idle.
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=NODE_DIR)
    assert process.stdin is not None
    assert process.stdout is not None
    peer = NodePeer(process)
    async with process.stdin, process.stdout, trio.open_nursery() as nursery:
        nursery.start_soon(peer.read)
        try:
            await peer("ping")
            yield peer
        finally:
            process.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await process.wait()
            nursery.cancel_scope.cancel()
