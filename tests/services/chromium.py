"""A headless Chromium under remote control (DevTools protocol): pages as browsers really show them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from tests.services import have, missing
from tests.services.redis import die_with_parent

_START_S = 30.0
_PATIENCE_S = 30.0
#: A screenshot in base64.
_MAX_MESSAGE = 32 << 20


class BrowserPage:
    """One tab."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._count = 0

    async def call(self, method: str, **params: Any) -> Any:
        """One command of the DevTools protocol; its result."""
        self._count += 1
        await self._connection.send_message(json.dumps({"id": self._count, "method": method, "params": params}))
        with trio.fail_after(_PATIENCE_S):
            while (answer := json.loads(await self._connection.get_message())).get("id") != self._count:
                continue
        assert "error" not in answer, answer
        return answer["result"]

    async def evaluate(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Its first true value; what the page shows is said when there is none in time."""
        with trio.move_on_after(_PATIENCE_S):
            while not (value := await self.evaluate(expression)):  # noqa: ASYNC110 (another process)
                await trio.sleep(0.02)
            return value
        pytest.fail(f"{expression} was never true; the page:\n{await self.evaluate('document.body.innerText')}")

    async def screenshot(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot")
        await trio.Path(path).write_bytes(base64.b64decode(shot["data"]))


OpenPage = Callable[[str], AbstractAsyncContextManager[BrowserPage]]


@pytest.fixture(scope="session")
def chromium_binary() -> str:
    """chromium of PATH."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        missing("chromium", "no chromium on PATH (install the package chromium)")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    have("chromium", version.strip())
    return found


@pytest.fixture
def open_page(chromium_binary: str, tmp_path_factory: pytest.TempPathFactory) -> OpenPage:
    """`async with open_page(url) as page:` shows it in a browser of its own."""

    @asynccontextmanager
    async def open_(url: str) -> AsyncIterator[BrowserPage]:
        profile = tmp_path_factory.mktemp("chromium")
        command = [
            chromium_binary, "--headless", "--remote-debugging-port=0", "--remote-allow-origins=*",
            f"--user-data-dir={profile}", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
            "--window-size=1000,700", *(["--no-sandbox"] if os.geteuid() == 0 else []), url,
        ]  # fmt: skip
        with (profile / "log").open("wb") as log:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        try:
            address = await _debugger(profile, process)
            async with open_websocket_url(address, max_message_size=_MAX_MESSAGE) as connection:
                page = BrowserPage(connection)
                await page.until("document.readyState === 'complete' && location.href !== 'about:blank'")
                yield page
        finally:
            process.terminate()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await process.wait()

    return open_


async def _debugger(profile: Path, process: trio.Process) -> str:
    """Where the first tab listens for commands."""
    with trio.fail_after(_START_S):
        while not (port := _port(profile)):
            assert process.poll() is None, (profile / "log").read_text("utf-8", "replace")[-2000:]
            await trio.sleep(0.02)
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                targets = (await client.get(f"http://127.0.0.1:{port}/json/list")).json()
                pages = [one["webSocketDebuggerUrl"] for one in targets if one["type"] == "page"]
                if pages:
                    return str(pages[0])
                await trio.sleep(0.02)


def _port(profile: Path) -> str | None:
    try:
        lines = (profile / "DevToolsActivePort").read_text().splitlines()
    except FileNotFoundError:
        return None
    return lines[0] if len(lines) > 1 else None
