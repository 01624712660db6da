"""Refresh one wallet: read all its chains at once, price what they hold, and say what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from ..domain.chain import CHAINS
from ..domain.errors import Permanent, Transient
from ..domain.ledger import Admitted
from ..domain.payload import WalletSync, parse_wallet_sync
from ..domain.portfolio import assemble, refresh_metadata, unpriced
from ..domain.token import ChainFailure, ChainSnapshot
from ..ports import ChainReader
from .contract import Env, Found, JobType, Step


async def run(task: WalletSync, admitted: Admitted, env: Env, step: Step) -> Found:
    """Raises Transient when no chain at all could be read, Permanent when the task asks for what cannot be."""
    if task.sync_type == "trades":
        raise Permanent(
            "syncType trades is not supported: moonxd reads balances, not trade histories; "
            "use portfolio, full or metadata"
        )
    readers = _readers(task, env)
    step("fetch")
    snapshots, failures = await _fetch(task, admitted, env, readers)
    if not snapshots:
        raise _no_chain(failures)
    if task.sync_type == "metadata":
        change = refresh_metadata(admitted.previous, snapshots)
    else:
        step("price")
        change = assemble(admitted.previous, snapshots, await env.prices(unpriced(snapshots)))
    return Found(
        change=change,
        chains=tuple(snapshot.chain_id for snapshot in snapshots),
        failures=failures,
        metadata=_audit(snapshots, failures),
    )


def _readers(task: WalletSync, env: Env) -> tuple[ChainReader, ...]:
    for chain_id in task.chain_ids:
        if chain_id not in env.readers:
            enabled = ", ".join(reader.chain.slug for reader in env.readers.values())
            raise Permanent(f"chain {chain_id} ({CHAINS[chain_id].slug}) is not enabled here; enabled: {enabled}")
    return tuple(env.readers[chain_id] for chain_id in task.chain_ids or env.readers)


async def _fetch(
    task: WalletSync, admitted: Admitted, env: Env, readers: Sequence[ChainReader]
) -> tuple[tuple[ChainSnapshot, ...], tuple[ChainFailure, ...]]:
    results: dict[int, ChainSnapshot | ChainFailure] = {}
    refresh = task.sync_type in ("full", "metadata")

    async def read(reader: ChainReader) -> None:
        chain_id = reader.chain.id
        seen = [token.address for token in admitted.seen if token.chain_id == chain_id]
        try:
            with trio.fail_after(env.chain_timeout_s):
                results[chain_id] = await reader.read(task.wallet, seen, refresh_metadata=refresh)
        except trio.TooSlowError:
            results[chain_id] = ChainFailure(chain_id, f"no answer within {env.chain_timeout_s:g} s")
        except Transient as error:
            results[chain_id] = ChainFailure(chain_id, str(error), retry_after=error.retry_after)
        except Permanent as error:
            results[chain_id] = ChainFailure(chain_id, str(error), transient=False)

    async with trio.open_nursery() as nursery:
        for reader in readers:
            nursery.start_soon(read, reader)
    ordered = [results[reader.chain.id] for reader in readers]
    return (
        tuple(result for result in ordered if isinstance(result, ChainSnapshot)),
        tuple(result for result in ordered if isinstance(result, ChainFailure)),
    )


def _no_chain(failures: Sequence[ChainFailure]) -> Transient:
    # Even a refused key is worth a retry: the operator mends it, the payload is not at fault.
    reasons = "; ".join(f"{CHAINS[failure.chain_id].slug}: {failure.reason}" for failure in failures)
    waits = [failure.retry_after for failure in failures if failure.transient]
    # An attempt while all breakers are open is a wasted one.
    known = [wait for wait in waits if wait is not None]
    soonest = min(known) if known and len(known) == len(waits) else None
    return Transient(f"no chain could be read ({reasons})", retry_after=soonest)


def _audit(snapshots: Sequence[ChainSnapshot], failures: Sequence[ChainFailure]) -> dict[str, Any]:
    chains = {
        CHAINS[snapshot.chain_id].slug: {
            "source": snapshot.source,
            "blocks": [snapshot.block_low, snapshot.block_high],
            "tokens": len(snapshot.balances),
            "listedTokensOnly": not snapshot.discovers,
            **({"quarantined": snapshot.quarantined} if snapshot.quarantined else {}),
        }
        for snapshot in snapshots
    }
    failed = {CHAINS[failure.chain_id].slug: failure.reason for failure in failures}
    return {"chains": chains, **({"failedChains": failed} if failed else {})}


TYPE = JobType(name="portfolio-sync", parse=parse_wallet_sync, run=run)
