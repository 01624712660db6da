"""Requests of another program that lie in lists: taken so that none is lost. The rules are those of the package."""

from __future__ import annotations

from typing import Protocol

from ..domain.core_service import Source, Taken, Verdict


class Requests(Protocol):
    """The lists, as one of any number of daemons that serve them sees them. One instance is one *owner*.

    A request that was taken belongs to its owner until it is finished. Who stops beating loses what it holds: another
    owner's `beat` puts it back, first in line. So a request may be taken twice, and never by nobody.
    """

    async def beat(self) -> int:
        """Say that this owner lives, and put back what dead ones held; how many requests that were."""
        ...

    async def take(self, source: Source, timeout: float) -> Taken | None:
        """The oldest request of a list, None after `timeout` seconds. One call at a time per list.

        A request that reached this owner without its knowing (a call was cancelled, a connection broke) or that was let
        go comes before those of the list, some seconds later.
        """
        ...

    async def finish(self, taken: Taken, verdict: Verdict) -> bool:
        """Reply, park and forget the request in one step. False, with nothing done, when it is not ours any more."""
        ...

    def let_go(self, taken: Taken) -> None:
        """Nothing came of this request: it is to be taken again, by this owner or another one."""
        ...

    async def leave(self) -> None:
        """Put back everything that this owner holds."""
        ...
