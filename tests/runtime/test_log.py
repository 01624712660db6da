"""The log: what a line says, what it hides, and that nobody ever waits for its reader."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from moonxd.config import Secret
from moonxd.log import LineWriter, Logging, Throttle, bound, log_once_per, setup_logging

log = logging.getLogger("moonxd.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def running(
    out: io.StringIO, level: str = "info", format: str = "json", secrets: tuple[str, ...] = ()
) -> Iterator[Logging]:
    # pytest's own handlers refuse the malformed records that ours has to survive.
    root = logging.getLogger()
    others, root.handlers[:] = list(root.handlers), []
    try:
        with setup_logging(level, format, secrets, stream=out) as logging_now:
            yield logging_now
    finally:
        root.handlers[:] = others


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


# ---- what a line says ----------------------------------------------------------------------------------------------


def test_a_line_is_one_json_object_with_its_fields() -> None:
    out = io.StringIO()
    with running(out):
        log.info("wallet %s synced", "0xab", extra={"job_id": "7", "raw": 2**200, "chains": ("base", 56)})
    (line,) = lines(out)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "moonxd.test",
        "message": "wallet 0xab synced",
        "job_id": "7",
        "raw": str(2**200),
        "chains": ["base", 56],
    }


def test_awkward_values_never_break_a_line() -> None:
    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no")

    out = io.StringIO()
    loop: list[Any] = []
    loop.append(loop)
    with running(out):
        log.info("one %s two", extra={"surrogate": "\ud800", "nan": float("nan"), "loop": loop, "level": "mine"})
        log.info("%d", "not a number")
        log.info("rude %s", Rude())
        log.info("fine", extra={"rude": Rude()})
        log.info("x" * 100_000)
    found = lines(out)
    assert found[0]["surrogate"] == "?"
    assert (found[0]["nan"], found[0]["level"], found[0]["level_"]) == (None, "info", "mine")
    assert found[1]["message"] == "'%d' % ('not a number',)"
    assert "could not be formatted" in found[3]["message"]
    assert "characters left out" in found[4]["message"]
    assert len(found) == 5


def test_an_exception_comes_with_its_traceback_and_group() -> None:
    out = io.StringIO()
    with running(out):
        try:
            raise ExceptionGroup("several", [ValueError("first"), KeyError("second")])
        except ExceptionGroup:
            log.exception("it broke")
    assert all(word in lines(out)[0]["exception"] for word in ("Traceback", "several", "ValueError: first", "second"))


async def test_bound_fields_reach_the_lines_of_tasks_started_inside() -> None:
    out = io.StringIO()

    async def child() -> None:
        log.info("child", extra={"chain": "base"})

    with running(out):
        with bound(job_id="7", chain="none"), bound(user="u"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
        log.info("outside")
    inside, outside = lines(out)
    assert (inside["job_id"], inside["user"], inside["chain"]) == ("7", "u", "base")
    assert "job_id" not in outside


def test_levels_hold_for_ours_and_libraries_are_quiet() -> None:
    out = io.StringIO()
    with running(out, "debug") as logging_now:
        log.debug("ours")
        logging.getLogger("httpx").info("GET https://h/key")
        logging.getLogger("some.library").info("chatter")
        logging.getLogger("hypercorn.error").warning("theirs")
        logging_now.set_level("error")
        log.warning("not this")
        logging.getLogger("some.library").warning("nor this")
        log.error("this")
    assert [line["message"] for line in lines(out)] == ["ours", "theirs", "this"]


def test_warnings_become_lines_and_everything_is_put_back() -> None:
    def state() -> list[object]:
        loggers = [logging.getLogger(name) for name in ("", "moonxd", "httpx")]
        return [(logger.level, list(logger.handlers)) for logger in loggers]

    before = state()
    out = io.StringIO()
    with running(out), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert "old thing" in lines(out)[0]["message"]
    assert state() == before


# ---- on a terminal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("no_colour", "term", "coloured"), [("", "xterm", True), ("1", "xterm", False), ("", "dumb", False)]
)
def test_a_terminal_gets_text_in_colour_unless_it_said_no(
    monkeypatch: pytest.MonkeyPatch, no_colour: str, term: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setenv("TERM", term)
    out = Terminal()
    with running(out, format="auto"):
        log.warning("slow", extra={"chain": "base", "why": "two words"})
    assert ("\x1b[33m" in out.getvalue()) == coloured
    if not coloured:
        assert 'WARNING  test       slow  chain=base why="two words"\n' in out.getvalue()


def test_what_comes_from_a_job_cannot_drive_the_terminal() -> None:
    out = io.StringIO()
    with running(out, format="pretty"):
        log.info("user %s", "a\x1b[2Jb\nINFO forged", extra={"label": "x\u202ey"})
        try:
            raise ValueError("tra\x1b[2Jce")
        except ValueError:
            log.exception("broke")
    first, second, *trace = out.getvalue().splitlines()
    assert "a\\x1b[2Jb\\nINFO forged" in first
    assert "x\\u202ey" in first
    assert second.endswith("broke")
    assert trace[-1] == "ValueError: tra\\x1b[2Jce"


# ---- what a line hides ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "pretty"])
def test_registered_secrets_are_masked_wherever_they_appear(format: str) -> None:
    out = io.StringIO()
    secret = "hun'ter/22 é"
    with running(out, format=format, secrets=(secret, "abc")) as logging_now:
        log.info("in the text %s", secret)
        log.info("quoted hun%%27ter%%2F22%%20%%C3%%A9 and %r", secret)
        log.info("in a field", extra={"deep": {"list": [secret, {secret: 1}]}, "held": Secret("later-on")})
        try:
            try:
                raise ValueError(f"cause {secret}")
            except ValueError as cause:
                raise RuntimeError("effect") from cause
        except RuntimeError:
            log.exception("broke", stack_info=True)
        logging_now.add_secrets(["later-on"])
        log.info("later-on, but abc is too short to be masked")
    text = out.getvalue()
    assert "hun" not in text
    assert "ter/22" not in text
    assert "later-on" not in text
    assert "abc is too short" in text
    assert text.count("***") >= 7


def test_credentials_in_urls_are_masked_even_if_nobody_registered_them() -> None:
    out = io.StringIO()
    with running(out):
        log.info("redis://u:pw@h:1/0 and https://base-mainnet.g.alchemy.com/v2/somekey?x=1")
    assert lines(out)[0]["message"] == "redis://***@h:1/0 and https://base-mainnet.g.alchemy.com/v2/***?x=1"


# ---- nobody waits --------------------------------------------------------------------------------------------------


def pipe() -> tuple[int, Any]:
    reader, writer = os.pipe()
    return reader, os.fdopen(writer, "w")


def drain(reader: int) -> bytes:
    chunks = []
    while chunk := os.read(reader, 65536):
        chunks.append(chunk)
    return b"".join(chunks)


async def test_a_reader_that_does_not_read_stops_nobody_and_learns_what_it_missed() -> None:
    reader, writer = pipe()
    slowest = 0.0
    with setup_logging("info", "json", stream=writer) as logging_now:
        for number in range(6_000):
            before = time.perf_counter()
            log.info("x" * 1000, extra={"number": number})
            slowest = max(slowest, time.perf_counter() - before)
        dropped = logging_now.dropped
        assert dropped > 1000
        # A line that waited for the reader would have waited for ever.
        assert slowest < 5.0
        text: list[bytes] = []
        collector = threading.Thread(target=lambda: text.append(drain(reader)))
        collector.start()
        assert await trio.to_thread.run_sync(logging_now.flush, 30.0)
        log.info("back again")
    writer.close()
    collector.join(30)
    os.close(reader)
    found = [json.loads(line) for line in text[0].splitlines()]
    assert found[-2]["message"] == f"{dropped} log lines were dropped: nobody read them fast enough"
    assert found[-1]["message"] == "back again"
    assert len(found) == 6_000 - dropped + 2


def test_a_reader_that_went_away_costs_lines_and_nothing_else() -> None:
    reader, writer = pipe()
    os.close(reader)
    with setup_logging("info", "json", stream=writer) as logging_now:
        log.info("into the void")
        assert logging_now.flush(10)
        assert logging_now.dropped == 1
        log.info("again")
        assert logging_now.flush(10)
        # The line that tells of lost lines is lost too, and is not counted.
        assert logging_now.dropped == 2
    writer.close()


def test_the_end_waits_for_a_stuck_reader_only_so_long() -> None:
    stuck = threading.Event()
    done = threading.Event()

    def write(_data: bytes) -> None:
        stuck.set()
        done.wait(30)

    writer = LineWriter(write, lambda count: b"%d\n" % count)
    writer.put(b"line\n")
    assert stuck.wait(10)
    assert not writer.flush(0.01)
    assert not writer.close(0.01)
    done.set()
    assert writer.close(10)


def test_a_nonblocking_stream_gets_everything() -> None:
    reader, writer = pipe()
    os.set_blocking(writer.fileno(), False)
    text: list[bytes] = []
    with setup_logging("info", "json", stream=writer):
        for _ in range(300):
            log.info("x" * 1000)
        collector = threading.Thread(target=lambda: text.append(drain(reader)))
        collector.start()
    writer.close()
    collector.join(30)
    os.close(reader)
    assert len(text[0].splitlines()) == 300


# ---- repeated warnings ---------------------------------------------------------------------------------------------


def test_a_throttle_counts_what_it_holds_back_and_forgets_the_oldest() -> None:
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0], limit=2)
    assert [throttle.admit("a", 10) for _ in range(3)] == [0, None, None]
    now[0] = 10
    assert throttle.admit("a", 10) == 2
    assert [throttle.admit(key, 10) for key in ("b", "c", "b")] == [0, 0, None]
    assert throttle.admit("a", 10) == 0


def test_a_repeated_warning_is_logged_once() -> None:
    out = io.StringIO()
    with running(out):
        logged = [log_once_per(60, log, logging.WARNING, "lost %s", n, extra={"n": n}, key="t-once") for n in range(3)]
        assert not log_once_per(60, log, logging.DEBUG, "not enabled")
        assert log_once_per(0, log, logging.WARNING, "lost again", key="t-once")
    assert logged == [True, False, False]
    assert [(line["message"], line.get("suppressed")) for line in lines(out)] == [("lost 0", None), ("lost again", 2)]
