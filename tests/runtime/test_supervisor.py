"""Supervision on a simulated clock: restarts, limits, order, and what a critical failure does."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from moonxd.api.schema import Child as View
from moonxd.domain.errors import ConfigError, Transient
from moonxd.supervisor import Child, ChildFailed, Restarts, open_supervisor

Ready = Callable[[], None]


async def run(
    *children: Child, stop: trio.Event | None = None, started: Callable[[], None] = lambda: None
) -> dict[str, View]:
    """Start `children`, wait for the end, stop them; the status board as it stood then."""
    stop = trio.Event() if stop is None else stop
    async with open_supervisor(stop) as supervisor:
        for child in children:
            await supervisor.start(child)
        started()
        await stop.wait()
        await supervisor.stop_all()
    if supervisor.failure is not None:
        raise supervisor.failure
    return {view.name: view for view in supervisor.children()}


async def forever(ready: Ready) -> None:
    ready()
    await trio.sleep_forever()


async def test_children_start_in_order_and_stop_in_reverse(autojump_clock: trio.testing.MockClock) -> None:
    told: list[str] = []

    def body(name: str) -> Callable[[Ready], Awaitable[None]]:
        async def live(ready: Ready) -> None:
            await trio.sleep(1)
            told.append(f"{name} up")
            ready()
            try:
                await trio.sleep_forever()
            finally:
                told.append(f"{name} down")

        return live

    stop = trio.Event()
    await run(*(Child(name=n, body=body(n)) for n in "abc"), stop=stop, started=stop.set)
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

    async with open_supervisor(stop, on_restart=restarted.append) as supervisor:
        await supervisor.start(Child(name="m", body=mortal))
        await stop.wait()
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

    with pytest.raises(ChildFailed, match="h failed for good: RuntimeError: no"):
        await run(Child(name="other", body=forever), Child(name="h", body=hopeless, restarts=Restarts(most=3)))
    assert lives == 4, "the first life and three restarts"


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

    frail = Child(name="frail", body=hopeless, critical=False, restarts=Restarts(most=2))
    board = await run(frail, Child(name="last", body=last), stop=stop)
    assert (board["frail"].state, board["frail"].last_error) == ("failed", "RuntimeError: no")


async def test_one_that_is_not_critical_holds_up_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """However often it is tried again, and however long each try takes."""
    tries = 0

    async def never_works(ready: Ready) -> None:
        nonlocal tries
        tries += 1
        raise Transient("the archive is away")

    async def hangs(ready: Ready) -> None:
        await trio.sleep_forever()

    stop, began = trio.Event(), trio.current_time()

    def started() -> None:
        assert trio.current_time() - began < 10
        stop.set()

    patient = Restarts(most=1_000_000)
    await run(
        Child(name="away", body=never_works, critical=False, restarts=patient),
        Child(name="hangs", body=hangs, critical=False, restarts=patient, start_s=5.0),
        Child(name="last", body=forever),
        stop=stop,
        started=started,
    )
    assert tries >= 1


async def test_a_wrong_value_is_not_retried(autojump_clock: trio.testing.MockClock) -> None:
    lives = 0

    async def misconfigured(ready: Ready) -> None:
        nonlocal lives
        lives += 1
        raise ConfigError("redis.url: no such scheme")

    with pytest.raises(ChildFailed, match=r"redis\.url"):
        await run(Child(name="c", body=misconfigured))
    assert lives == 1


async def test_a_start_that_hangs_counts_as_a_failure(autojump_clock: trio.testing.MockClock) -> None:
    async def hangs(ready: Ready) -> None:
        await trio.sleep_forever()

    with pytest.raises(ChildFailed, match="not ready within 5 s"):
        await run(Child(name="slow", body=hangs, start_s=5, restarts=Restarts(most=1)))


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

    await run(Child(name="d", body=daily, restarts=Restarts(most=2, window_s=60)), stop=stop)
    assert lives == 20


async def test_a_child_can_be_stopped_before_the_others(autojump_clock: trio.testing.MockClock) -> None:
    async with open_supervisor(trio.Event()) as supervisor:
        await supervisor.start(Child(name="a", body=forever))
        await supervisor.start(Child(name="b", body=forever))
        await supervisor.stop_child("b")
        assert [view.state for view in supervisor.children()] == ["running", "stopped"]


async def test_a_child_that_runs_in_vain_is_shown_as_failing(autojump_clock: trio.testing.MockClock) -> None:
    trouble: list[str] = []
    stop = trio.Event()
    child = Child(name="publisher", body=forever, critical=False, trouble=lambda: trouble[0] if trouble else None)
    async with open_supervisor(stop) as supervisor:
        await supervisor.start(child)
        assert [(view.state, view.last_error) for view in supervisor.children()] == [("running", None)]
        trouble.append("no broker answers")
        assert [(view.state, view.last_error) for view in supervisor.children()] == [("failing", "no broker answers")]
        trouble.clear()
        assert [(view.state, view.last_error) for view in supervisor.children()] == [("running", None)]
        await supervisor.stop_all()
        trouble.append("no broker answers")
        assert [view.state for view in supervisor.children()] == ["stopped"]
