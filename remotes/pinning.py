"""A tool as it was first seen, and whether it is still the same.

What a tool says it does is what a person agreed to and what a model acts on; a remote that changes it later may mean harm. So the
definition (name, title, description, schemas, annotations) has a fingerprint, taken from what the remote sent, hidden characters
and all. What may change without anybody being misled (`_meta`, icons, fields nobody knows, spelling of the JSON) is not in it.

Pure.
"""

import hashlib
import json
import zlib
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

from mcpserver.protocol import jsonrpc
from remotes.config.snapshot import Pin as Mode

PINNED_FIELDS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
# Of a definition so much is kept to be looked at later; its fingerprint is that of the whole.
KEPT_MAX_BYTES = 16 * 1024
# A remote that finds new words each time it is asked is reported so many times, and then once in so long.
_REPORTED_MAX = 8
_REPORT_AGAIN = timedelta(hours=1)
GONE = ""
UNAPPROVED = ""


class Standing(StrEnum):
    """How a tool stands that is not as it was approved."""

    CHANGED = "changed"
    NEW = "new"
    REMOVED = "removed"


class Pin(NamedTuple):
    """`sha256` of the definition that was approved (UNAPPROVED: none yet), and of the one last written down (GONE: none)."""

    sha256: str
    seen: str


Pins = Mapping[str, Pin]
"""By a remote's own names of its tools."""


class Sighting(msgspec.Struct, frozen=True):
    """The tools of one remote as they are: fingerprints, and the definitions of those that are not as approved."""

    digests: Mapping[str, str]
    definitions: Mapping[str, bytes]


def definition(fields: jsonrpc.Fields) -> bytes:
    """What is pinned of a tool, in one spelling: members in order, numbers and escapes written alike."""
    pinned = {name: raw for name in PINNED_FIELDS if (raw := fields.get(name)) is not None and bytes(raw) != b"null"}
    encoded = jsonrpc.encode(pinned)
    try:
        return msgspec.json.encode(msgspec.json.decode(encoded), order="sorted")
    except jsonrpc.UNREADABLE:
        return encoded  # a number that nobody can hold: then the spelling counts


def fingerprint(definition: bytes) -> str:
    return hashlib.sha256(definition).hexdigest()


def packed(definition: bytes) -> bytes:
    """To be kept; at most its first 16 KiB."""
    return zlib.compress(definition[:KEPT_MAX_BYTES], 6)


def unpacked(kept: bytes | memoryview | None) -> str | None:
    """What was kept; None when nothing was."""
    if not kept:
        return None
    try:
        return zlib.decompressobj().decompress(bytes(kept), KEPT_MAX_BYTES).decode("utf-8", "replace")
    except zlib.error:
        return None


def members(kept: str | None) -> dict[str, object]:
    """The fields of a definition; one that was cut is one text."""
    if kept is None:
        return {}
    try:
        found = json.loads(kept)
    except (ValueError, RecursionError):
        return {"definition (its beginning)": kept}
    return found if isinstance(found, dict) else {}


def compare(pins: Pins | None, digests: Mapping[str, str]) -> dict[str, Standing]:
    """Every tool that is not as approved. None: the remote is met for the first time, and trusted."""
    if pins is None:
        return {}
    found: dict[str, Standing] = {}
    for tool, digest in digests.items():
        pin = pins.get(tool)
        if pin is None or pin.sha256 == UNAPPROVED:
            found[tool] = Standing.NEW
        elif pin.sha256 != digest:
            found[tool] = Standing.CHANGED
    removed = (tool for tool, pin in pins.items() if pin.sha256 != UNAPPROVED and tool not in digests)
    return found | dict.fromkeys(removed, Standing.REMOVED)


def withheld(mode: Mode, standing: Mapping[str, Standing]) -> dict[str, Standing]:
    """The tools that clients do not get: under `hold`, all that nobody has approved as they are."""
    if mode != "hold":
        return {}
    return {tool: how for tool, how in standing.items() if how is not Standing.REMOVED}


def is_recorded(pins: Pins, digests: Mapping[str, str], mode: Mode) -> bool:
    """Whether what was seen is what is written down already."""
    if mode != "hold" and any(pin.sha256 == UNAPPROVED and pin.seen != GONE for pin in pins.values()):
        return False  # held back before, and pinned now
    return all((pin := pins.get(tool)) is not None and pin.seen == digest for tool, digest in digests.items()) and all(
        pin.seen == GONE for tool, pin in pins.items() if tool not in digests
    )


def is_news(reported: Collection[str], digest: str, reported_at: datetime | None, now: datetime) -> bool:
    """Whether a change is told of: each once, so that flapping between two is told twice, and no more than so many."""
    if digest in reported:
        return False
    return len(reported) < _REPORTED_MAX or reported_at is None or now - reported_at >= _REPORT_AGAIN
