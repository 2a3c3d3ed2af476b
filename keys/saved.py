"""Keys as a backup holds them, and what bringing them back would do. Pure.

A restore adds what is missing and gives keys back what they could use then. It ends what was revoked at either time, and
opens nothing that is revoked now: of a key that exists, the dates of today stand.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keys import format, grant
from keys.grant import Grant
from mcpserver.lib.errors import GatewayError

_ID = re.compile(rf"[0-9A-Za-z]{{{format.ID_LENGTH}}}")
_HASH = re.compile(r"\$argon2id\$[\x21-\x7e]{1,240}")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?", flags=re.ASCII)


@dataclass(frozen=True, slots=True)
class SavedKey:
    key_id: str
    name: str
    hash: str
    grant: Grant
    created_at: datetime
    expires_at: datetime | None
    retires_at: datetime | None
    revoked_at: datetime | None

    @property
    def label(self) -> dict[str, str]:
        return {"id": self.key_id, "name": self.name}


@dataclass(frozen=True, slots=True)
class Plan:
    """`added` and `changed` as they will be; `revoked` are those of them that end; `foreign` share an id and nothing else."""

    added: tuple[SavedKey, ...]
    changed: tuple[SavedKey, ...]
    revoked: tuple[SavedKey, ...]
    foreign: tuple[SavedKey, ...]

    def document(self) -> dict[str, Any]:
        ended = {key.key_id for key in self.revoked}
        return {
            "added": [key.label | {"revoked": key.revoked_at is not None} for key in self.added],
            "changed": [key.label | key.grant.document() for key in self.changed if key.key_id not in ended],
            "revoked": [key.label for key in self.revoked],
            "left_alone": [key.label for key in self.foreign],
        }


def read(documents: Any) -> list[SavedKey]:
    """GatewayError `invalid_backup` for what no version of ours wrote."""
    if not isinstance(documents, list):
        raise _invalid("keys must be a list")
    found = [_key(document) for document in documents]
    if len({key.key_id for key in found}) != len(found):
        raise _invalid("two keys have the same id")
    return found


def plan(saved: Iterable[SavedKey], present: Mapping[str, SavedKey], revoked: Mapping[str, datetime]) -> Plan:
    """`revoked`: ids that any other record, such as a younger backup, knows to be revoked."""
    added: list[SavedKey] = []
    changed: list[SavedKey] = []
    ended: list[SavedKey] = []
    foreign: list[SavedKey] = []
    for key in saved:
        now = present.get(key.key_id)
        end = key.revoked_at or revoked.get(key.key_id)
        if now is None:
            added.append(_as(key, grant=key.grant, revoked_at=end))
        elif now.hash != key.hash:
            foreign.append(key)
        elif (after := _as(now, grant=key.grant, revoked_at=now.revoked_at or end)) != now:
            changed.append(after)
            if after.revoked_at != now.revoked_at:
                ended.append(after)
    return Plan(tuple(added), tuple(changed), tuple(ended), tuple(foreign))


def _as(key: SavedKey, *, grant: Grant, revoked_at: datetime | None) -> SavedKey:
    return SavedKey(
        key.key_id, key.name, key.hash, grant, key.created_at, key.expires_at, key.retires_at, revoked_at
    )  # fmt: skip


def _key(document: Any) -> SavedKey:
    if not isinstance(document, dict):
        raise _invalid("a key must be an object")
    key_id, name, key_hash = (document.get(field) for field in ("id", "name", "hash"))
    if not isinstance(key_id, str) or not _ID.fullmatch(key_id):
        raise _invalid("a key has no id")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _invalid(f"key {key_id} has no name that a key can have")
    if not isinstance(key_hash, str) or not _HASH.fullmatch(key_hash):
        raise _invalid(f"key {key_id} has no hash")
    try:
        granted = grant.read(document.get("grant") or {})
    except GatewayError as error:
        raise _invalid(f"key {key_id}: {error.message}") from None
    created_at = _moment(key_id, document.get("created_at"))
    if created_at is None:
        raise _invalid(f"key {key_id} does not say when it was made")
    ends = (_moment(key_id, document.get(field)) for field in ("expires_at", "retires_at", "revoked_at"))
    return SavedKey(key_id, name, key_hash, granted, created_at, *ends)


def _moment(key_id: str, value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise _invalid(f"key {key_id} has a time that is none") from None
    if moment.tzinfo is None:
        raise _invalid(f"key {key_id} has a time without a zone")
    return moment


def _invalid(message: str) -> GatewayError:
    return GatewayError("invalid_backup", message, hint="another version may read it, or another backup may do")
