"""The other direction: the example file, effective values for people and programs, and an old .env as TOML."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .core import Listen
from .keys import Key, Spec, specs_of, tables_of, value_at
from .legacy import EFFECTLESS, is_link, old_names, old_variables
from .load import Loaded, finish, read_old, read_own
from .rules import PARTS, Draft
from .secret import Secret
from .tree import Config

_WIDTH = 112
_HEAD = """\
Every key that moonxd knows, with its default. Remove the '#' before a key to set it.

Which value wins: this file < the old variables < MOONXD_<SECTION>__<KEY> < flags.
For example MOONXD_REDIS__URL sets url in [redis], MOONXD_CHAINS__BASE__RPC_URLS sets rpc_urls in [chains.base];
lists are written with commas. A variable that is empty counts as not set.
Durations end in _s and are seconds; the old variables for them are milliseconds.
Keys marked 'reload' take effect on SIGHUP, the others need a restart.
"""


def plain(value: Any, *, reveal: bool = False) -> Any:
    """A value as JSON and TOML know them; secrets masked unless `reveal`."""
    if isinstance(value, Secret):
        return value.reveal() if reveal else str(value)
    if isinstance(value, (Path, Listen)):
        return str(value)
    if isinstance(value, tuple):
        return [plain(item, reveal=reveal) for item in value]
    return value


def toml_value(spec: Spec, value: Any) -> str:
    """`value` as it is written behind the equals sign, secrets included."""
    if spec.key.check == "mode":
        return f"0o{value:o}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_scalar(item) for item in value) + "]"
    return _toml_scalar(value)


def _toml_scalar(value: Any) -> str:
    import tomli_w

    return tomli_w.dumps({"v": plain(value, reveal=True)}).removeprefix("v = ").rstrip("\n")


# ---- the example file ----------------------------------------------------------------------------------------------


def example() -> str:
    """config.example.toml: it sets nothing as it is, and every key when uncommented."""
    lines = [*_comment(_HEAD)]
    specs = specs_of(Config)
    for table, struct in tables_of(Config).items():
        lines += ["", *_comment(struct.__doc__ or ""), f"[{table}]"]
        for spec in specs.values():
            if spec.table == table:
                lines += [*_comment(_about(spec)), f"#{spec.name} = {_example_value(spec)}"]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> Iterator[str]:
    for line in text.strip().split("\n"):
        yield from (f"# {part}" for part in textwrap.wrap(line, _WIDTH)) if line else ("#",)


def _about(spec: Spec) -> str:
    key: Key = spec.key
    facts = [_unit(spec)] if _unit(spec) else []
    if key.choices:
        facts.append("one of " + ", ".join(key.choices) if not spec.many else "of " + ", ".join(key.choices))
    if spec.default in (None, ()):
        facts.append("not set by default")
    if old_names(spec):
        facts.append("old: " + ", ".join(old_names(spec)))
    if key.live:
        facts.append("reload")
    return f"{key.doc.rstrip('.')}." + (f" ({'; '.join(facts)})" if facts else "")


def _unit(spec: Spec) -> str:
    return "seconds" if spec.name.endswith("_s") else ""


def _example_value(spec: Spec) -> str:
    if spec.default not in (None, ()):
        return toml_value(spec, spec.default)
    if spec.many:
        return spec.key.example or "[]"
    return spec.key.example if spec.kind in (int, float, bool) and spec.key.example else f'"{spec.key.example}"'


# ---- effective values ----------------------------------------------------------------------------------------------


def effective(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """Every key with its value (secrets masked) and where it is from."""
    return {
        key: {"value": plain(value_at(loaded.config, key)), "origin": loaded.origins[key]} for key in specs_of(Config)
    }


# ---- an old .env ---------------------------------------------------------------------------------------------------


class Imported(msgspec.Struct, frozen=True):
    """`toml` sets what the variables set; `remarks` are for people; `has_secrets` when it contains any."""

    toml: str
    remarks: list[str]
    has_secrets: bool


def import_env(variables: Mapping[str, str], *, secrets: bool = True) -> Imported:
    """The same settings as a configuration file. Raises InvalidConfig when a value cannot be used."""
    draft = Draft()
    read_old(draft, variables)
    read_own(draft, variables)
    given = dict(draft.values)
    loaded = finish(draft, variables, None)
    for part in PARTS:
        # Variables without effect make a part external too; the file has no other way to say so.
        if part in draft.touched and f"{part}.mode" not in given:
            given[f"{part}.mode"] = value_at(loaded.config, f"{part}.mode")
    kept = {key: value for key, value in given.items() if value is not None and (secrets or not _is_secret(value))}
    left_out = [f"{key} is left out: set {specs_of(Config)[key].variable}" for key in given if key not in kept]
    remarks = [*loaded.notes, *_unknown(variables), *left_out]
    return Imported(_toml(kept), remarks, any(_is_secret(value) for value in kept.values()))


def _is_secret(value: Any) -> bool:
    items = value if isinstance(value, tuple) else (value,)
    return any(isinstance(item, Secret) and item.parts() for item in items)


def _unknown(variables: Mapping[str, str]) -> Iterator[str]:
    known = old_variables()
    for name, text in variables.items():
        if name in EFFECTLESS or name.startswith("MOONXD_") or is_link(name, text):
            continue
        if name not in known:
            yield f"{name} has no effect: moonxd does not know it"
        elif not text.strip():
            yield f"{name} has no effect: it is empty"


def _toml(values: Mapping[str, Any]) -> str:
    specs = specs_of(Config)
    lines: list[str] = []
    for table in tables_of(Config):
        inside = [spec for key, spec in specs.items() if spec.table == table and key in values]
        if inside:
            lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
            lines += [f"{spec.name} = {toml_value(spec, values[spec.path])}" for spec in inside]
    return "\n".join(lines) + "\n" if lines else ""
