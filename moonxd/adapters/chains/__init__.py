"""The chains as we read them. A new kind of reader is a file here and a line in READERS."""

from __future__ import annotations

from collections.abc import Sequence

from ...domain.chain import Chain
from ...domain.errors import ConfigError
from ...domain.tokenlist import ListedToken, ParsedList, dump_token_list, parse_token_list
from ...ports import Cache, ChainReader
from ..rpc import Endpoint, Observer, RpcClient, Transport
from .alchemy import AlchemyReader
from .multicall import MulticallReader
from .reading import Endpoints
from .together import SharingReader
from .tokens import TokenList, builtin_tokens

__all__ = [
    "PUBLIC_ENDPOINTS",
    "READERS",
    "AlchemyReader",
    "ListedToken",
    "MulticallReader",
    "ParsedList",
    "TokenList",
    "build_reader",
    "builtin_tokens",
    "dump_token_list",
    "parse_token_list",
]

#: How a chain may be read, by the `source` its snapshots carry.
READERS = {"alchemy": AlchemyReader, "multicall": MulticallReader}

#: Keyless endpoints in order of preference: they make an unconfigured daemon work, slowly and with limits unknown.
PUBLIC_ENDPOINTS: dict[int, tuple[str, ...]] = {
    1: ("https://ethereum-rpc.publicnode.com", "https://eth.drpc.org", "https://public.1rpc.io/eth"),
    137: ("https://polygon-bor-rpc.publicnode.com", "https://polygon.drpc.org", "https://public.1rpc.io/matic"),
    10: ("https://optimism-rpc.publicnode.com", "https://mainnet.optimism.io", "https://optimism.drpc.org"),
    42161: ("https://arbitrum-one-rpc.publicnode.com", "https://arb1.arbitrum.io/rpc", "https://arbitrum.drpc.org"),
    8453: ("https://base-rpc.publicnode.com", "https://mainnet.base.org", "https://base.drpc.org"),
    56: ("https://bsc-rpc.publicnode.com", "https://bsc-dataseed.bnbchain.org", "https://bsc.drpc.org"),
}


def build_reader(
    chain: Chain,
    transport: Transport,
    tokens: TokenList,
    cache: Cache,
    *,
    urls: Sequence[str] = (),
    alchemy_url: str | None = None,
    timeout_s: float = 10.0,
    retries: int = 3,
    retry_delay_s: float = 1.0,
    chunk: int = 250,
    on_call: Observer | None = None,
) -> ChainReader:
    """The reader of one chain: Alchemy's token index at `alchemy_url` (key included) when there is one, else plain
    JSON-RPC at `urls`, and at the public endpoints when there are none.

    `timeout_s` bounds one exchange; a failed read is tried `retries` times more within the deadline around it, first
    after `retry_delay_s` seconds. Raises ConfigError when a URL cannot be used; the URL is not shown.
    """
    given = (alchemy_url,) if alchemy_url else urls or PUBLIC_ENDPOINTS.get(chain.id, ())
    endpoints = [Endpoint(url) for url in given]
    if not endpoints:
        raise ConfigError(f"{chain.slug}_rpc_url is not set, and no public endpoint of {chain.name} is known")
    clients = [RpcClient(transport, endpoint, timeout_s=timeout_s, on_call=on_call) for endpoint in endpoints]
    where = Endpoints(chain, clients, retries=retries, retry_delay_s=retry_delay_s)
    if alchemy_url:
        return AlchemyReader(chain, where, tokens, cache)
    return SharingReader(chain, where, tokens, cache, chunk=chunk)
