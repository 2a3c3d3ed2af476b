"""What others may read about keys. Nothing here writes, and no hash leaves except to the worker that verifies."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from keys import format, grant, hashing, saved
from keys.grant import EVERYTHING
from keys.models import ApiKey, KeyEvent, KeyGeneration
from keys.principal import Principal
from keys.saved import Plan, SavedKey
from keys.standing import LEEWAY, HeldKey, ends_at, status
from mcpserver.lib.errors import Exit, GatewayError

log = logging.getLogger(__name__)

TIMES = ("created_at", "expires_at", "retires_at", "revoked_at")


@dataclass(frozen=True, slots=True)
class Holding:
    """Every key that may open, as of one generation; younger ones after older ones."""

    generation: int
    keys: dict[str, HeldKey]


def generation() -> int:
    """Moves with every change to a key; 0 before the first."""
    return KeyGeneration.objects.filter(pk=KeyGeneration.ROW).values_list("number", flat=True).first() or 0


def holding_unless(known: int | None, now: datetime) -> Holding | None:
    """The keys to hold in memory, or None while `known` is still the generation: then this is one small read."""
    current = generation()
    if current == known:
        return None
    # The number was read before the rows: a change in between shows in them already, and is only read once more.
    rows = not_ended(now - LEEWAY).order_by("created_at", "pk")
    return Holding(current, {row.key_id: held for row in rows if (held := _held(row)) is not None})


def list_keys(now: datetime, *, ended: bool = False) -> list[dict[str, Any]]:
    """Oldest first; those that have ended only when asked for."""
    rows = ApiKey.objects.all() if ended else not_ended(now)
    return [_described(row, now) for row in rows.order_by("created_at", "pk")]


def show(name: str, now: datetime) -> list[dict[str, Any]]:
    """Every key of a name, ended ones too; or the one whose id it is. GatewayError `not_found`."""
    rows = ApiKey.objects.filter(name=name) or ApiKey.objects.filter(key_id=format.id_in(name))
    if not rows:
        raise unknown_key(format.id_in(name))
    return [_described(row, now) for row in rows.order_by("created_at", "pk")]


def names() -> list[str]:
    """Every name that a key has, ended ones too."""
    return list(ApiKey.objects.order_by("name").values_list("name", flat=True).distinct())


def any_opens(now: datetime) -> bool:
    """Whether somebody could authenticate at all."""
    return not_ended(now).exists()


def not_ended(now: datetime) -> QuerySet[ApiKey]:
    """Rows of the keys that open; for `keys` itself."""
    expires = Q(expires_at__isnull=True) | Q(expires_at__gt=now)
    retires = Q(retires_at__isnull=True) | Q(retires_at__gt=now)
    return ApiKey.objects.filter(expires, retires, revoked_at__isnull=True)


def audit(
    *, name: str = "", event: str = "", since: datetime | None = None, after: int = 0, limit: int = 100
) -> list[dict[str, Any]]:
    """The newest `limit` events, oldest first; `name` is a key's name or id, `after` the number of an event that is known."""
    rows = KeyEvent.objects.filter(pk__gt=after)
    if name:
        rows = rows.filter(Q(name=name) | Q(key_id=format.id_in(name)))
    if event:
        rows = rows.filter(event=event)
    if since is not None:
        rows = rows.filter(at__gte=since)
    return [_event(row) for row in reversed(rows.order_by("-pk")[:limit])]


def exported() -> Iterator[dict[str, Any]]:
    """Every key with its hash, ended ones too, for a backup: times in ISO 8601, UTC."""
    for row in ApiKey.objects.order_by("created_at", "pk"):
        yield {
            "id": row.key_id,
            "name": row.name,
            "hash": row.hash,
            "grant": row.grant,
            **{field: _iso(getattr(row, field)) for field in TIMES},
        }


def present() -> dict[str, SavedKey]:
    """The same, as values by id."""
    return {key.key_id: key for key in saved.read(list(exported()))}


def restoring(keys: Iterable[SavedKey], revoked: Mapping[str, datetime]) -> Plan:
    """What `services.restore` would do now."""
    return saved.plan(keys, present(), revoked)


def judged(key: str, now: datetime) -> tuple[str, str, bool]:
    """Name, status and whether it opens, for who holds the whole key: `malformed` or `unknown` are words for a wrong one."""
    presented = format.parse(key)
    if not presented.well_formed:
        return "", "malformed", False
    row = ApiKey.objects.filter(key_id=presented.key_id).first()
    if row is None or not hashing.matches(row.hash, key):
        return "", "unknown", False
    word = status(now, expires_at=row.expires_at, retires_at=row.retires_at, revoked_at=row.revoked_at)
    held = _held(row)
    return row.name, word, row.revoked_at is None and held is not None and held.opens(now)


def unknown_key(asked: str) -> GatewayError:
    known = names()
    return GatewayError(
        "not_found",
        f"no key has the name or id {asked[:80]!r}",
        hint=f"names in use: {', '.join(known)}" if known else "there is no key yet: mcpkey generate NAME",
        exit_code=Exit.NOT_FOUND,
        names=known,
    )


def _held(row: ApiKey) -> HeldKey | None:
    """None for a key whose grant this version cannot read: it would let in more than it should."""
    try:
        granted = grant.read(row.grant)
    except GatewayError as error:
        log.error("key %s (%s) is refused: %s", row.key_id, row.name, error.message)
        return None
    return HeldKey(Principal(row.key_id, row.name, granted), row.hash, ends_at(row.expires_at, row.retires_at))


def _described(row: ApiKey, now: datetime) -> dict[str, Any]:
    return {
        "id": row.key_id,
        "name": row.name,
        "prefix": row.prefix,
        "status": status(now, expires_at=row.expires_at, retires_at=row.retires_at, revoked_at=row.revoked_at),
        "created_at": row.created_at,
        "last_used_at": row.last_used_at,
        "expires_at": row.expires_at,
        "retires_at": row.retires_at,
        "revoked_at": row.revoked_at,
        **(EVERYTHING.document() | row.grant),
    }


def _event(row: KeyEvent) -> dict[str, Any]:
    return {
        "number": row.pk,
        "at": row.at,
        "event": row.event,
        "key_id": row.key_id,
        "name": row.name,
        "actor": row.actor,
        "detail": row.detail,
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
