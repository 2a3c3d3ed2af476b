"""The file of a backup: JSON for people and programs, with a checksum over every byte. Pure.

The first line holds the SHA-256 of all that follows it, and is compared whole: there is no byte that could be another one. It
proves that nothing was damaged, not who wrote it: whoever can write the folder can write a checksum. Whatever is not exactly
what some version of ours writes is refused, with the reason.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from mcpserver.lib.errors import GatewayError

Kind = Literal["daily", "change", "manual", "restore"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMAT = "mcp-server-backup"
VERSION = 1
MAX_BYTES = 64 * 1024 * 1024

_FIRST = b'{"sha256": "%s",\n'
_FIRST_BYTES = len(_FIRST % (b"0" * 64))
_PRODUCT = re.compile(r"(\d{1,6})\.(\d{1,6})(?:\.\S{1,40})?", flags=re.ASCII)


@dataclass(frozen=True, slots=True)
class Backup:
    kind: Kind
    created_at: datetime
    product: str
    note: str
    sections: Mapping[str, Any]
    sha256: str


def encode(sections: Mapping[str, Any], *, kind: Kind, created_at: datetime, product: str, note: str = "") -> bytes:
    told = {
        "format": FORMAT,
        "version": VERSION,
        "product": product,
        "kind": kind,
        "created_at": created_at.isoformat(),
        "note": note,
        "sections": dict(sections),
    }
    # ASCII: no editor or terminal on the way has an opinion about it.
    rest = json.dumps(told, indent=1, ensure_ascii=True, allow_nan=False).removeprefix("{\n").encode() + b"\n"
    return _first(rest) + rest


def read(content: bytes, *, product: str) -> Backup:
    """GatewayError `not_a_backup`, `damaged` or `newer_version`; `product` is the version that reads."""
    first, rest = content[:_FIRST_BYTES], content[_FIRST_BYTES:]
    if first != _first(rest):
        raise _damaged() if _was_ours(content) else _foreign()
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise _foreign() from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise _foreign()
    _refuse_newer(told, product)
    return _backup(told)


def _first(rest: bytes) -> bytes:
    return _FIRST % hashlib.sha256(rest).hexdigest().encode()


def _was_ours(content: bytes) -> bool:
    """Whether enough is left to say that this was a backup once."""
    return content[:10] == _FIRST[:10] or FORMAT.encode() in content[:400]


def _refuse_newer(told: Mapping[str, Any], product: str) -> None:
    version, made_by = told.get("version"), told.get("product")
    theirs, ours = _release(made_by), _release(product)
    if not isinstance(version, int) or isinstance(version, bool) or theirs is None or ours is None:
        raise _foreign()
    if version > VERSION or theirs > ours:
        hint = (
            f"restore it with version {made_by}, or take the configuration out of it: jq -r .sections.config.text FILE"
        )
        raise GatewayError("newer_version", f"version {made_by} made this backup, this is {product}", hint=hint)
    if version < 1:
        raise _foreign()


def _release(product: Any) -> tuple[int, int] | None:
    """Major and minor: what a patch writes, its minor release can read."""
    match = _PRODUCT.fullmatch(product) if isinstance(product, str) else None
    return (int(match[1]), int(match[2])) if match else None


def _backup(told: Mapping[str, Any]) -> Backup:
    kind, sections, note = told.get("kind"), told.get("sections"), told.get("note")
    try:
        created_at = datetime.fromisoformat(told.get("created_at", ""))
    except (TypeError, ValueError):
        raise _foreign() from None
    if kind not in KINDS or not isinstance(sections, dict) or not isinstance(note, str) or created_at.tzinfo is None:
        raise _foreign()
    return Backup(kind, created_at, str(told["product"]), note, sections, str(told["sha256"]))


def _damaged() -> GatewayError:
    hint = "find one that is whole with: mcpbackup verify"
    return GatewayError("damaged", "this backup is damaged: its checksum does not match what it holds", hint=hint)


def _foreign() -> GatewayError:
    hint = "give a file of mcpbackup create, or the last known good configuration (.mcp-config.backup.yaml)"
    return GatewayError("not_a_backup", "this is not a backup of this gateway", hint=hint)
