"""The asyncio island: results, errors and cancellations cross it whole, and neither side can hang the other."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import logging
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from moonxd.adapters.island.loop import Island, open_island
from moonxd.domain.errors import Permanent, Transient
from moonxd.supervisor import Child, Restarts, open_supervisor
from tests.services.redis import until

_NAME = contextvars.ContextVar("name", default="nobody")


@pytest.fixture
async def island() -> AsyncIterator[Island]:
    """An island that must be clean when the test ends: no thread of it is left."""
    before = threading.active_count()
    async with open_island() as opened:
        yield opened
    await until(lambda: threading.active_count() <= before)


async def add(a: int, b: int = 0) -> int:
    await asyncio.sleep(0)
    return a + b


async def cancelled_once(began: threading.Event, island: Island, fn: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
    """Call `fn` and cancel it once it has begun; whether the cancellation was what ended the call."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await until(began.is_set)
                scope.cancel()

            nursery.start_soon(cancel)
            await island.call(fn)
    return scope.cancelled_caught


async def running() -> int:
    """Tasks on the loop beside this one and the one that keeps it open."""
    return len(asyncio.all_tasks()) - 2


async def test_results_and_errors_cross(island: Island) -> None:
    async def fail() -> None:
        raise Permanent("no")

    assert await island.call(add, 1, b=2) == 3
    with pytest.raises(Permanent, match="no"):
        await island.call(fail)
    assert await island.call(running) == 0


async def test_calls_run_at_the_same_time(island: Island) -> None:
    arrived = asyncio.Barrier(200)
    answers: list[int] = []

    async def meet(number: int) -> int:
        await arrived.wait()
        return number

    async def ask(number: int) -> None:
        answers.append(await island.call(meet, number))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(ask, number)
    assert sorted(answers) == list(range(200))


async def test_the_callers_context_is_seen_and_not_changed(island: Island) -> None:
    async def rename() -> str:
        seen = _NAME.get()
        _NAME.set("asyncio")
        return seen

    _NAME.set("trio")
    assert await island.call(rename) == "trio"
    assert _NAME.get() == "trio"


async def test_a_cancelled_call_waits_for_its_coroutine_to_unwind(island: Island) -> None:
    began, told = threading.Event(), []

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            told.append("unwound")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(island.call, work)
        await until(began.is_set)
        nursery.cancel_scope.cancel()
    assert told == ["unwound"]
    assert await island.call(running) == 0


async def test_a_result_that_meets_the_cancellation_is_not_lost(island: Island) -> None:
    began = threading.Event()

    async def take() -> str:
        began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "taken"
        return "never"

    got = ""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await until(began.is_set)
                scope.cancel()

            nursery.start_soon(cancel)
            got = await island.call(take)
    assert got == "taken"


async def test_an_error_while_unwinding_is_told(island: Island) -> None:
    began = threading.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            raise Permanent("could not put it back")

    with pytest.RaisesGroup(Permanent):
        await cancelled_once(began, island, work)


@settings(max_examples=100, deadline=None)
@given(steps=st.integers(0, 12), after_us=st.integers(0, 3000), slow=st.integers(0, 2))
def test_cancelled_at_any_moment_it_ends_either_way(steps: int, after_us: int, slow: int) -> None:
    """Whatever the moment: a result or a cancellation, the coroutine not running any more, nothing left behind."""
    entered, left = [], []

    async def work() -> str:
        entered.append(1)
        try:
            for _ in range(steps):
                await asyncio.sleep(0.0002)
            return "done"
        finally:
            try:
                await asyncio.sleep(0.0002 * slow)
            finally:
                left.append(1)

    async def main() -> None:
        async with open_island() as island:
            result = None
            with trio.CancelScope() as scope:
                scope.deadline = trio.current_time() + after_us / 1e6
                result = await island.call(work)
            assert (result == "done") or scope.cancelled_caught
            assert len(entered) == len(left)
            assert await island.call(running) == 0

    trio.run(main)


async def test_thousands_of_calls_in_cancelled_scopes(island: Island) -> None:
    """Already cancelled, and cancelled at a random point of their way."""
    for _ in range(1500):
        with trio.CancelScope() as scope:
            scope.cancel()
            await island.call(add, 1)
        assert scope.cancelled_caught

    async def one(dice: random.Random) -> None:
        with trio.move_on_after(dice.random() * 0.004):
            assert await island.call(add, 1) == 1

    dice = random.Random(7)
    for _ in range(15):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one, dice)
    assert await island.call(running) == 0


async def test_a_coroutine_that_cancels_itself_is_an_error_of_ours(island: Island) -> None:
    async def resign() -> None:
        raise asyncio.CancelledError

    async def be_cancelled() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(3600)

    for fn in (resign, be_cancelled):
        with pytest.raises(Transient, match=r"given up on the asyncio side \(CancelledError\)"):
            await island.call(fn)
    assert await island.call(add, 1) == 1


async def test_slow_unwinding_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    began, release = threading.Event(), threading.Event()

    async def stubborn() -> None:
        began.set()
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    async with open_island(unwind_s=0.2) as island:
        start = trio.current_time()
        assert await cancelled_once(began, island, stubborn)
        assert trio.current_time() - start < 2
        assert "stubborn was cancelled 0.2 s ago and still runs" in caplog.text
        assert await island.call(add, 1) == 1
        release.set()


async def test_leaving_is_bounded_when_a_task_refuses_to_end(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    async def refuse() -> None:
        while not ended.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    async def leave_it() -> None:
        keep.append(asyncio.create_task(refuse(), name="refuse"))

    keep: list[asyncio.Task[None]] = []
    start = trio.current_time()
    async with open_island(unwind_s=0.2) as island:
        await island.call(leave_it)
    assert trio.current_time() - start < 3
    assert "refuse did not end in 0.2 s" in caplog.text
    ended.set()


async def test_leaving_is_bounded_when_the_loop_hangs(caplog: pytest.LogCaptureFixture) -> None:
    began, release = threading.Event(), threading.Event()

    async def hang() -> None:
        began.set()
        release.wait(30)

    start = trio.current_time()
    async with open_island(unwind_s=0.1) as island:
        assert await cancelled_once(began, island, hang)
    assert trio.current_time() - start < 5
    assert "its thread is left behind" in caplog.text
    release.set()
    await until(lambda: "moonxd-island" not in {thread.name for thread in threading.enumerate()})


async def exit_soon() -> None:
    def leave() -> None:
        raise SystemExit(3)

    asyncio.get_running_loop().call_soon(leave)


async def exit_inside() -> None:
    raise SystemExit(3)


async def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(3600)


async def be_interrupted() -> None:
    """What an injected exception does: it strikes wherever the thread just is."""
    here = ctypes.c_ulong(threading.get_ident())
    ctypes.pythonapi.PyThreadState_SetAsyncExc(here, ctypes.py_object(KeyboardInterrupt))
    await asyncio.sleep(3600)


@pytest.mark.parametrize("how", [exit_soon, exit_inside, stop_the_loop, be_interrupted])
async def test_a_dying_thread_is_seen_at_once(
    how: Callable[[], Coroutine[Any, Any, None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "moonxd.island")
    seen: list[str] = []

    async def sleep_long() -> None:
        await asyncio.sleep(3600)

    async def pending() -> None:
        with pytest.raises(Transient, match="thread died"):
            await island.call(sleep_long)
        seen.append("pending")

    async def watch() -> None:
        with pytest.raises(Transient, match="thread died"):
            await island.wait_dead()
        seen.append("supervisor")

    with trio.fail_after(10):
        async with open_island() as island:
            start = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(pending)
                nursery.start_soon(watch)
                await island.call(add, 1)
                with suppress(Transient):
                    await island.call(how)
            assert sorted(seen) == ["pending"] * 3 + ["supervisor"]
            assert trio.current_time() - start < 1
            with pytest.raises(Transient, match="thread died"):
                await island.call(add, 1)


async def test_a_supervised_part_gets_a_new_island(caplog: pytest.LogCaptureFixture) -> None:
    """How a part lives on an island: its own watch ends it with the thread, and its supervisor starts it afresh."""
    caplog.set_level(logging.CRITICAL, "moonxd")
    stop, lives = trio.Event(), 0

    async def part(ready: Callable[[], None]) -> None:
        nonlocal lives
        async with open_island() as island, trio.open_nursery() as nursery:
            nursery.start_soon(island.wait_dead)
            lives += 1
            ready()
            if lives == 2:
                assert await island.call(add, 1) == 1
                stop.set()
            else:
                nursery.start_soon(island.call, exit_soon)
            await trio.sleep_forever()

    with trio.fail_after(10):
        async with open_supervisor(stop) as supervisor:
            await supervisor.start(Child(name="part", body=part, restarts=Restarts(first_s=0.01)))
            await stop.wait()
    (view,) = supervisor.children()
    assert view.restarts == 1
    assert "thread died" in (view.last_error or "")
