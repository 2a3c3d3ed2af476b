"""What a remote says about itself and its offers, made fit to be read by models: bounded, and without hidden characters.

Only words are touched: titles, descriptions, instructions. What a machine compares (names, enums, defaults, patterns) stays as it
came, because a changed one would be another; hidden characters there are counted apart. An entry with nothing to mend keeps its
very bytes. A pattern is text here and never run.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from mcpserver.protocol import invisible, jsonrpc

TEXT_MAX_BYTES = 8 * 1024
# A text of megabytes is not looked through for what is cut off anyway.
_LOOKED_AT_MAX_CHARS = 8 * TEXT_MAX_BYTES
# Of a schema: where names stand for keywords, what is data, and what is words.
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_DATA = ("const", "enum", "default", "examples", "required", "dependentRequired")
_WORDS = ("title", "description", "$comment", "markdownDescription")

_WORDS_OF: Mapping[str, tuple[str, ...]] = {
    "tools/list": ("title", "description"),
    "prompts/list": ("title", "description"),
    "resources/list": ("name", "title", "description"),
    "resources/templates/list": ("name", "title", "description"),
}
_STRUCTURES_OF: Mapping[str, tuple[str, ...]] = {
    "tools/list": ("inputSchema", "outputSchema", "annotations"),
    "prompts/list": ("arguments",),
}


class Notes(msgspec.Struct):
    """What was done: hidden characters taken out, texts cut, and hidden characters that had to stay."""

    stripped: int = 0
    cut: int = 0
    left: int = 0

    def add(self, other: "Notes") -> None:
        self.stripped += other.stripped
        self.cut += other.cut
        self.left += other.left


def text(value: str, notes: Notes) -> str:
    """One text: visible, and not longer than 8 KiB."""
    looked_at = value[:_LOOKED_AT_MAX_CHARS]
    shown, hidden = invisible.stripped(looked_at)
    notes.stripped += hidden
    if looked_at != value:
        return _cut(shown, f"{len(value)} characters", notes)
    if 4 * len(shown) <= TEXT_MAX_BYTES:
        return shown
    encoded = shown.encode("utf-8", "replace")
    if len(encoded) <= TEXT_MAX_BYTES:
        return shown
    return _cut(shown, f"{len(encoded)} bytes", notes)


def _cut(shown: str, size: str, notes: Notes) -> str:
    notes.cut += 1
    notice = f" […] [cut by the gateway: {size}, {TEXT_MAX_BYTES} bytes allowed]"
    return shown.encode("utf-8", "replace")[: TEXT_MAX_BYTES - len(notice.encode())].decode("utf-8", "ignore") + notice


def entry(method: str, raw: bytes, notes: Notes) -> bytes:
    """An entry of a list; raises Malformed for one that is no object."""
    if _is_clean(raw):
        return raw
    fields = jsonrpc.fields(raw, "an entry")
    changed = _members(fields, _WORDS_OF[method], notes)
    for name in _STRUCTURES_OF.get(method, ()):
        changed |= _mended(fields, name, notes)
    return jsonrpc.encode(fields) if changed else raw


def _is_clean(raw: bytes) -> bool:
    """A cheap yes for what nearly every entry is: short, and without anything that could be hidden."""
    if len(raw) > TEXT_MAX_BYTES or b"\\u" in raw:
        return False
    return b"\x7f" not in raw if raw.isascii() else not invisible.may_hold_any(raw.decode("utf-8", "replace"))


def _members(fields: jsonrpc.Fields, names: tuple[str, ...], notes: Notes) -> bool:
    changed = False
    for name in names:
        value = jsonrpc.text(fields.get(name))
        if value is not None and (shown := text(value, notes)) != value:
            fields[name] = Raw(jsonrpc.encode(shown))
            changed = True
    return changed


def _mended(fields: jsonrpc.Fields, name: str, notes: Notes) -> bool:
    """A schema, or another structure with words in it."""
    raw = fields.get(name)
    if raw is None or _is_clean(bytes(raw)):
        return False
    try:
        value = msgspec.json.decode(raw)
    except jsonrpc.UNREADABLE:
        return False  # a number that nobody can hold: relayed as it came, like everything that is not words
    if not _schema(value, notes):
        return False
    fields[name] = Raw(jsonrpc.encode(value))
    return True


def _schema(node: Any, notes: Notes) -> bool:
    """Mend the words of a schema in place; whether any were."""
    if isinstance(node, list):
        return sum(_schema(item, notes) for item in node) > 0  # all of them, not up to the first
    if not isinstance(node, dict):
        return False
    changed = False
    for key, value in node.items():
        if key in _WORDS and isinstance(value, str):
            node[key] = text(value, notes)
            changed |= node[key] != value
        elif key in _NAMED and isinstance(value, dict):
            changed |= sum(_schema(inner, notes) for inner in value.values()) > 0
            notes.left += sum(invisible.stripped(name)[1] for name in value)
        elif key in _DATA or isinstance(value, str):
            notes.left += _hidden(value)
        else:
            changed |= _schema(value, notes)
    return changed


def _hidden(value: Any) -> int:
    match value:
        case str():
            return invisible.stripped(value)[1]
        case list():
            return sum(map(_hidden, value))
        case dict():
            return sum(_hidden(key) + _hidden(inner) for key, inner in value.items())
        case _:
            return 0
