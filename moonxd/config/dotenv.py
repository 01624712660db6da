"""Reads .env files as the Node package dotenv does, since that is what wrote and read them so far."""

from __future__ import annotations

import re

import msgspec

_LINE = re.compile(
    r"""
    ^\s*(?:export\s+)?(?P<name>[\w.-]+)          # NAME or export NAME
    (?:\s*=\s*?|:\s+?)                           # = or YAML's colon
    (?P<value>
        \s*'(?:\\'|[^'])*' | \s*"(?:\\"|[^"])*" | \s*`(?:\\`|[^`])*`   # quoted, may span lines
      | [^\#\r\n]*                               # bare, up to a comment
    )
    [^\S\r\n]*(?P<rest>\#[^\r\n]*)?[^\S\r\n]*$
    """,
    re.VERBOSE | re.MULTILINE,
)


class Env(msgspec.Struct, frozen=True):
    """What the file sets, and sentences about lines that may not mean what their writer thinks."""

    variables: dict[str, str]
    doubts: list[str]


def parse_env(text: str) -> Env:
    """The variables of a .env file: quotes, comments, `export`, CRLF and a byte order mark are understood.

    Of several lines for one name the last counts. \\n and \\r are expanded in double quotes only.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    variables: dict[str, str] = {}
    doubts: list[str] = []
    end = 0
    for match in _LINE.finditer(text):
        doubts += _skipped(text, end, match.start())
        end = match.end()
        name, bare = match["name"], match["value"].strip()
        if match["rest"] and bare and bare[0] not in "'\"`" and not match["value"][-1].isspace():
            doubts.append(f"{name}: the value ends before '#', which starts a comment; quote it if # belongs to it")
        if name in variables:
            doubts.append(f"{name} is set more than once: the last one counts")
        variables[name] = _unquote(bare)
    doubts += _skipped(text, end, len(text))
    return Env(variables, doubts)


def _unquote(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"`":
        inner = text[1:-1]
        return inner.replace("\\n", "\n").replace("\\r", "\r") if text[0] == '"' else inner
    return text


def _skipped(text: str, start: int, end: int) -> list[str]:
    first = text.count("\n", 0, start) + 1
    lines = enumerate(text[start:end].split("\n"), first)
    return [f"line {number} sets nothing" for number, line in lines if line.strip() and line.strip()[0] != "#"]
