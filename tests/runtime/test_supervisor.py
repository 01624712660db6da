"""Supervision on a simulated clock: restarts, limits, order, and what a critical failure does."""

from collections.abc import Callable

import pytest
import trio

from moonxd.domain.errors import ConfigError, single
from moonxd.supervisor import Child, ChildFailed, Restarts, Supervisor

Ready = Callable[[], None]


async def forever(ready: Ready) -> None:
    ready()
    await trio.sleep_forever()


def child(supervisor: Supervisor, name: str) -> object:
    return next(view for view in supervisor.children() if view.name == name)


async def test_children_start_in_order_and_stop_in_reverse(autojump_clock: trio.testing.MockClock) -> None:
    told: list[str] = []

    def body(name: str) -> Callable[[Ready], object]:
        async def run(ready: Ready) -> None:
            await trio.sleep(1)
            told.append(f"{name} up")
            ready()
            try:
                await trio.sleep_forever()
            finally:
                told.append(f"{name} down")

        return run

    stop = trio.Event()
    await Supervisor().run([Child(name=n, body=body(n)) for n in "abc"], stop, started=stop.set)  # type: ignore[arg-type]
    assert told == ["a up", "b up", "c up", "c down", "b down", "a down"]


async def test_a_child_that_dies_is_started_again(autojump_clock: trio.testing.MockClock) -> None:
    lives = 0
    stop = trio.Event()
    restarted: list[str] = []

    async def mortal(ready: Ready) -> None:
        nonlocal lives
        lives += 1
        ready()
        if lives == 4:
            stop.set()
            await trio.sleep_forever()
        raise OSError("the network fell over")

    supervisor = Supervisor(on_restart=restarted.append)
    await supervisor.run([Child(name="m", body=mortal)], stop)
    (view,) = supervisor.children()
    assert (view.restarts, view.state, view.last_error) == (3, "stopped", "OSError: the network fell over")
    assert restarted == ["m"] * 3


async def test_past_its_intensity_a_critical_child_takes_the_daemon_down(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lives = 0

    async def hopeless(ready: Ready) -> None:
        nonlocal lives
        lives += 1
        ready()
        raise RuntimeError("no")

    children = [Child(name="other", body=forever), Child(name="h", body=hopeless, restarts=Restarts(most=3))]
    supervisor = Supervisor()
    with pytest.raises(ExceptionGroup) as caught:
        await supervisor.run(children, trio.Event())
    assert isinstance(single(caught.value), ChildFailed)
    assert lives == 4, "the first life and three restarts"
    assert child(supervisor, "other").state == "stopped"  # type: ignore[attr-defined]


async def test_one_that_is_not_critical_is_shown_as_failed_while_the_rest_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stop = trio.Event()

    async def hopeless(ready: Ready) -> None:
        raise RuntimeError("no")

    async def last(ready: Ready) -> None:
        ready()
        await trio.sleep(10_000)
        stop.set()
        await trio.sleep_forever()

    supervisor = Supervisor()
    frail = Child(name="frail", body=hopeless, critical=False, restarts=Restarts(most=2))
    await supervisor.run([frail, Child(name="last", body=last)], stop)
    view = child(supervisor, "frail")
    assert view.state == "failed"  # type: ignore[attr-defined]
    assert view.last_error == "RuntimeError: no"  # type: ignore[attr-defined]


async def test_a_wrong_value_is_not_retried(autojump_clock: trio.testing.MockClock) -> None:
    lives = 0

    async def misconfigured(ready: Ready) -> None:
        nonlocal lives
        lives += 1
        raise ConfigError("redis.url: no such scheme")

    with pytest.raises(ExceptionGroup) as caught:
        await Supervisor().run([Child(name="c", body=misconfigured)], trio.Event())
    assert "redis.url" in str(single(caught.value))
    assert lives == 1


async def test_a_start_that_hangs_counts_as_a_failure(autojump_clock: trio.testing.MockClock) -> None:
    async def hangs(ready: Ready) -> None:
        await trio.sleep_forever()

    slow = Child(name="slow", body=hangs, start_s=5, restarts=Restarts(most=1))
    with pytest.raises(ExceptionGroup) as caught:
        await Supervisor().run([slow], trio.Event())
    assert "not ready within 5 s" in str(single(caught.value))


async def test_restarts_long_ago_do_not_count(autojump_clock: trio.testing.MockClock) -> None:
    lives = 0
    stop = trio.Event()

    async def daily(ready: Ready) -> None:
        nonlocal lives
        lives += 1
        ready()
        await trio.sleep(3600)
        if lives == 20:
            stop.set()
            await trio.sleep_forever()
        raise OSError("again")

    await Supervisor().run([Child(name="d", body=daily, restarts=Restarts(most=2, window_s=60))], stop)
    assert lives == 20


async def test_a_child_can_be_stopped_before_the_others(autojump_clock: trio.testing.MockClock) -> None:
    supervisor, stop, up = Supervisor(), trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        children = [Child(name="a", body=forever), Child(name="b", body=forever)]
        nursery.start_soon(lambda: supervisor.run(children, stop, started=up.set))
        await up.wait()
        await supervisor.stop_child("b")
        assert [view.state for view in supervisor.children()] == ["running", "stopped"]
        stop.set()
