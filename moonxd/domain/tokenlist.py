"""Token lists in the standard JSON format (tokenlists.org): read from anybody, written with what we use. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from .address import parse_address
from .chain import CHAINS
from .errors import Permanent
from .text import NAME_MAX, SYMBOL_MAX, clean_text
from .token import TokenRef

#: Bytes of a list we are willing to read; the largest public ones are about 1 MB.
LIST_MAX = 16 * 1024 * 1024
_BAD_NAMED = 20


class ListedToken(msgspec.Struct, frozen=True):
    """A token that somebody vouches for: us, or the operator who configured the list."""

    chain_id: int
    address: str
    symbol: str
    name: str
    decimals: int
    logo: str | None = None

    @property
    def token(self) -> TokenRef:
        return TokenRef(self.chain_id, self.address)


class ParsedList(msgspec.Struct, frozen=True):
    """A list as read: `skipped` entries are of chains we do not sync (or no EVM at all), `bad` says what is wrong."""

    name: str
    version: str
    tokens: tuple[ListedToken, ...]
    skipped: int
    bad: tuple[str, ...]


def parse_token_list(data: bytes) -> ParsedList:
    """Read a token list in the standard JSON format (tokenlists.org). Entries for chains we do not sync are skipped,
    entries that cannot be used are named, and the rest stands.

    Takes about half a millisecond per entry that has a checksum: not for the event loop. Raises Permanent when the
    document is no token list at all.
    """
    if len(data) > LIST_MAX:
        raise Permanent(f"the token list has {len(data)} bytes, at most {LIST_MAX} are read")
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Permanent(f"the token list is not JSON: {error}") from error
    entries = document.get("tokens") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise Permanent('the token list has no "tokens" array: give a list in the format of tokenlists.org')
    tokens: dict[TokenRef, ListedToken] = {}
    bad: list[str] = []
    skipped = 0
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.get("chainId") not in CHAINS:
            skipped += 1
            continue
        try:
            token = _entry(entry)
            tokens.setdefault(token.token, token)
        except Permanent as error:
            bad.append(f"tokens[{index}]: {error}")
    if len(bad) > _BAD_NAMED:
        bad[_BAD_NAMED:] = [f"and {len(bad) - _BAD_NAMED} more"]
    return ParsedList(
        clean_text(str(document.get("name", "")), 60) or "unnamed",
        _version(document.get("version")),
        tuple(tokens.values()),
        skipped,
        tuple(bad),
    )


def dump_token_list(parsed: ParsedList) -> bytes:
    """`parsed` in the standard format again: only what we use, addresses in lower case, so that it loads fast."""
    rows = [
        {
            "chainId": token.chain_id,
            "address": token.address,
            "symbol": token.symbol,
            "name": token.name,
            "decimals": token.decimals,
            **({"logoURI": token.logo} if token.logo else {}),
        }
        for token in parsed.tokens
    ]
    major, minor, patch = (int(part) for part in parsed.version.split("."))
    version = {"major": major, "minor": minor, "patch": patch}
    document = {"name": parsed.name, "version": version, "tokens": rows}
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def safe_logo(url: Any) -> str | None:
    """A logo's address as others give it, or None when a browser should not be sent there."""
    return (
        url if isinstance(url, str) and url.startswith("https://") and len(url) <= 500 and url.isprintable() else None
    )


def _version(given: Any) -> str:
    parts = [given.get(part) for part in ("major", "minor", "patch")] if isinstance(given, dict) else []
    return ".".join(str(part) if isinstance(part, int) and part >= 0 else "0" for part in parts) or "0.0.0"


def _entry(entry: dict[str, Any]) -> ListedToken:
    address = parse_address(entry.get("address"), what="address")
    decimals, symbol, name = entry.get("decimals"), entry.get("symbol"), entry.get("name")
    if not isinstance(decimals, int) or isinstance(decimals, bool) or not 0 <= decimals <= 255:
        raise Permanent(f"{address}: decimals must be a whole number from 0 to 255, not {decimals!r:.40}")
    shown = clean_text(symbol, SYMBOL_MAX) if isinstance(symbol, str) else None
    if shown is None:
        raise Permanent(f"{address}: symbol must be text, not {symbol!r:.40}")
    named = clean_text(name, NAME_MAX) if isinstance(name, str) else None
    return ListedToken(entry["chainId"], address, shown, named or shown, decimals, safe_logo(entry.get("logoURI")))
