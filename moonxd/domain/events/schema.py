"""JSON Schemas of the events, and the page that lists them, made of the structs. `moonxd events schema` prints them."""

from __future__ import annotations

from typing import Any

import msgspec

from . import EVENT_TYPES, EventType
from .envelope import Envelope

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"


def schema_of(kind: EventType) -> dict[str, Any]:
    """The schema of the whole message, envelope included."""
    whole_type: Any = Envelope
    _, found = msgspec.json.schema_components([whole_type[kind.struct]], ref_template=_REF)
    parts = {name: _plain(part) for name, part in sorted(found.items())}
    (whole,) = [name for name in parts if name.startswith("Envelope")]
    envelope = parts.pop(whole)
    envelope["properties"]["type"] = {"const": kind.name}
    return {
        "$schema": DIALECT,
        "title": kind.name,
        "description": f"Sent: {kind.doc}. Topic {kind.topic}.",
        **{name: value for name, value in envelope.items() if name not in ("title", "description")},
        "$defs": parts,
    }


def schemas() -> dict[str, dict[str, Any]]:
    return {name: schema_of(kind) for name, kind in EVENT_TYPES.items()}


def text_of(schema: dict[str, Any]) -> str:
    """As it lies in docs/events/."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _plain(part: Any) -> Any:
    """Amounts in USD are JSON numbers here, which msgspec's schema of a Decimal does not know."""
    if isinstance(part, list):
        return [_plain(one) for one in part]
    if not isinstance(part, dict):
        return part
    if part.get("format") == "decimal":
        return {**{k: v for k, v in part.items() if k != "format"}, "type": "number"}
    return {name: _plain(value) for name, value in part.items()}


def page() -> str:
    """docs/events/README.md."""
    lines = [
        "# Events",
        "",
        "Made by `make schemas`; do not edit. Each type has a JSON Schema of its whole message here. What surrounds",
        "`data`, and what readers may rely on, is in [the contract](../contract.md#events).",
        "",
        "| type | topic | sent | data |",
        "|---|---|---|---|",
    ]
    for name, kind in EVENT_TYPES.items():
        fields = ", ".join(field.encode_name for field in msgspec.structs.fields(kind.struct))
        lines.append(f"| [`{name}`]({name}.json) | `{kind.topic}` | {kind.doc} | {fields} |")
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Everything in docs/events/, by file name."""
    return {f"{name}.json": text_of(schema) for name, schema in schemas().items()} | {"README.md": page()}
