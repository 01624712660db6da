"""Reads the layers and puts them on each other: defaults < file < old variables < MOONXD_* < flags.

Nothing is refused before everything was looked at: one error lists every problem.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..domain.errors import ConfigError
from .keys import Section, Spec, specs_of, tables_of
from .legacy import EFFECTLESS, from_old, is_link, old_variables
from .parse import Bad, did_you_mean, parse, shown
from .rules import Draft, resolve, without_effect
from .tree import Config, secrets_in

SYSTEM_FILE = Path("/etc/moonxd/config.toml")
SHORT_FORMS = {"MOONXD_STATE_DIR": "daemon.state_dir", "MOONXD_SOCKET": "daemon.socket"}
#: Read elsewhere, or by the test run that starts a daemon.
_OTHERS = frozenset({"MOONXD_CONFIG", "MOONXD_REQUIRE", "MOONXD_TEST_NOTES"})
#: What Kubernetes puts into pods beside a service that is called moonxd.
_KUBERNETES = re.compile(r"MOONXD(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)")


class InvalidConfig(ConfigError):
    """`problems` has one sentence per value that cannot be used."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        count = "the configuration cannot be used" if len(problems) == 1 else f"{len(problems)} configuration errors"
        super().__init__(f"{count}: {problems[0]}" if len(problems) == 1 else "\n  - ".join([count + ":", *problems]))


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """`origins` says for every key where its value is from; `notes` what an operator should know."""

    config: Config
    origins: dict[str, str]
    notes: list[str]
    #: The configuration file that was read, if any.
    path: Path | None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every string that must not appear in a log."""
        return secrets_in(self.config)


def load_config(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Loaded:
    """The configuration in effect. `overrides` are flags by dotted key; None there means the flag was not given.

    Without `path` the file is MOONXD_CONFIG, else the first of $XDG_CONFIG_HOME/moonxd/config.toml and
    /etc/moonxd/config.toml that exists, else none. Raises InvalidConfig (a ConfigError) with every problem.
    """
    file = find_file(path, environ)
    draft = Draft()
    if file is not None:
        read_file(draft, file)
    read_old(draft, environ)
    read_own(draft, environ)
    for key, value in (overrides or {}).items():
        if value is not None:
            put(draft, key, value, "flag", f"flag {key}", text=isinstance(value, str))
    return finish(draft, environ, file)


def finish(draft: Draft, environ: Mapping[str, str], file: Path | None) -> Loaded:
    """Apply the rules between keys and build the tree."""
    resolve(draft, environ)
    if draft.problems:
        raise InvalidConfig(draft.problems)
    specs = specs_of(Config)
    draft.notes.extend(without_effect(draft))
    origins = {key: draft.origins.get(key, "default") for key in specs}
    return Loaded(config=build(draft.values), origins=origins, notes=draft.notes, path=file)


def build(values: Mapping[str, Any]) -> Config:
    """The tree with these values by dotted key, defaults elsewhere."""
    config = _build(Config(), "", values)
    assert isinstance(config, Config)
    return config


def _build(section: Section, prefix: str, values: Mapping[str, Any]) -> Section:
    changes: dict[str, Any] = {}
    for name in section.__struct_fields__:
        current = getattr(section, name)
        if isinstance(current, Section):
            changes[name] = _build(current, f"{prefix}{name}.", values)
        elif prefix + name in values:
            changes[name] = values[prefix + name]
    return msgspec.structs.replace(section, **changes)


# ---- layers --------------------------------------------------------------------------------------------------------


def put(draft: Draft, key: str, raw: Any, origin: str, where: str, *, text: bool, base: Path | None = None) -> None:
    """Set one key, or note why not. `where` names the source for a message, `origin` for `config show`."""
    spec = specs_of(Config).get(key)
    if spec is None:
        draft.problems.append(f"{where}: there is no such key{suggest(key)}")
        return
    try:
        draft.values[key] = parse(spec, raw, text=text, base=base or Path.cwd())
    except Bad as bad:
        draft.problems.append(f"{where} = {shown(spec, raw)}: {bad}")
    draft.origins[key] = origin


def find_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The configuration file to read. One that was named must exist."""
    named = path or (Path(environ["MOONXD_CONFIG"]) if environ.get("MOONXD_CONFIG") else None)
    if named is not None:
        return named.expanduser().absolute()
    home = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else "")
    candidates = [Path(home) / "moonxd" / "config.toml"] if home.startswith("/") else []
    return next((file for file in [*candidates, SYSTEM_FILE] if os.path.exists(file)), None)


def read_file(draft: Draft, file: Path) -> None:
    """Put every key of a TOML file. Raises InvalidConfig when the file as a whole cannot be read."""
    import tomllib

    try:
        tree = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise InvalidConfig([f"{file} does not exist: name another file, or none to run on the defaults"]) from None
    except OSError as error:
        raise InvalidConfig([f"{file} cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise InvalidConfig([f"{file} is not UTF-8 text (byte {error.start}): save it as UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig([f"{file} is not valid TOML: {error}"]) from None
    for key, raw in _leaves(draft, tree, "", file):
        put(draft, key, raw, str(file), f"{file}: {key}", text=False, base=file.parent)
    _warn_of_readers(draft, file)


def _leaves(draft: Draft, table: Mapping[str, Any], prefix: str, file: Path) -> Iterator[tuple[str, Any]]:
    specs, tables = specs_of(Config), tables_of(Config)
    for name, value in table.items():
        key = prefix + name
        if key in tables and isinstance(value, dict):
            yield from _leaves(draft, value, key + ".", file)
        elif key in tables:
            draft.problems.append(f"{file}: {key} is a table: write [{key}] and its keys below")
        elif key in specs:
            yield key, value
        else:
            what = f"table [{key}]" if isinstance(value, dict) else f"key {key}"
            draft.problems.append(f"{file}: there is no {what}{suggest(key)}")


def _warn_of_readers(draft: Draft, file: Path) -> None:
    from .secret import Secret

    held = any(isinstance(value, Secret) and value.parts() for value in draft.values.values())
    if held and file.stat().st_mode & 0o044:
        draft.notes.append(f"{file} holds secrets and others may read it: chmod 600")


def read_old(draft: Draft, environ: Mapping[str, str]) -> None:
    """Put the variables of the earlier workers. An empty one counts as not set, as in their own parser."""
    for name, effectless in EFFECTLESS.items():
        if environ.get(name, "").strip():
            draft.notes.append(f"{name} has no effect: {effectless.why}")
            if effectless.part:
                draft.touch(effectless.part, name)
    # Reversed, so that the better of two names for one key is put last and wins.
    for name, spec in reversed(list(old_variables().items())):
        text = environ.get(name, "").strip()
        if text and is_link(name, text):
            draft.notes.append(f"{name} was put there by Kubernetes for another service and is ignored")
        elif text:
            _put_old(draft, name, spec, text)


def _put_old(draft: Draft, name: str, spec: Spec, text: str) -> None:
    draft.touch(spec.path.partition(".")[0], name)
    try:
        raw = from_old(name, spec, text)
    except Bad as bad:
        draft.problems.append(f"{name} = {shown(spec, text)}: {bad}")
        return
    where = f"{name} (milliseconds; {spec.path})" if spec.name.endswith("_s") else name
    put(draft, spec.path, raw, name, where, text=True)


def read_own(draft: Draft, environ: Mapping[str, str]) -> None:
    """Put MOONXD_<SECTION>__<KEY>. An empty one counts as not set, an unknown one is an error."""
    known = {spec.variable: key for key, spec in specs_of(Config).items()} | SHORT_FORMS
    # The short forms last: the command line's --state-dir and --socket arrive in them, and flags win.
    for name in sorted(environ, key=lambda name: (name in SHORT_FORMS, name)):
        if not name.startswith("MOONXD_") or name in _OTHERS or not environ[name].strip():
            continue
        if name in known:
            put(draft, known[name], environ[name].strip(), name, name, text=True)
        elif not _KUBERNETES.fullmatch(name):
            draft.problems.append(f"{name}: there is no such variable{_near_variable(name, list(known))}")


def _near_variable(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1, cutoff=0.8)
    return f" (did you mean {near[0]}?)" if near else ""


def suggest(key: str) -> str:
    """Where the writer may have wanted it: another table, another spelling, the new name of an old variable."""
    specs = specs_of(Config)
    name = key.rpartition(".")[2]
    renamed = old_variables().get(name.upper())
    if renamed is not None:
        return f" (did you mean {renamed.path}?)"
    elsewhere = [path for path, spec in specs.items() if spec.name == name]
    if len(elsewhere) == 1:
        return f" (did you mean {elsewhere[0]}?)"
    known = [*specs, *tables_of(Config)]
    parent = key.rpartition(".")[0]
    if parent in tables_of(Config):
        siblings = [path.rpartition(".")[2] for path in known if path.rpartition(".")[0] == parent]
        return did_you_mean(name, siblings)
    return did_you_mean(key, known)
