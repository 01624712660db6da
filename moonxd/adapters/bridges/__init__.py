"""Who is asked for quotes. A new provider is a file here and a line in PROVIDERS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...domain.breakers import Breakers
from ...domain.bridge import parse_route
from ...ports import BridgeProbe
from ..rpc import Transport
from .across import Across
from .lifi import LiFi
from .oneinch import OneInch
from .relay import Relay

__all__ = ["PROVIDERS", "Across", "LiFi", "OneInch", "ProviderOptions", "Relay", "build_probes"]


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """What a provider is opened with: `timeout_s` bounds one request; routes as in `domain.bridge.parse_route`."""

    base_url: str
    routes: Sequence[str]
    timeout_s: float = 10.0
    api_key: str | None = field(default=None, repr=False)


def _lifi(transport: Transport, breakers: Breakers, options: ProviderOptions) -> BridgeProbe | None:
    return LiFi(
        transport,
        breakers,
        [parse_route(route) for route in options.routes],
        base_url=options.base_url,
        api_key=options.api_key,
        timeout_s=options.timeout_s,
    )


def _relay(transport: Transport, breakers: Breakers, options: ProviderOptions) -> BridgeProbe | None:
    routes = [parse_route(route) for route in options.routes]
    return Relay(transport, breakers, routes, base_url=options.base_url, timeout_s=options.timeout_s)


def _oneinch(transport: Transport, breakers: Breakers, options: ProviderOptions) -> BridgeProbe | None:
    if options.api_key is None:
        return None
    return OneInch(
        transport,
        breakers,
        [parse_route(route) for route in options.routes],
        base_url=options.base_url,
        api_key=options.api_key,
        timeout_s=options.timeout_s,
    )


def _across(transport: Transport, breakers: Breakers, options: ProviderOptions) -> BridgeProbe | None:
    routes = [parse_route(route) for route in options.routes]
    return Across(transport, breakers, routes, base_url=options.base_url, timeout_s=options.timeout_s)


#: Names as the configuration uses them. None: it cannot be asked as configured (1inch without a key).
PROVIDERS: dict[str, Callable[[Transport, Breakers, ProviderOptions], BridgeProbe | None]] = {
    "lifi": _lifi,
    "relay": _relay,
    "oneinch": _oneinch,
    "across": _across,
}


def build_probes(
    transport: Transport, breakers: Breakers, options: Mapping[str, ProviderOptions]
) -> tuple[BridgeProbe, ...]:
    """The providers named in `options`, those that cannot be asked left out.

    Raises Permanent for a route that cannot be read, ConfigError for a URL that cannot.
    """
    built = (PROVIDERS[name](transport, breakers, option) for name, option in options.items())
    return tuple(probe for probe in built if probe is not None)
