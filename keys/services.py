"""What can be done to keys: verbs, each one transaction with its audit rows inside.

Every change takes the generation row first. It is the news that workers poll, and as long as it is locked no other change
runs: two `generate` of one name at once cannot miss each other. The secret exists in the answer of `generate` and nowhere
else.
"""

import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q

from keys import format, hashing, selectors
from keys.models import ApiKey, KeyEvent, KeyGeneration
from keys.standing import ends_at
from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.errors import Exit, GatewayError

GRACE = timedelta(hours=24)

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?", flags=re.ASCII)
_CLOCK = SystemClock()


def generate(
    *,
    name: str,
    actor: str,
    grace: timedelta = GRACE,
    expires_in: timedelta | None = None,
    clock: Clock = _CLOCK,
) -> dict[str, Any]:
    """Make a key. Older keys of that name that still open do so for `grace` more, and never longer than they would have."""
    _check_name(name)
    if expires_in is not None and expires_in <= timedelta():
        raise GatewayError("usage", "a key must live for some time", exit_code=Exit.USAGE)
    key_id, key = _new_key()
    key_hash = hashing.hash_key(key)  # Before the transaction: nobody waits for argon2.
    now = clock.now()
    expires_at = None if expires_in is None else now + expires_in
    with transaction.atomic():
        _announce()
        older = list(selectors.not_ended(now).filter(name=name).order_by("created_at", "pk"))
        for row in older:
            _retire(row, until=now + grace, now=now, actor=actor)
        row = ApiKey.objects.create(key_id=key_id, name=name, hash=key_hash, created_at=now, expires_at=expires_at)
        _audit(row, KeyEvent.Event.GENERATED, at=now, actor=actor)
    return {
        "key": key,
        "id": key_id,
        "name": name,
        "prefix": row.prefix,
        "created_at": now,
        "expires_at": expires_at,
        "deprecated": [{"id": old.key_id, "until": old.revoked_at or _end(old)} for old in older],
    }


def revoke(*, actor: str, name: str = "", key_id: str = "", clock: Clock = _CLOCK) -> dict[str, Any]:
    """End every key of a name, or the one with an id, at once. What is revoked already is no error.

    Where an id is taken, a displayed prefix and a whole key are too; `name` may be an id that is nobody's name.
    """
    now = clock.now()
    with transaction.atomic():
        _announce()
        rows = list(ApiKey.objects.filter(name=name).order_by("created_at", "pk")) if not key_id else []
        rows = rows or list(ApiKey.objects.filter(key_id=format.id_in(key_id or name)))
        if not rows:
            raise _unknown_key(format.id_in(key_id or name))
        ending = [row for row in rows if row.revoked_at is None]
        for row in ending:
            _end_now(row, now=now, actor=actor)
    return {
        "revoked": [{"id": row.key_id, "name": row.name} for row in ending],
        "already_revoked": [{"id": row.key_id, "name": row.name} for row in rows if row not in ending],
    }


def record_use(uses: Mapping[tuple[str, datetime], datetime]) -> None:
    """Write down uses: (key id, start of the minute) → the last moment in it. Known ones are passed over.

    Not news: who used a key changes nothing for the workers.
    """
    latest: dict[str, datetime] = {}
    for (key_id, _), at in uses.items():
        latest[key_id] = max(at, latest.get(key_id, at))
    with transaction.atomic():
        names = dict(ApiKey.objects.filter(key_id__in=latest).values_list("key_id", "name"))
        for key_id, at in latest.items():
            unused_since = Q(last_used_at__isnull=True) | Q(last_used_at__lt=at)
            ApiKey.objects.filter(unused_since, key_id=key_id).update(last_used_at=at)
        KeyEvent.objects.bulk_create(
            [
                KeyEvent(at=minute, event=KeyEvent.Event.USED, key_id=key_id, name=names[key_id], actor="gateway")
                for key_id, minute in uses
                if key_id in names
            ],
            ignore_conflicts=True,
        )


def _new_key() -> tuple[str, str]:
    key_id = "".join(secrets.choice(format.ALPHABET) for _ in range(format.ID_LENGTH))
    secret = "".join(secrets.choice(format.ALPHABET) for _ in range(format.SECRET_LENGTH))
    return key_id, format.compose(key_id, secret)


def _check_name(name: str) -> None:
    if name.startswith(format.PREFIX):
        # Somebody pasted a key: it must not end up in an error, the database or the audit.
        raise GatewayError("usage", "a name cannot begin with mcp_, as keys do", exit_code=Exit.USAGE)
    if not _NAME.fullmatch(name):
        raise GatewayError(
            "usage",
            f"{name[:80]!r} cannot name a key",
            hint="use 1 to 64 letters, digits and . _ @ - with a letter or digit at both ends, such as main-v2",
            exit_code=Exit.USAGE,
        )


def _end(row: ApiKey) -> datetime | None:
    return ends_at(row.expires_at, row.retires_at)


def _retire(row: ApiKey, *, until: datetime, now: datetime, actor: str) -> None:
    if until <= now:
        _end_now(row, now=now, actor=actor)
        return
    if row.retires_at is None or until < row.retires_at:
        row.retires_at = until
        row.save(update_fields=["retires_at"])
        _audit(row, KeyEvent.Event.DEPRECATED, at=now, actor=actor, detail={"until": until.isoformat()})


def _end_now(row: ApiKey, *, now: datetime, actor: str) -> None:
    row.revoked_at = now
    row.save(update_fields=["revoked_at"])
    _audit(row, KeyEvent.Event.REVOKED, at=now, actor=actor)


def _announce() -> None:
    KeyGeneration.objects.get_or_create(pk=KeyGeneration.ROW)
    KeyGeneration.objects.filter(pk=KeyGeneration.ROW).update(number=F("number") + 1)


def _audit(row: ApiKey, event: str, *, at: datetime, actor: str, detail: Mapping[str, Any] | None = None) -> None:
    KeyEvent.objects.create(
        at=at, event=event, key_id=row.key_id, name=row.name, actor=actor[:200], detail=dict(detail or {})
    )


def _unknown_key(asked: str) -> GatewayError:
    known = selectors.names()
    return GatewayError(
        "not_found",
        f"no key has the name or id {asked[:80]!r}",
        hint=f"names in use: {', '.join(known)}" if known else "there is no key yet: mcpkey generate NAME",
        exit_code=Exit.NOT_FOUND,
        names=known,
    )
