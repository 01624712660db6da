"""The live view's feed: one sampler, only while somebody watches, and no memory for those who do not read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import MockClock

from moonxd.api.client import EventParser
from moonxd.api.schema import Delta, Snapshot, apply
from moonxd.control.feed import Feed
from tests.control.harness import PICTURE


class Source:
    """A picture that changes with every sample, unless it is still or broken."""

    def __init__(self) -> None:
        self.taken = 0
        self.still = False
        self.broken = False

    async def __call__(self) -> Snapshot:
        await trio.lowlevel.checkpoint()
        self.taken += 1
        if self.broken:
            raise OSError("no picture")
        waiting = 0 if self.still else self.taken
        queue = msgspec.structs.replace(PICTURE.queue, waiting=waiting)
        return msgspec.structs.replace(PICTURE, at=trio.current_time(), queue=queue)


@asynccontextmanager
async def running(source: Source) -> AsyncGenerator[Feed]:
    feed = Feed(source)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        yield feed
        nursery.cancel_scope.cancel()


def decode(frames: bytes) -> list[Snapshot | Delta]:
    parser = EventParser()
    events = [parser.line(line) for line in frames.decode().split("\n")]
    return [event for event in events if event is not None]


async def test_nobody_watches_nothing_is_sampled(autojump_clock: MockClock) -> None:
    source = Source()
    async with running(source) as feed:
        await trio.sleep(60)
        assert source.taken == 0
        async with aclosing(feed.frames()) as frames:
            await anext(frames)
            await trio.sleep(2)
        await trio.sleep(1)
        taken = source.taken
        assert 5 <= taken <= 12, "four a second while watched"
        await trio.sleep(60)
        assert source.taken == taken


async def test_snapshot_then_deltas_without_gaps(autojump_clock: MockClock) -> None:
    source = Source()
    async with running(source) as feed, aclosing(feed.frames()) as frames:
        (picture,) = decode(await anext(frames))
        assert isinstance(picture, Snapshot)
        for _ in range(20):
            for event in decode(await anext(frames)):
                assert isinstance(event, Delta)
                assert event.daemon is msgspec.UNSET, "unchanged sections are left out"
                picture = apply(picture, event)
        assert picture.queue.waiting == source.taken


async def test_viewers_share_one_sampler(autojump_clock: MockClock) -> None:
    source = Source()
    async with running(source) as feed:
        async with aclosing(feed.frames()) as one, aclosing(feed.frames()) as two, aclosing(feed.frames()) as three:
            for frames in (one, two, three):
                await anext(frames)
            before = source.taken
            await trio.sleep(1.01)
            assert source.taken - before <= 5
        assert feed.watchers == 0


async def test_slow_viewer_continues_with_a_fresh_snapshot(autojump_clock: MockClock) -> None:
    async with running(Source()) as feed, aclosing(feed.frames()) as frames:
        (first,) = decode(await anext(frames))
        await trio.sleep(3600)
        (resynced,) = decode(await anext(frames))
        assert isinstance(resynced, Snapshot)
        assert resynced.seq > first.seq + 1000
        (following,) = decode(await anext(frames))
        assert isinstance(following, Delta)
        assert following.seq == resynced.seq + 1


async def test_viewer_a_little_behind_gets_every_delta_at_once(autojump_clock: MockClock) -> None:
    async with running(Source()) as feed, aclosing(feed.frames()) as frames:
        (picture,) = decode(await anext(frames))
        await trio.sleep(3)
        deltas = decode(await anext(frames))
        assert len(deltas) > 5
        for delta in deltas:
            assert isinstance(delta, Delta)
            assert isinstance(picture, Snapshot)
            picture = apply(picture, delta)


async def test_nothing_new_is_a_heartbeat_not_a_delta(autojump_clock: MockClock) -> None:
    source = Source()
    source.still = True
    async with running(source) as feed, aclosing(feed.frames()) as frames:
        await anext(frames)
        began = trio.current_time()
        assert decode(await anext(frames)) == []
        assert trio.current_time() - began == pytest.approx(10.0)


async def test_picture_of_an_earlier_viewer_is_never_shown_as_the_present(autojump_clock: MockClock) -> None:
    async with running(Source()) as feed:
        async with aclosing(feed.frames()) as frames:
            (old,) = decode(await anext(frames))
        await trio.sleep(600)
        async with aclosing(feed.frames()) as frames:
            (new,) = decode(await anext(frames))
        assert new.at - old.at >= 600
        assert new.seq > old.seq


async def test_failed_samples_end_nothing(autojump_clock: MockClock) -> None:
    source = Source()
    async with running(source) as feed, aclosing(feed.frames()) as frames:
        await anext(frames)
        source.broken = True
        assert decode(await anext(frames)) == [], "a heartbeat"
        source.broken = False
        assert decode(await anext(frames))


async def test_close_ends_every_stream_at_once(autojump_clock: MockClock) -> None:
    source = Source()
    source.still = True
    async with running(source) as feed:
        ended = []

        async def watch() -> None:
            async with aclosing(feed.frames()) as frames:
                async for _ in frames:
                    continue
            ended.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(watch)
            await trio.sleep(1)
            closed = trio.current_time()
            feed.close()
        assert ended == [closed, closed]
