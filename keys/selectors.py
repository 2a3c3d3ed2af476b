"""What others may read about keys. Nothing here writes, and no hash leaves except to the worker that verifies."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from keys.models import ApiKey, KeyGeneration
from keys.principal import Principal
from keys.standing import LEEWAY, HeldKey, ends_at, status


@dataclass(frozen=True, slots=True)
class Holding:
    """Every key that may open, as of one generation."""

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
    return Holding(current, {row.key_id: _held(row) for row in not_ended(now - LEEWAY)})


def list_keys(now: datetime, *, ended: bool = False) -> list[dict[str, Any]]:
    """Oldest first; those that have ended only when asked for."""
    rows = ApiKey.objects.all() if ended else not_ended(now)
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


def _held(row: ApiKey) -> HeldKey:
    return HeldKey(Principal(row.key_id, row.name), row.hash, ends_at(row.expires_at, row.retires_at))


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
    }
