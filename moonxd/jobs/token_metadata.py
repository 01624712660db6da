"""Ask tokens anew for their symbol, name and scale, and remember that for every worker: the next syncs use it."""

from __future__ import annotations

from typing import Any

import trio

from ..domain.batch import parse_token_batch
from ..domain.chain import CHAINS
from ..domain.errors import Permanent, Transient
from ..domain.token import TokenMeta, TokenRef
from ..ports import TokenReader
from .contract import Env, ErrandType, Step


async def run(payload: bytes, env: Env, step: Step) -> dict[str, Any]:
    """Raises Transient when no chain at all could be read, Permanent when the task asks for what cannot be."""
    tokens = parse_token_batch(payload).tokens
    by_chain: dict[int, list[str]] = {}
    for token in tokens:
        by_chain.setdefault(token.chain_id, []).append(token.address)
    readers = {chain_id: _reader(chain_id, env) for chain_id in by_chain}
    step("fetch")
    found: dict[TokenRef, TokenMeta] = {}
    failures: dict[int, Transient | Permanent] = {}

    async def ask(chain_id: int) -> None:
        try:
            with trio.fail_after(env.chain_timeout_s):
                metas = await readers[chain_id].describe(by_chain[chain_id])
        except trio.TooSlowError:
            failures[chain_id] = Transient(f"no answer within {env.chain_timeout_s:g} s")
        except (Transient, Permanent) as error:
            failures[chain_id] = error
        else:
            found.update({TokenRef(chain_id, address): meta for address, meta in metas.items()})

    async with trio.open_nursery() as nursery:
        for chain_id in by_chain:
            nursery.start_soon(ask, chain_id)
    if failures and not found:
        reasons = "; ".join(f"{CHAINS[chain_id].slug}: {error}" for chain_id, error in failures.items())
        raise Transient(f"no chain could be read ({reasons})")
    return _result(tokens, found, failures)


def _reader(chain_id: int, env: Env) -> TokenReader:
    reader = env.readers.get(chain_id)
    if reader is None:
        enabled = ", ".join(reader.chain.slug for reader in env.readers.values())
        raise Permanent(f"chain {chain_id} ({CHAINS[chain_id].slug}) is not enabled here; enabled: {enabled}")
    if not isinstance(reader, TokenReader):
        raise Permanent(f"the source that {reader.chain.slug} is read from does not describe tokens")
    return reader


def _result(
    tokens: tuple[TokenRef, ...], found: dict[TokenRef, TokenMeta], failures: dict[int, Transient | Permanent]
) -> dict[str, Any]:
    described = [_row(token, found[token]) for token in tokens if token in found]
    return {
        "success": True,
        "total": len(tokens),
        "refreshed": sum(1 for row in described if row["decimals"] is not None),
        "tokens": described,
        "chainsFailed": [{"chainId": chain_id, "error": str(error)} for chain_id, error in failures.items()],
    }


def _row(token: TokenRef, meta: TokenMeta) -> dict[str, Any]:
    return {
        "chainId": token.chain_id,
        "address": token.address,
        "symbol": meta.symbol,
        "name": meta.name,
        "decimals": meta.decimals,
    }


TYPE = ErrandType(name="token-metadata", run=run)
