"""Follows the new heads of chains: subscribes, subscribes again when a connection is lost or silent, counts reorgs."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn

import msgspec
import trio

from ..domain.blocktime import Block
from ..domain.errors import Permanent, Transient
from ..domain.heads import HeadsSeen, Trail, silent_after_s
from ..ports import Heads
from ..supervisor import Restarts

log = logging.getLogger("moonxd.heads")

#: The pause before the next connection: short at first, a minute at most. It starts afresh once a head came.
_PAUSES = Restarts(first_s=0.5, longest_s=60.0)
#: An endpoint that will not have us is asked again, but not soon: somebody has to change something.
_REFUSED_S = 600.0


class HeadsWatch:
    """`usual(chain id)` is the chain's usual block time in seconds, `now` the wall clock (unix seconds)."""

    def __init__(
        self,
        feeds: Mapping[int, Heads],
        usual: Callable[[int], float],
        *,
        now: Callable[[], float] = time.time,
        rand: Callable[[], float] = random.random,
        silent_after: Callable[[float], float] = silent_after_s,
    ) -> None:
        self._followers = {
            chain_id: _Follower(chain_id, feed, partial(_limit, chain_id, usual, silent_after), now, rand)
            for chain_id, feed in feeds.items()
        }

    async def run(self, ready: Callable[[], None]) -> None:
        """Until cancelled. One chain's trouble is not another's."""
        async with trio.open_nursery() as nursery:
            for follower in self._followers.values():
                nursery.start_soon(follower.run)
            ready()

    def seen(self, chain_id: int) -> HeadsSeen | None:
        """What came of this chain; None when it is not followed."""
        follower = self._followers.get(chain_id)
        return follower.seen if follower else None


def _limit(chain_id: int, usual: Callable[[int], float], silent_after: Callable[[float], float]) -> float:
    return silent_after(usual(chain_id))


class _Follower:
    def __init__(
        self, chain_id: int, feed: Heads, silent_after: Callable[[], float], now: Callable[[], float],
        rand: Callable[[], float],
    ) -> None:  # fmt: skip
        self._chain_id = chain_id
        self._feed = feed
        self._silent_after = silent_after
        self._now = now
        self._rand = rand
        self._trail = Trail()
        self._failures = 0
        self.seen = HeadsSeen(host=feed.host)

    async def run(self) -> None:
        while True:
            at_least_s = 0.0
            try:
                await self._follow()
            except Transient as error:
                at_least_s = error.retry_after or 0.0
                self._lost(error)
            except Permanent as error:
                at_least_s = _REFUSED_S
                self._lost(error)
            finally:
                self._note(is_connected=False)
            pause_s = max(at_least_s, _PAUSES.delay(self._failures, self._rand()))
            self._failures += 1
            await trio.sleep(pause_s)

    async def _follow(self) -> NoReturn:
        async with self._feed.subscribe() as stream:
            self._note(is_connected=True, subscriptions=self.seen.subscriptions + 1)
            while True:
                limit_s = self._silent_after()
                with trio.move_on_after(limit_s) as silence:
                    head = await stream.head()
                if silence.cancelled_caught:
                    self._note(silences=self.seen.silences + 1)
                    raise Transient(f"{self._feed.host}: announced no head for {limit_s:.0f} s")
                self._take(head)

    def _take(self, head: Block) -> None:
        self._failures = 0
        replaced = self._trail.add(head)
        if replaced:
            log.info(
                "%d blocks of chain %d were replaced", replaced, self._chain_id,
                extra={"chain_id": self._chain_id, "provider": self._feed.host, "blocks": replaced},
            )  # fmt: skip
        self._note(
            newest=self._trail.tip,
            seen_at=self._now(),
            heads=self.seen.heads + 1,
            reorgs=self._trail.reorgs,
            deepest=self._trail.deepest,
            error=None,
        )

    def _lost(self, error: Exception) -> None:
        # The first failure is news; that it goes on is not.
        level = logging.WARNING if self._failures == 0 else logging.DEBUG
        log.log(
            level, "heads of chain %d do not come, connecting again: %s", self._chain_id, error,
            extra={"chain_id": self._chain_id, "provider": self._feed.host},
        )  # fmt: skip
        self._note(error=str(error))

    def _note(self, **changes: object) -> None:
        self.seen = msgspec.structs.replace(self.seen, **changes)
