"""Where balances and prices come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ..domain.chain import CHAINS
from .keys import Key, Section
from .secret import Secret, SecretUrl


class ChainEndpoints(Section, frozen=True, kw_only=True):
    """How one chain is reached. The default endpoints are public and need no key."""

    rpc_urls: Annotated[
        tuple[SecretUrl, ...],
        Key("JSON-RPC endpoints in order of preference", ("{CHAIN}_RPC_URL",), check="http-url", live=True),
    ] = ()
    ws_url: Annotated[
        SecretUrl | None,
        Key(
            "WebSocket endpoint for new heads",
            ("{CHAIN}_WS_URL",),
            check="ws-url",
            example="wss://node.example",
        ),
    ] = None
    source: Annotated[
        str, Key("auto: alchemy if there is a key, else rpc", choices=("auto", "alchemy", "rpc"), live=True)
    ] = "auto"
    rate_limit_rpm: Annotated[
        int | None,
        Key(
            "Requests a minute to each of rpc_urls. Unset: [providers] public_rpm for public ones",
            low=1,
            live=True,
            example="600",
        ),
    ] = None
    alchemy_key: Annotated[
        Secret | None, Key("This chain's key instead of [alchemy] api_key", ("ALCHEMY_API_KEY_{CHAIN}",), live=True)
    ] = None


def _public(*urls: str) -> ChainEndpoints:
    return ChainEndpoints(rpc_urls=tuple(SecretUrl(f"https://{url}") for url in urls))


class Chains(Section, frozen=True, kw_only=True):
    """Which chains are synced, and how they are asked."""

    enabled: Annotated[tuple[str, ...], Key("Slugs or chain ids", ("ENABLED_CHAINS",), check="chain", live=True)] = (
        tuple(chain.slug for chain in CHAINS.values())
    )
    timeout_s: Annotated[float, Key("Deadline of one JSON-RPC request", low=0.001, live=True)] = 10.0
    read_timeout_s: Annotated[
        float, Key("How long one chain, retries included, may hold up a wallet", low=0.001, live=True)
    ] = 30.0
    batch_size: Annotated[
        int, Key("Tokens per multicall; halved when a node runs out of gas", low=1, high=2000, live=True)
    ] = 250
    ethereum: ChainEndpoints = _public("ethereum-rpc.publicnode.com", "eth.drpc.org")
    polygon: ChainEndpoints = _public("polygon-bor-rpc.publicnode.com", "polygon.drpc.org")
    optimism: ChainEndpoints = _public("optimism-rpc.publicnode.com", "mainnet.optimism.io")
    arbitrum: ChainEndpoints = _public("arbitrum-one-rpc.publicnode.com", "arb1.arbitrum.io/rpc")
    base: ChainEndpoints = _public("base-rpc.publicnode.com", "mainnet.base.org")
    bsc: ChainEndpoints = _public("bsc-rpc.publicnode.com", "bsc-dataseed.bnbchain.org")

    def endpoints(self, slug: str) -> ChainEndpoints:
        """The endpoints of the chain with this slug (one of domain.chain.CHAINS)."""
        found = getattr(self, slug)
        assert isinstance(found, ChainEndpoints)
        return found


class Alchemy(Section, frozen=True, kw_only=True):
    """Alchemy's token API, used for chains that have a key."""

    api_key: Annotated[Secret | None, Key("Key for every chain without its own", ("ALCHEMY_API_KEY",), live=True)] = (
        None
    )
    base_url: Annotated[
        str,
        Key(
            "Endpoint without the key; {network} is replaced by the chain's name at Alchemy",
            ("ALCHEMY_BASE_URL",),
            check="plain-url",
            live=True,
        ),
    ] = "https://{network}.g.alchemy.com/v2"
    timeout_s: Annotated[float, Key("Deadline of one request", ("ALCHEMY_TIMEOUT",), low=0.001, live=True)] = 10.0
    retries: Annotated[int, Key("Further tries of one request", ("ALCHEMY_RETRIES",), low=0, high=20, live=True)] = 3
    retry_delay_s: Annotated[float, Key("First pause between tries", ("ALCHEMY_RETRY_DELAY",), low=0, live=True)] = 1.0
    rate_limit_rpm: Annotated[
        int, Key("Requests a minute to Alchemy, all chains together", ("ALCHEMY_RATE_LIMIT_RPM",), low=1, live=True)
    ] = 300

    prices_url: Annotated[
        str,
        Key("Endpoint of the prices API without the key", ("ALCHEMY_PRICES_URL",), check="plain-url", live=True),
    ] = "https://api.g.alchemy.com/prices/v1"
    compute_units_per_s: Annotated[
        int,
        Key("Compute units a second of one key, counted over 10 s and shared by all workers", low=1, live=True),
    ] = 300
    plan_units_per_month: Annotated[int, Key("Compute units a month of the plan", low=0)] = 30_000_000

    def url(self, network: str, key: Secret) -> SecretUrl:
        """The endpoint of one chain; `network` is Chain.alchemy."""
        base = self.base_url if "{network}" in self.base_url else f"{self.base_url.rstrip('/')}/{{network}}/v2"
        return SecretUrl(f"{base.replace('{network}', network).rstrip('/')}/{key.reveal()}")


class Providers(Section, frozen=True, kw_only=True):
    """When an endpoint is left alone, how it comes back, and when a second one is asked."""

    window_s: Annotated[float, Key("Failures are counted over this time", low=1, live=True)] = 60.0
    min_volume: Annotated[int, Key("Reads in the window from which their failure rate counts", low=1, live=True)] = 8
    failure_rate: Annotated[float, Key("Share of failures that opens the breaker", low=0.01, high=1, live=True)] = 0.5
    streak: Annotated[int, Key("Failures in a row that open it; 0: none do", low=0, live=True)] = 5
    open_s: Annotated[float, Key("First open time; it doubles each time", low=0.1, live=True)] = 30.0
    open_max_s: Annotated[float, Key("Longest open time", low=0.1, live=True)] = 600.0
    probes: Annotated[int, Key("Requests at a time that find out whether it is well again", low=1, live=True)] = 1
    hedge_share: Annotated[
        float, Key("Second requests to another endpoint, as a share of all; 0: none", low=0, high=1, live=True)
    ] = 0.1
    public_rpm: Annotated[
        int, Key("Requests a minute to each built-in public endpoint; 0: no limit", low=0, live=True)
    ] = 300


class DefiLlama(Section, frozen=True, kw_only=True):
    """DefiLlama's coins API."""

    base_url: Annotated[str, Key("Endpoint", ("DEFILLAMA_COINS_URL",), check="plain-url", live=True)] = (
        "https://coins.llama.fi"
    )
    timeout_s: Annotated[float, Key("Deadline of one request", low=0.001, live=True)] = 10.0


class CoinGecko(Section, frozen=True, kw_only=True):
    """CoinGecko's simple price API."""

    base_url: Annotated[str, Key("Endpoint", ("COINGECKO_BASE_URL",), check="plain-url", live=True)] = (
        "https://api.coingecko.com/api/v3"
    )
    api_key: Annotated[Secret | None, Key("Demo or pro key", ("COINGECKO_API_KEY",), live=True)] = None
    api_secret: Annotated[Secret | None, Key("Not used by the price API", ("COINGECKO_API_SECRET",), live=True)] = None
    timeout_s: Annotated[float, Key("Deadline of one request", ("COINGECKO_TIMEOUT",), low=0.001, live=True)] = 10.0


class DexScreener(Section, frozen=True, kw_only=True):
    """DexScreener's pairs."""

    base_url: Annotated[
        str,
        Key("Endpoint; a trailing /latest is accepted", ("DEXSCREENER_BASE_URL",), check="dexscreener-url", live=True),
    ] = "https://api.dexscreener.com"
    api_key: Annotated[Secret | None, Key("Not used by the price API", ("DEXSCREENER_API_KEY",), live=True)] = None
    api_secret: Annotated[Secret | None, Key("Not used by the price API", ("DEXSCREENER_API_SECRET",), live=True)] = (
        None
    )
    timeout_s: Annotated[float, Key("Deadline of one request", ("DEXSCREENER_TIMEOUT",), low=0.001, live=True)] = 5.0


class Binance(Section, frozen=True, kw_only=True):
    """Binance's spot prices of native coins and majors."""

    base_url: Annotated[str, Key("Endpoint", ("BINANCE_BASE_URL",), check="plain-url", live=True)] = (
        "https://api.binance.com"
    )
    api_key: Annotated[Secret | None, Key("Not used by the price API", ("BINANCE_API_KEY",), live=True)] = None
    api_secret: Annotated[Secret | None, Key("Not used by the price API", ("BINANCE_API_SECRET",), live=True)] = None
    timeout_s: Annotated[float, Key("Deadline of one request", ("BINANCE_TIMEOUT",), low=0.001, live=True)] = 5.0


class Prices(Section, frozen=True, kw_only=True):
    """USD prices. A token that no source knows has no price; nothing is guessed."""

    sources: Annotated[
        tuple[str, ...],
        Key(
            "Sources in order; alchemy is left out without [alchemy] api_key",
            choices=("defillama", "alchemy", "coingecko", "dexscreener", "binance"),
            live=True,
        ),
    ] = ("defillama", "alchemy", "coingecko", "dexscreener", "binance")
    ttl_s: Annotated[float, Key("How long a price is taken from the cache", low=0, live=True)] = 180.0
    min_confidence: Annotated[
        float,
        Key("With one source only: prices that it trusts less than this are unknown", low=0, high=1, live=True),
    ] = 0.5
    trusted_confidence: Annotated[
        float, Key("From this confidence a price needs no second source", low=0, high=1, live=True)
    ] = 0.9
    agreement: Annotated[
        float, Key("How far two sources may be apart to confirm each other, as a share", low=0, high=1, live=True)
    ] = 0.1
    max_jump: Annotated[
        float,
        Key("Larger changes within 15 min need a second source, else the last price stays", low=0, high=1, live=True),
    ] = 0.5
    defillama: DefiLlama = DefiLlama()
    coingecko: CoinGecko = CoinGecko()
    dexscreener: DexScreener = DexScreener()
    binance: Binance = Binance()


class Tokens(Section, frozen=True, kw_only=True):
    """Which tokens are looked for where the source cannot discover them."""

    list_files: Annotated[
        tuple[Path, ...],
        Key(
            "Standard token lists (JSON) beside the shipped one",
            check="file",
            live=True,
            example='["/etc/moonxd/tokens.json"]',
        ),
    ] = ()
    update_url: Annotated[
        str | None,
        Key(
            "Token list that `moonxd tokens update` fetches",
            check="plain-url",
            example="https://tokens.example/list.json",
        ),
    ] = None
