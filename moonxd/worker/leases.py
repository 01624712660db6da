"""Keeps the wallets' leases of running attempts alive, and stops an attempt whose wallet went to somebody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from ..domain.errors import LeaseLost, Transient
from ..domain.ledger import Lease
from ..ports import Ledger

log = logging.getLogger("moonxd.leases")


class LeaseKeeper:
    """One per process. The fence keeps the ledger right in any case; renewal only keeps others from waiting in vain."""

    def __init__(self, ledger: Ledger, *, lease_s: float) -> None:
        self._ledger = ledger
        self.lease_s = lease_s
        #: By fence and wallet, not by operation: a redelivery may overlap with the attempt it replaces.
        self._held: dict[Lease, trio.CancelScope] = {}

    @contextmanager
    def hold(self, lease: Lease) -> Iterator[None]:
        """Renew `lease` while the block runs. Raises LeaseLost out of the block when somebody else took the wallet."""
        with trio.CancelScope() as scope:
            self._held[lease] = scope
            try:
                yield
            finally:
                del self._held[lease]
        if scope.cancelled_caught:
            raise LeaseLost(f"the lease of wallet {lease.wallet} went to another attempt")

    async def run(self, ready: Callable[[], None]) -> None:
        """Renew every held lease three times within its life."""
        ready()
        while True:
            await trio.sleep(self.lease_s / 3)
            held = dict(self._held)
            if held:
                await self._renew(held)

    async def _renew(self, held: dict[Lease, trio.CancelScope]) -> None:
        try:
            with trio.fail_after(self.lease_s / 3):
                lost = await self._ledger.renew(list(held), self.lease_s)
        except (Transient, trio.TooSlowError) as error:
            log.warning("the ledger did not renew %d leases: %s", len(held), error or "no answer in time")
            return
        for lease, scope in held.items():
            if lease.operation in lost and lease in self._held:
                log.warning("lease lost", extra={"operation": str(lease.operation), "fence": lease.fence})
                scope.cancel()
