"""`moonxd tokens update`: fetch a token list, check it, keep what can be used."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from ..api.client import ClientError
from ..domain.chain import CHAINS
from ..domain.errors import ConfigError, Permanent
from ..domain.tokenlist import LIST_MAX, ParsedList, dump_token_list, parse_token_list
from .output import Json, note, print_json, say

app = typer.Typer(help="The list of tokens to look for.", no_args_is_help=True, add_completion=False)

#: Seconds for the whole download to start, and between two pieces of it.
_PATIENCE_S = 30.0


@app.callback()
def tokens() -> None:
    """The list of tokens to look for on chains whose source cannot discover them."""


@app.command()
def update(
    url: Annotated[str | None, typer.Option(help="The list's address; else [tokens] update_url.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to keep it; else tokens.json in the state directory.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration file.")] = None,
    json: Json = False,
) -> None:
    """Fetch the configured standard token list, check every entry and write what can be used."""
    from ..config import load_config

    settings = load_config(config, os.environ).config
    source = url or settings.tokens.update_url
    if not source:
        raise ConfigError("no token list is configured: set update_url under [tokens], or give --url")
    file = (out or settings.state_dir / "tokens.json").absolute()
    parsed = _parse(source, _fetch(source))
    _write(file, dump_token_list(parsed))
    is_read = file in settings.tokens.list_files
    _report(parsed, file, is_read=is_read, as_json=json)


def _fetch(url: str) -> bytes:
    import httpx

    body = bytearray()
    try:
        with httpx.stream("GET", url, timeout=_PATIENCE_S, follow_redirects=True) as response:
            response.raise_for_status()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > LIST_MAX:
                    break
    except httpx.HTTPStatusError as error:
        raise ClientError(f"{_host(url)} answered {error.response.status_code}", "check the list's address") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = type(error).__name__
        raise ClientError(
            f"the token list could not be fetched from {_host(url)}: {why}", "check it, try again"
        ) from error
    return bytes(body)


def _host(url: str) -> str:
    """For messages: an address may carry a key."""
    from urllib.parse import urlsplit

    return urlsplit(url).hostname or "that address"


def _parse(url: str, body: bytes) -> ParsedList:
    try:
        parsed = parse_token_list(body)
    except Permanent as error:
        raise ClientError(f"what {_host(url)} sent cannot be used: {error}", "nothing was changed") from error
    if not parsed.tokens:
        raise ClientError(f"the list of {_host(url)} has no token on a chain that we sync", "nothing was changed")
    return parsed


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all: a daemon may read it at any moment."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "wb") as writing:
                writing.write(content)
                writing.flush()
                os.fsync(handle)
            os.chmod(draft, 0o644)
            os.replace(draft, file)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise ClientError(f"{file} cannot be written: {error.strerror}", "name another file with --out") from error


def _report(parsed: ParsedList, file: Path, *, is_read: bool, as_json: bool) -> None:
    counts = Counter(CHAINS[token.chain_id].slug for token in parsed.tokens)
    if as_json:
        print_json(
            {
                "list": parsed.name,
                "version": parsed.version,
                "file": str(file),
                "tokens": len(parsed.tokens),
                "chains": counts,
                "skipped": parsed.skipped,
                "bad": parsed.bad,
                "isRead": is_read,
            }
        )
        return
    say(f"{parsed.name} {parsed.version}: {len(parsed.tokens)} tokens written to {file}")
    say(", ".join(f"{chain} {count}" for chain, count in counts.most_common()))
    if parsed.skipped:
        say(f"{parsed.skipped} entries of other chains left out")
    for bad in parsed.bad:
        note(f"left out: {bad}")
    if not is_read:
        note(f"the daemon does not read this file yet: add it to list_files under [tokens] ({file})")
