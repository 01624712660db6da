"""The chains as we read them. A new kind of reader is a file here and a line in READERS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

import trio

from ...domain.breaker import Policy
from ...domain.breakers import Breakers
from ...domain.chain import Chain
from ...domain.errors import ConfigError
from ...domain.tokenlist import ListedToken, ParsedList, dump_token_list, parse_token_list
from ...ports import Cache, ChainReader, Quota
from ..rpc import Endpoint, Observer, RpcClient, Transport
from .alchemy import AlchemyReader
from .limits import UNITS_PER_HEAD, alchemy_limits, alchemy_units, request_limits
from .multicall import MulticallReader
from .probe import EndpointProbe, look_methods
from .provider import Limits, Provider
from .reading import Endpoints
from .together import SharingReader
from .tokens import TokenList, builtin_tokens

__all__ = [
    "PUBLIC_ENDPOINTS",
    "READERS",
    "UNITS_PER_HEAD",
    "AlchemyReader",
    "EndpointProbe",
    "Guards",
    "ListedToken",
    "Meter",
    "MulticallReader",
    "ParsedList",
    "TokenList",
    "build_probes",
    "build_reader",
    "builtin_tokens",
    "dump_token_list",
    "is_metered",
    "look_units",
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


_POLICY = Policy()


@dataclass(frozen=True, kw_only=True)
class Guards:
    """What stands between readers and endpoints. `quota` None: nothing is limited but by the endpoints themselves.

    `rpm` bounds the requests a minute to each URL, `public_rpm` (0: not) to each of PUBLIC_ENDPOINTS without it;
    `alchemy_rpm` and `alchemy_units_per_s` bound one Alchemy key. `hedge_share` of the requests may be sent twice.
    """

    breakers: Breakers
    policy: Policy = _POLICY
    quota: Quota | None = None
    rpm: int | None = None
    public_rpm: int = 0
    alchemy_rpm: int = 300
    alchemy_units_per_s: int = 300
    hedge_share: float = 0.1


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
    guards: Guards | None = None,
) -> ChainReader:
    """The reader of one chain: Alchemy's token index at `alchemy_url` (key included) when there is one, else plain
    JSON-RPC at `urls`, and at the public endpoints when there are none.

    `timeout_s` bounds one exchange; a failed read is tried `retries` times more within the deadline around it, first
    after `retry_delay_s` seconds. Raises ConfigError when a URL cannot be used; the URL is not shown.
    """
    guards = guards or Guards(breakers=Breakers(trio.current_time))
    given = (alchemy_url,) if alchemy_url else urls or PUBLIC_ENDPOINTS.get(chain.id, ())
    endpoints = [Endpoint(url) for url in given]
    if not endpoints:
        raise ConfigError(f"{chain.slug}_rpc_url is not set, and no public endpoint of {chain.name} is known")
    providers = []
    for name, url, endpoint in zip(_names(chain, endpoints), given, endpoints, strict=True):
        # Enough of a hash to tell that the URL was changed, too little to find it by.
        guards.breakers.register(name, guards.policy, sha256(url.encode()).hexdigest()[:6])
        provider = Provider(name, limits=_limits(guards, chain, name, url, is_alchemy=bool(alchemy_url)))
        client = RpcClient(transport, endpoint, timeout_s=timeout_s, on_call=on_call, gate=provider.gate)
        providers.append(provider.serve_by(client))
    where = Endpoints(
        chain,
        providers,
        breakers=guards.breakers,
        retries=retries,
        retry_delay_s=retry_delay_s,
        hedge_share=guards.hedge_share,
    )
    plain = SharingReader(chain, where, tokens, cache, chunk=chunk)
    return AlchemyReader(chain, where, tokens, cache, shared=plain) if alchemy_url else plain


@dataclass(frozen=True, kw_only=True)
class Meter:
    """How statistics may use metered endpoints: a look at each once in `every_s`, `units_per_day` of a key for all."""

    every_s: float
    units_per_day: int


def is_metered(url: str) -> bool:
    """Whether requests to this URL (http or ws) are paid for in compute units."""
    return f".{urlsplit(url).hostname or ''}".endswith(".alchemy.com")


def look_units(chain: Chain) -> int:
    """Compute units that a look at a metered endpoint of the chain costs."""
    return alchemy_units(look_methods(chain, is_metered=True))


def build_probes(
    chain: Chain,
    transport: Transport,
    *,
    urls: Sequence[str],
    metered: Sequence[str] = (),
    meter: Meter | None = None,
    timeout_s: float = 10.0,
    on_call: Observer | None = None,
    guards: Guards | None = None,
) -> tuple[EndpointProbe, ...]:
    """Probes of `urls` and, where `meter` allows, of `metered` ones (keys included); each URL once.

    `timeout_s` bounds a whole look. Their breakers are the statistics' own: `stats/` and the reader's name. Raises
    ConfigError when a URL cannot be used; the URL is not shown.
    """
    guards = guards or Guards(breakers=Breakers(trio.current_time))
    given = [*dict.fromkeys(urls), *(dict.fromkeys(metered) if meter and meter.every_s < math.inf else ())]
    endpoints = [Endpoint(url) for url in given]
    probes = []
    for name, url, endpoint in zip(_names(chain, endpoints), given, endpoints, strict=True):
        has_meter = url in metered
        probes.append(
            EndpointProbe(
                chain,
                RpcClient(transport, endpoint, timeout_s=timeout_s, on_call=on_call),
                name=f"stats/{name}",
                label=name.removeprefix(f"{chain.slug}/"),
                breakers=guards.breakers,
                limits=_limits(guards, chain, name, url, is_alchemy=has_meter, meter=meter),
                timeout_s=timeout_s,
                every_s=meter.every_s if meter and has_meter else 0.0,
                is_metered=has_meter,
                subject=sha256(url.encode()).hexdigest()[:6],
            )
        )
    return tuple(probes)


def _limits(
    guards: Guards, chain: Chain, name: str, url: str, *, is_alchemy: bool, meter: Meter | None = None
) -> Limits | None:
    if guards.quota is None:
        return None
    if is_alchemy:
        key = url.rstrip("/").rpartition("/")[2]
        return alchemy_limits(
            guards.quota,
            key,
            units_per_s=guards.alchemy_units_per_s,
            rpm=guards.alchemy_rpm,
            statistics_per_day=meter.units_per_day if meter else None,
        )
    rpm = guards.rpm or (guards.public_rpm if url.rstrip("/") in PUBLIC_ENDPOINTS.get(chain.id, ()) else 0)
    return request_limits(guards.quota, name, rpm) if rpm else None


def _names(chain: Chain, endpoints: Sequence[Endpoint]) -> list[str]:
    """A name for each endpoint's breaker: chain and host, with what it takes to tell two of them apart."""
    names: list[str] = []
    for endpoint in endpoints:
        host, port, tls = endpoint.origin
        plain = f"{chain.slug}/{host}" if port == (443 if tls else 80) else f"{chain.slug}/{host}:{port}"
        again = sum(name == plain or name.startswith(f"{plain}#") for name in names)
        names.append(f"{plain}#{again + 1}" if again else plain)
    return names
