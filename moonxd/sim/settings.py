"""What a simulator is started with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from moonxd.domain.address import parse_address
from moonxd.domain.chain import CHAINS, Chain
from moonxd.domain.errors import ConfigError, Permanent

_ALL_CHAINS: tuple[Chain, ...] = tuple(CHAINS.values())
_MAX_LIST_BYTES = 32 << 20


class ListedToken(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A line of a token list, in the field names of the common token list format; other fields are ignored."""

    chain_id: int
    address: str
    symbol: str
    decimals: int
    name: str = ""


class SimSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`knobs` is a patch in the form of PATCH /sim/knobs, applied before the first request and again at every reset."""

    seed: str = "1"
    host: str = "127.0.0.1"
    #: 0 lets the kernel choose.
    port: int = 0
    chains: tuple[Chain, ...] = _ALL_CHAINS
    #: What a reader with a token list may see; empty means the built-in majors.
    tokens: tuple[ListedToken, ...] = ()
    knobs: Mapping[str, Mapping[str, Any]] = msgspec.field(default_factory=dict)
    #: Seconds between price movements; 0 freezes prices.
    price_bucket_s: float = 300.0
    #: Written into the environment as ALCHEMY_API_KEY, so that a daemon reads by Alchemy; None: plain JSON-RPC.
    alchemy_key: str | None = None


class _Line(NamedTuple):
    address: str
    symbol: str
    name: str
    decimals: int


def read_token_list(path: Path) -> tuple[ListedToken, ...]:
    """The EVM tokens of a JSON token list. Raises ConfigError.

    Three forms are understood: the common one with `tokens`, its bare array, and {chain id: [[address, symbol, name,
    decimals], ...]}.
    """
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise ConfigError(f"token list {path} is over {_MAX_LIST_BYTES >> 20} MiB: give a smaller one")
        entries = _entries(msgspec.json.decode(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"token list {path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"token list {path} is not a JSON token list: {error}") from error
    return tuple(token for entry in entries if (token := _listed(entry)) is not None)


def _entries(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    if isinstance(content, dict) and "tokens" in content:
        return msgspec.convert(content["tokens"], list[Any])
    chains = msgspec.convert(content, dict[str, list[_Line]])
    return [
        {"chainId": int(chain_id), **line._asdict()}
        for chain_id, lines in chains.items()
        if chain_id.isdecimal()
        for line in lines
    ]


def _listed(entry: Any) -> ListedToken | None:
    # Public lists hold entries of other worlds (base58 addresses, missing scales): they are not for us.
    try:
        token = msgspec.convert(entry, ListedToken)
        return msgspec.structs.replace(token, address=parse_address(token.address.lower()))
    except (msgspec.ValidationError, Permanent):
        return None
