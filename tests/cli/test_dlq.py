"""`moonxd dlq` in front of an operator: filters, one in full, the question, and progress on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from moonxd.api import calls
from tests.cli.test_cli import on
from tests.control.harness import Served, serving
from tests.control.test_dlq import bury

MANY = 1500


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c") / "moonxd.sock"


def on_a_terminal(socket: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """A command on a terminal that somebody types `answer` into: its exit code and all that is seen there."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "moonxd", *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
            env={"PATH": "/usr/bin:/bin", "HOME": str(socket.parent), "TERM": "xterm", "MOONXD_SOCKET": str(socket)},
        )  # fmt: skip
        os.close(theirs)
        terminal.write(f"{answer}\n".encode())
        seen = b""
        try:
            while part := terminal.read(4096):
                seen += part
        except OSError:  # the end of a terminal whose other side is closed, on Linux
            pass
        return process.wait(60), seen.decode()


async def on_terminal(bench: Served, answer: str, *arguments: str) -> tuple[int, str]:
    return await trio.to_thread.run_sync(on_a_terminal, bench.socket, answer, *arguments)


async def total(bench: Served) -> int:
    return (await bench.call(calls.dead_letters(limit=1))).total


async def test_it_counts_asks_and_shows_how_far_it_is(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        for number in range(MANY):
            await bury(bench, f"job-{number}", user_id=f"u{number % 2}")
        code, seen = await on_terminal(bench, "n", "dlq", "requeue", "--all")
        assert code == 1
        assert f"requeue {MANY} dead letters? [y/N]" in seen
        assert await total(bench) == MANY, "no is no"
        code, seen = await on_terminal(bench, "y", "dlq", "requeue", "--all")
        assert code == 0, seen
        assert f"1000 of {MANY}" in seen
        assert f"{MANY} requeued" in seen
        assert await total(bench) == 0
        counts = await bench.queue.counts()
        assert counts.waiting + counts.prioritized == MANY


@pytest.mark.slow
async def test_filters_and_one_in_full(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bury(bench, "old", reason="RPC timeout", failed_at=1_700_000_000_000, stack=("where it was",))
        await bury(bench, "young", reason="bad address", user_id="u2", name="bulk-sync")
        for option, value, expected in (
            ("--reason", "timeout", "old"),
            ("--type", "bulk-sync", "young"),
            ("--user", "u2", "young"),
            ("--older-than", "7d", "old"),
            ("--newer-than", "2h", "young"),
        ):
            listed = await on(bench, "dlq", "list", option, value, "--json")
            assert [job["jobId"] for job in listed.json["jobs"]] == [expected], option
            counted = await on(bench, "dlq", "purge", option, value, "--dry-run")
            assert counted.out == "1 dead letters match\n", option
        shown = await on(bench, "dlq", "show", "old")
        assert shown.code == 0, shown.err
        for part in ("RPC timeout", "where it was", "walletAddress"):
            assert part in shown.out
        assert (await on(bench, "dlq", "show", "nope")).code == 1
        assert (await on(bench, "dlq", "requeue")).code == 2, "it must be said which"
        assert "1 purged" in (await on(bench, "dlq", "purge", "--older-than", "7d", "--yes")).out
        assert await total(bench) == 1
