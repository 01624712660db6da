"""The simulated world as one object: chains, tokens, wallets, heads, prices, and every upstream's knobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import trio

from moonxd.domain.address import parse_address
from moonxd.domain.chain import Chain
from moonxd.domain.errors import ConfigError, Permanent

from .entropy import Entropy
from .heads import Head
from .holdings import Wallets
from .knobs import Knobs, Upstream, patched
from .multicall import Contracts
from .pricing import Pricing
from .settings import SimSettings
from .universe import SimToken, Universe

#: Upstreams that are no chains.
VENDORS = (
    "llama",
    "llama-stats",
    "coingecko",
    "dexscreener",
    "binance",
    "alchemy-prices",
    "lifi",
    "relay",
    "oneinch",
    "across",
)


class SimChain:
    """One chain, its plain JSON-RPC endpoint and its Alchemy endpoint."""

    def __init__(self, chain: Chain, entropy: Entropy, settings: SimSettings) -> None:
        self.chain = chain
        self.entropy = entropy
        self.universe = Universe(chain, entropy, settings.tokens)
        self.wallets = Wallets(self.universe, entropy)
        self.contracts = Contracts(self.universe)
        self.head = Head(chain)
        self.node = Upstream(chain.slug, settings.seed)
        self.alchemy = Upstream(f"alchemy-{chain.slug}", settings.seed)

    def settle(self, now: float) -> None:
        """Bring head and contracts in line with the node's knobs."""
        knobs = self.node.knobs
        self.head.follow(halted=knobs.halted, block_time=knobs.block_time_s, now=now)
        self.contracts.gas_cap = knobs.gas_cap
        self.contracts.poison = frozenset(map(_key, knobs.poison))
        self.contracts.reverting = frozenset(map(_key, knobs.reverting))
        self.contracts.reset()


class World:
    """Everything the endpoints answer from."""

    def __init__(self, settings: SimSettings, now: Callable[[], float] = time.time) -> None:
        entropy = Entropy(settings.seed)
        self.settings = settings
        self.now = now
        self.pricing = Pricing(entropy, settings.price_bucket_s)
        self.chains = {chain.slug: SimChain(chain, entropy, settings) for chain in settings.chains}
        self.by_id = {chain.chain.id: chain for chain in self.chains.values()}
        self.upstreams = {upstream.name: upstream for upstream in self._every_upstream()}
        #: Replaced and set at every change of a knob, to wake whoever waits for a block.
        self.changed = trio.Event()
        self.reset()

    def _every_upstream(self) -> Iterable[Upstream]:
        for chain in self.chains.values():
            yield chain.node
            yield chain.alchemy
        for name in VENDORS:
            yield Upstream(name, self.settings.seed)

    def find_chain(self, name: object) -> SimChain | None:
        """A chain by slug or id."""
        text = str(name)
        return self.chains.get(text) or (self.by_id.get(int(text)) if text.isdecimal() else None)

    def turn(self, patch: Mapping[str, Mapping[str, Any]]) -> None:
        """Change knobs: {upstream or group: {knob: value}}. All of it or, on ConfigError, nothing.

        Groups: `*` everything, `chains` the plain endpoints, `alchemy` all of Alchemy's, `vendors` the rest.
        """
        turned: dict[str, Knobs] = {}
        for name, change in patch.items():
            for upstream in self._group(name):
                turned[upstream.name] = patched(turned.get(upstream.name, upstream.knobs), change)
        for knobs in turned.values():
            for address in (*knobs.poison, *knobs.reverting):
                _key(address)
        for name, knobs in turned.items():
            self.upstreams[name].turn(knobs)
        self._settle()

    def _group(self, name: str) -> list[Upstream]:
        groups: dict[str, list[Upstream]] = {
            "*": list(self.upstreams.values()),
            "chains": [chain.node for chain in self.chains.values()],
            "alchemy": [chain.alchemy for chain in self.chains.values()],
            "vendors": [self.upstreams[vendor] for vendor in VENDORS],
        }
        if name in groups:
            return groups[name]
        upstream = self.upstreams.get(name)
        if upstream is None:
            known = ", ".join((*groups, *self.upstreams))
            raise ConfigError(f"there is no upstream {name!r} to turn knobs of: use one of {known}")
        return [upstream]

    def reset(self) -> None:
        """Back to the start: knobs as configured, fresh dice and counters, wallets and blocks as the seed says."""
        for upstream in self.upstreams.values():
            upstream.turn(Knobs())
            upstream.restart()
        for chain in self.chains.values():
            # Blocks that once stood still would be slow blocks to whoever measures them afterwards.
            chain.head = Head(chain.chain)
            chain.wallets.reset()
            chain.universe.reset()
        self.turn(self.settings.knobs)

    def deploy(self, token: SimToken) -> None:
        """Put a token on its chain."""
        chain = self.by_id[token.chain_id]
        chain.universe.put(token)
        chain.contracts.reset()

    def _settle(self) -> None:
        now = self.now()
        for chain in self.chains.values():
            chain.settle(now)
        self.changed.set()
        self.changed = trio.Event()


def _key(address: str) -> bytes:
    try:
        return bytes.fromhex(parse_address(address, what="token")[2:])
    except Permanent as error:
        raise ConfigError(str(error)) from error
