"""The command line as scripts see it: a process, its exit code, its output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from moonxd.api import calls
from moonxd.api.messages import RequeueRequest
from moonxd.domain.job import Completed, Failed, JobOptions
from moonxd.version import VERSION
from tests.control.harness import WALLET, Served, serving
from tests.services.redis import until


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("c") / "moonxd.sock"


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def moonxd(*arguments: str, environ: Mapping[str, str] | None = None) -> Ran:
    """One command in a process of its own, without a terminal, in a clean environment."""
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONWARNINGS": "error"} | dict(environ or {})
    with trio.fail_after(60):
        done = await trio.run_process(
            [sys.executable, "-m", "moonxd", *arguments],
            env=clean,
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


async def on(bench: Served, *arguments: str, **environ: str) -> Ran:
    return await moonxd(*arguments, environ={"MOONXD_SOCKET": str(bench.socket), **environ})


# ---- without a daemon --------------------------------------------------------------------------------------------


async def test_version_needs_no_daemon() -> None:
    for arguments in (("version",), ("--version",), ("-V",)):
        assert await moonxd(*arguments) == (0, f"moonxd {VERSION}\n", "")
    assert (await moonxd("version", "--json")).json["version"] == VERSION


async def test_version_loads_nothing_it_does_not_need() -> None:
    code = (
        "import sys; sys.argv = ['moonxd', 'version']\nfrom moonxd.__main__ import main\nmain()\n"
        "print('\\n'.join(sys.modules))"
    )
    done = await trio.run_process([sys.executable, "-c", code], capture_stdout=True)
    loaded = set(done.stdout.decode().split())
    assert not loaded & {"typer", "msgspec", "httpx", "rich", "trio", "asyncio", "moonxd.cli.main"}


async def test_client_commands_load_neither_the_daemon_nor_its_stores() -> None:
    code = (
        "import sys, moonxd.cli.main as cli\n"
        "for name in ('status', 'queues', 'enqueue', 'jobs', 'pause', 'portfolio', 'operations', 'version'):\n"
        "    cli._Commands()[name]\n"
        "print('\\n'.join(sys.modules))"
    )
    done = await trio.run_process([sys.executable, "-c", code], capture_stdout=True)
    loaded = set(done.stdout.decode().split())
    assert not loaded & {"trio", "httpx", "rich.console", "psycopg", "starlette", "moonxd.control", "moonxd.adapters"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("enqueue", "portfolio-sync", "--user", "u", "--wallet", WALLET),
        ("jobs", "cancel", "1"),
        ("jobs", "requeue", "--all", "--yes"),
        ("pause",),
        ("portfolio", WALLET),
        ("version", "--daemon"),
    ],
)
async def test_no_daemon_is_69_with_what_to_do(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ran = await moonxd(*arguments, "--json", environ={"MOONXD_STATE_DIR": str(tmp_path)})
    assert ran.code == 69
    assert f"no daemon is running at {tmp_path}/moonxd.sock" in ran.err
    assert "moonxd serve" in ran.err
    assert ran.json["error"]["code"] == "unreachable"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("status", "--nonsense"),
        ("enqueue", "portfolio-sync"),
        ("enqueue", "portfolio-sync", "--user", "u", "--wallet", WALLET, "--priority", "urgent"),
        ("enqueue", "portfolio-sync", "--user", "u", "--wallet", WALLET, "--delay", "soon"),
        ("jobs", "requeue"),
        ("jobs", "list", "--limit", "0"),
        ("status", "--socket"),
        (),
    ],
)
async def test_usage_errors_are_2(arguments: tuple[str, ...]) -> None:
    ran = await moonxd(*arguments)
    assert ran.code == 2
    assert "Traceback" not in ran.err


async def test_help_names_every_command() -> None:
    ran = await moonxd("--help")
    assert ran.code == 0
    for name in ("status", "queues", "enqueue", "jobs", "pause", "resume", "portfolio", "config", "tokens", "version"):
        assert f" {name} " in ran.out


# ---- where the daemon is -----------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_socket_is_found_by_option_anywhere_and_by_environment(redis_url: str, socket_path: Path) -> None:
    state_dir, socket = str(socket_path.parent), str(socket_path)
    async with serving(redis_url, socket_path):
        for arguments in (
            ("--socket", socket, "status"),
            ("status", "--socket", socket),
            ("jobs", "list", f"--socket={socket}"),
            ("--state-dir", state_dir, "queues"),
            ("queues", "--json", "--state-dir", state_dir),
        ):
            assert (await moonxd(*arguments)).code == 0, arguments
        assert (await moonxd("status", environ={"MOONXD_STATE_DIR": state_dir})).code == 0
        assert (await moonxd("status", environ={"MOONXD_SOCKET": socket})).code == 0


# ---- with a daemon -----------------------------------------------------------------------------------------------


async def test_status_as_json_is_the_snapshot(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bench.add()
        ran = await on(bench, "status", "--json")
        assert ran.code == 0
        assert set(ran.json["queue"]) >= {
            "waiting",
            "prioritized",
            "active",
            "delayed",
            "waiting_children",
            "completed",
            "failed",
            "paused",
            "is_paused",
        }
        assert ran.json["queue"]["waiting"] == 1
        assert ran.json["children"] == []


@pytest.mark.slow
async def test_enqueue_and_look(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        ran = await on(
            bench, "enqueue", "portfolio-sync", "--user", "u1", "--wallet", WALLET, "--chain", "base,1", "--chain",
            "bsc", "--priority", "high", "--delay", "5m", "--sync-type", "full", "--force", "--id", "mine", "--json",
        )  # fmt: skip
        assert (ran.code, ran.json) == (0, {"jobId": "mine", "state": "delayed", "existing": False})
        shown = (await on(bench, "jobs", "show", "mine", "--json")).json
        assert shown["data"]["chainIds"] == [8453, 1, 56]
        assert (shown["data"]["syncType"], shown["data"]["forceRefresh"], shown["priority"]) == ("full", True, 1)
        assert abs(shown["timestamps"]["due"] - shown["timestamps"]["created"] - 300_000) < 5
        assert "delayed" in (await on(bench, "jobs", "show", "mine")).out
        assert "prioritized" in (await on(bench, "jobs", "promote", "mine")).out
        listed = (await on(bench, "jobs", "list", "--state", "prioritized", "--json")).json["jobs"]
        assert [job["jobId"] for job in listed] == ["mine"]


@pytest.mark.slow
async def test_refusals_are_1_and_say_what_to_do(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        ran = await on(bench, "enqueue", "nonsense", "--user", "u", "--wallet", WALLET)
        assert (ran.code, ran.out) == (1, "")
        assert "use one of: portfolio-sync" in ran.err
        ran = await on(bench, "enqueue", "portfolio-sync", "--user", "u", "--wallet", "0x12", "--json")
        assert (ran.code, ran.json["error"]["code"]) == (1, "invalid")
        assert (await on(bench, "jobs", "show", "nope")).code == 1
        assert (await on(bench, "portfolio", WALLET)).code == 1


async def wait_on(bench: Served, outcome: Completed | Failed, seen: list[Ran], *arguments: str) -> None:
    """`enqueue --wait` beside a worker that ends the job with `outcome`."""
    async with trio.open_nursery() as nursery:

        async def enqueue() -> None:
            command = ("enqueue", "portfolio-sync", "--user", "u1", "--wallet", WALLET, "--wait", *arguments)
            seen.append(await on(bench, *command))

        nursery.start_soon(enqueue)
        await until(lambda: bench.plane.waiters == 1, within_s=30)
        bench.plane.settled(await bench.end_next(outcome), outcome)


@pytest.mark.slow
async def test_enqueue_wait_prints_the_state_and_the_return_value(redis_url: str, socket_path: Path) -> None:
    seen: list[Ran] = []
    async with serving(redis_url, socket_path) as bench:
        await wait_on(bench, Completed(b'{"success":true,"tokensSync":3}'), seen, "--json")
        await wait_on(bench, Failed("no chain answered"), seen)
        assert (seen[0].code, seen[0].json["state"]) == (0, "completed")
        assert seen[0].json["result"] == {"success": True, "tokensSync": 3}
        assert seen[1].code == 1
        assert "no chain answered" in seen[1].out
        ran = await on(
            bench, "enqueue", "portfolio-sync", "--user", "u", "--wallet", WALLET, "--wait", "--timeout", "100ms"
        )
        assert ran.code == 1
        assert "still prioritized after 100ms; it goes on without us" in ran.err


@pytest.mark.slow
async def test_cancel_takes_several_and_reports_each(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        job_id = await bench.add()
        ran = await on(bench, "jobs", "cancel", "nope", job_id)
        assert ran.code == 1
        assert f"job {job_id} cancelled (it was waiting)" in ran.out
        assert "there is no job 'nope'" in ran.err
        assert (await on(bench, "jobs", "cancel", await bench.add())).code == 0


@pytest.mark.slow
async def test_requeue_counts_and_asks(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        for reason in ("timeout", "timeout", "bad address"):
            await bench.add_failed(reason)
        assert "2 jobs match" in (await on(bench, "jobs", "requeue", "--reason", "timeout", "--dry-run")).out
        asked = await on(bench, "jobs", "requeue", "--all")
        assert asked.code == 2
        assert "requeue 3 jobs?" in asked.err
        assert (await bench.queue.counts()).failed == 3, "without an answer nothing happens"
        assert "2 requeued" in (await on(bench, "jobs", "requeue", "--reason", "timeout", "--yes")).out
        ran = await on(bench, "jobs", "requeue", "--all", "--yes", "--json")
        assert (ran.code, ran.json["requeued"]) == (0, 1)
        assert (await on(bench, "jobs", "requeue", "nope")).code == 1
        assert (await bench.call(calls.requeue(RequeueRequest(all=True)))).matched == 0


@pytest.mark.slow
async def test_pause_and_resume(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        assert (await on(bench, "pause", "--reason", "deploy")).out == f"queue {bench.queue.name} is paused\n"
        assert (await bench.queue.counts()).is_paused
        assert "PAUSED" in (await on(bench, "status")).out
        assert (await on(bench, "resume", "--json")).json == {
            "scope": "queue",
            "name": bench.queue.name,
            "isPaused": False,
        }
        await on(bench, "pause", "--worker")
        assert bench.worker_paused
        assert not (await bench.queue.counts()).is_paused


@pytest.mark.slow
async def test_tables_fit_a_narrow_terminal_and_hold_no_escape_codes(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        await bench.add_failed("\x1b[31mred\x1b[0m [bold]not markup[/bold] " + "long " * 40, user="u" * 12)
        narrow = await on(bench, "jobs", "list", COLUMNS="80")
        assert max(len(line) for line in narrow.out.splitlines()) <= 80
        wide = await on(bench, "jobs", "list")
        assert "[bold]not markup[/bold]" in wide.out
        assert "long long" in wide.out
        for ran in (narrow, wide, await on(bench, "jobs", "show", "1"), await on(bench, "queues")):
            assert ran.code == 0
            assert "\x1b" not in ran.out + ran.err


async def test_output_into_a_closed_pipe_is_no_crash(redis_url: str, socket_path: Path) -> None:
    async with serving(redis_url, socket_path) as bench:
        for _ in range(300):
            await bench.add(options=JobOptions(priority=1))
        command = f"{sys.executable} -m moonxd jobs list --limit 1000 --json | head -1"
        environ = {"PATH": os.environ["PATH"], "MOONXD_SOCKET": str(socket_path)}
        done = await trio.run_process(["sh", "-c", command], env=environ, capture_stdout=True, capture_stderr=True)
        assert done.stdout == b"{\n"
        assert b"Traceback" not in done.stderr


async def test_configuration_error_is_78(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    await trio.Path(file).write_text("[worker]\nslots = 'many'\n")
    ran = await moonxd("tokens", "update", "--config", str(file))
    assert ran.code == 78
    assert "slots" in ran.err
