"""What a configuration key is: its type and default stand in a Struct, everything else in the `Key` beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec


class Key(msgspec.Struct, frozen=True):
    """What a key means and how it may be set. Durations end in `_s` (seconds); their old variables are in ms."""

    doc: str
    #: The old variables that set it, best first; {CHAIN} stands for the chain's name in capitals.
    old: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    #: Name of a further check in parse.CHECKS.
    check: str = ""
    #: Takes effect on SIGHUP; the others need a restart.
    live: bool = False
    #: About the embedded part: setting it does not make the part external.
    embedded: bool = False
    #: Shown in the example file when there is no default.
    example: str = ""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the tables of the configuration file."""


class Spec(msgspec.Struct, frozen=True):
    """One leaf of the tree. `kind` is the type without None, `many` says it is a list of that type."""

    path: str
    key: Key
    kind: type
    many: bool
    optional: bool
    default: Any

    @property
    def table(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def variable(self) -> str:
        return "MOONXD_" + self.path.upper().replace(".", "__")


def _unwrap(hint: Any) -> tuple[Any, Key | None]:
    if get_origin(hint) is not Annotated:
        return hint, None
    inner, *rest = get_args(hint)
    return inner, next((item for item in rest if isinstance(item, Key)), None)


def _leaf(path: str, hint: Any, key: Key, default: Any) -> Spec:
    kind, optional, many = hint, False, False
    if get_origin(kind) is UnionType:
        members = [member for member in get_args(kind) if member is not NoneType]
        optional, kind = True, members[0]
    if get_origin(kind) is tuple:
        many, kind = True, get_args(kind)[0]
    return Spec(path, key, kind, many, optional, default)


def _walk(struct: type[Section], example: Section, prefix: str) -> Iterator[Spec | tuple[str, type[Section]]]:
    for name, hint in get_type_hints(struct, include_extras=True).items():
        inner, key = _unwrap(hint)
        value = getattr(example, name)
        if key is not None:
            yield _leaf(prefix + name, inner, key, value)
        else:
            yield prefix + name, inner
            yield from _walk(inner, value, f"{prefix}{name}.")


@cache
def _catalogue(root: type[Section]) -> tuple[dict[str, Spec], dict[str, type[Section]]]:
    specs: dict[str, Spec] = {}
    tables: dict[str, type[Section]] = {}
    for item in _walk(root, root(), ""):
        if isinstance(item, Spec):
            specs[item.path] = item
        else:
            tables[item[0]] = item[1]
    return specs, tables


def specs_of(root: type[Section]) -> Mapping[str, Spec]:
    """Every key by its dotted path, in the order of the file."""
    return _catalogue(root)[0]


def tables_of(root: type[Section]) -> Mapping[str, type[Section]]:
    """Every table by its dotted path, parents first."""
    return _catalogue(root)[1]


def value_at(config: Section, path: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value
