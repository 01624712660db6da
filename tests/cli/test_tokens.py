"""`moonxd tokens update` against a real web server."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from moonxd.domain.tokenlist import parse_token_list

USDC = {
    "chainId": 8453,
    "address": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
    "symbol": "USDC",
    "name": "USD Coin",
    "decimals": 6,
}
LIST = {
    "name": "Test",
    "version": {"major": 1, "minor": 2, "patch": 3},
    "tokens": [
        USDC,
        {"chainId": 900, "address": "So11111111111111111111111111111111111111112", "symbol": "SOL", "decimals": 9},
        {**USDC, "address": "0x12"},
    ],
}


@asynccontextmanager
async def web(body: bytes, status: bytes = b"200 OK") -> AsyncGenerator[str]:
    """A server that answers every request with `body`; its address, with a key in it."""

    async def respond(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            head = b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (status, len(body))
            # Whoever has read too much already hangs up.
            with suppress(trio.BrokenResourceError):
                await stream.send_all(head + body)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, respond, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/list.json?key=hush"
        nursery.cancel_scope.cancel()


async def update(state_dir: Path, *arguments: str) -> tuple[int, str, str]:
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "MOONXD_STATE_DIR": str(state_dir)}
    command = [sys.executable, "-m", "moonxd", "tokens", "update", *arguments]
    done = await trio.run_process(command, env=environ, check=False, capture_stdout=True, capture_stderr=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_usable_entries_are_kept_and_the_others_named(tmp_path: Path) -> None:
    async with web(json.dumps(LIST).encode()) as url:
        code, out, err = await update(tmp_path, "--url", url)
    assert code == 0
    assert "Test 1.2.3: 1 tokens written" in out
    assert "tokens[2]: address '0x12'" in err
    assert "add it to list_files" in err
    kept = parse_token_list(await trio.Path(tmp_path / "tokens.json").read_bytes())
    assert [(token.chain_id, token.symbol) for token in kept.tokens] == [(8453, "USDC")]
    assert os.listdir(tmp_path) == ["tokens.json"], "no draft is left"


async def test_configured_list_is_fetched_and_known_to_be_read(tmp_path: Path) -> None:
    file, config = tmp_path / "mine.json", trio.Path(tmp_path / "config.toml")
    await trio.Path(file).write_text("{}")
    async with web(json.dumps(LIST).encode()) as url:
        await config.write_text(f'[tokens]\nupdate_url = "{url.partition("?")[0]}"\nlist_files = ["{file}"]\n')
        code, out, _ = await update(tmp_path, "--config", str(config), "--out", str(file), "--json")
    assert code == 0
    answer = json.loads(out)
    assert (answer["tokens"], answer["chains"], answer["skipped"], answer["isRead"]) == (1, {"base": 1}, 1, True)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"<html>", b"200 OK", "is not JSON"),
        (b"{}", b"200 OK", 'no "tokens" array'),
        (b'{"tokens":[]}', b"200 OK", "no token on a chain that we sync"),
        (b"", b"404 Not Found", "answered 404"),
        (b"x" * 17_000_000, b"200 OK", "at most"),
    ],
)
async def test_bad_list_changes_nothing(tmp_path: Path, body: bytes, status: bytes, said: str) -> None:
    before = trio.Path(tmp_path / "tokens.json")
    await before.write_text("as it was")
    async with web(body, status) as url:
        code, out, err = await update(tmp_path, "--url", url)
    assert (code, out) == (1, "")
    assert said in err
    assert "hush" not in err, "an address may carry a key"
    assert await before.read_text() == "as it was"


async def test_unreachable_server_and_missing_address(tmp_path: Path) -> None:
    code, _, err = await update(tmp_path, "--url", "http://127.0.0.1:9/list.json?key=hush")
    assert code == 1
    assert "could not be fetched from 127.0.0.1" in err
    assert "hush" not in err
    code, _, err = await update(tmp_path)
    assert code == 78
    assert "update_url" in err
