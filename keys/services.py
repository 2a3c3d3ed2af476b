"""What can be done to keys: verbs, each one transaction with its audit rows inside.

Every change takes the generation row first. It is the news that workers poll, and as long as it is locked no other change
runs: two `generate` of one name at once cannot miss each other. The secret exists in the answer of `generate` and nowhere
else.
"""

import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, Q

from keys import format, grant, hashing, saved, selectors
from keys.grant import EVERYTHING, Grant
from keys.models import ApiKey, KeyEvent, KeyGeneration
from keys.saved import NAME, Plan, SavedKey
from keys.standing import ends_at
from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.errors import Exit, GatewayError

GRACE = timedelta(hours=24)

_CLOCK = SystemClock()
_NOTHING: Mapping[str, Any] = {}


def generate(
    *,
    name: str,
    actor: str,
    grace: timedelta = GRACE,
    expires_in: timedelta | None = None,
    replaces: str = "",
    changes: Mapping[str, Any] = _NOTHING,
    clock: Clock = _CLOCK,
) -> dict[str, Any]:
    """Make a key. Older keys of that name, and of the one it `replaces`, open for `grace` more, never longer than before.

    It may use what its predecessor could, with `changes` by field of a grant: rotating a key is no way to widen it.
    """
    _check_name(name)
    key_id, key = _new_key()
    key_hash = hashing.hash_key(key)  # Before the transaction: nobody waits for argon2.
    now = clock.now()
    expires_at = _expiry(now, expires_in)
    with transaction.atomic():
        _announce()
        granted = grant.changed(_inherited(replaces or name, must_exist=bool(replaces)), changes)
        older = list(selectors.not_ended(now).filter(name__in={name, replaces or name}).order_by("created_at", "pk"))
        for row in older:
            _retire(row, until=now + grace, now=now, actor=actor)
        row = ApiKey.objects.create(
            key_id=key_id, name=name, hash=key_hash, created_at=now, expires_at=expires_at, grant=_stored(granted)
        )
        _audit(row, KeyEvent.Event.GENERATED, at=now, actor=actor, detail=_stored(granted))
    return {
        "key": key,
        "id": key_id,
        "name": name,
        "prefix": row.prefix,
        "created_at": now,
        "expires_at": expires_at,
        **granted.document(),
        "deprecated": [{"id": old.key_id, "until": old.revoked_at or _end(old)} for old in older],
    }


def change(
    *,
    actor: str,
    name: str = "",
    key_id: str = "",
    changes: Mapping[str, Any] = _NOTHING,
    expires_in: timedelta | None = None,
    clock: Clock = _CLOCK,
) -> dict[str, Any]:
    """What every key of a name that opens, or the one with an id, may use from now on; other fields stay as they are."""
    now = clock.now()
    expires_at = _expiry(now, expires_in)
    with transaction.atomic():
        _announce()
        rows = _changeable(_named(name, key_id), by_name=name if not key_id else "", now=now)
        for row in rows:
            granted = grant.changed(grant.read(row.grant), changes)
            row.grant = _stored(granted)
            row.expires_at = expires_at or row.expires_at
            row.save(update_fields=["grant", "expires_at"])
            until = {"expires_at": expires_at.isoformat()} if expires_at else {}
            _audit(row, KeyEvent.Event.CHANGED, at=now, actor=actor, detail=_stored(granted) | until)
    return {
        "changed": [
            {"id": row.key_id, "name": row.name, "expires_at": row.expires_at, **EVERYTHING.document(), **row.grant}
            for row in rows
        ]
    }


def revoke(*, actor: str, name: str = "", key_id: str = "", clock: Clock = _CLOCK) -> dict[str, Any]:
    """End every key of a name, or the one with an id, at once. What is revoked already is no error.

    Where an id is taken, a displayed prefix and a whole key are too; `name` may be an id that is nobody's name.
    """
    now = clock.now()
    with transaction.atomic():
        _announce()
        rows = _named(name, key_id)
        ending = [row for row in rows if row.revoked_at is None]
        for row in ending:
            _end_now(row, now=now, actor=actor)
    return {
        "revoked": [{"id": row.key_id, "name": row.name} for row in ending],
        "already_revoked": [{"id": row.key_id, "name": row.name} for row in rows if row not in ending],
    }


def restore(
    keys: Iterable[SavedKey], *, revoked: Mapping[str, datetime], actor: str, backup: str, clock: Clock = _CLOCK
) -> Plan:
    """Bring keys back as `saved.plan` says, all or none; what is revoked stays so, here and by `revoked`."""
    now = clock.now()
    with transaction.atomic():
        _announce()
        plan = saved.plan(keys, selectors.present(), revoked)
        for key in plan.added:
            row = ApiKey.objects.create(grant=_stored(key.grant), **_columns(key))
            _audit(row, KeyEvent.Event.RESTORED, at=now, actor=actor, detail={"backup": backup} | _stored(key.grant))
        for key in plan.changed:
            row = ApiKey.objects.get(key_id=key.key_id)
            row.grant, row.revoked_at = _stored(key.grant), key.revoked_at
            row.save(update_fields=["grant", "revoked_at"])
            event = KeyEvent.Event.REVOKED if key in plan.revoked else KeyEvent.Event.RESTORED
            _audit(row, event, at=now, actor=actor, detail={"backup": backup} | _stored(key.grant))
    return plan


def record_use(uses: Mapping[tuple[str, datetime], tuple[datetime, str]]) -> None:
    """Write down uses: (key id, start of the minute) → the last moment in it, and where its first call came from.

    What is known of the same minute stands: many workers see it, the first one tells.

    Not news: who used a key changes nothing for the workers.
    """
    latest: dict[str, datetime] = {}
    for (key_id, _), (at, _source) in uses.items():
        latest[key_id] = max(at, latest.get(key_id, at))
    with transaction.atomic():
        names = dict(ApiKey.objects.filter(key_id__in=latest).values_list("key_id", "name"))
        for key_id, at in latest.items():
            unused_since = Q(last_used_at__isnull=True) | Q(last_used_at__lt=at)
            ApiKey.objects.filter(unused_since, key_id=key_id).update(last_used_at=at)
        KeyEvent.objects.bulk_create(
            [
                _use(key_id, names[key_id], minute, source)
                for (key_id, minute), (_, source) in uses.items()
                if key_id in names
            ],
            ignore_conflicts=True,
        )


def _use(key_id: str, name: str, minute: datetime, source: str) -> KeyEvent:
    detail = {"from": source[:64]} if source else {}
    return KeyEvent(at=minute, event=KeyEvent.Event.USED, key_id=key_id, name=name, actor="gateway", detail=detail)


def _named(name: str, key_id: str) -> list[ApiKey]:
    """The keys of a name, or the one whose id was given, under either word; GatewayError `not_found`."""
    rows = list(ApiKey.objects.filter(name=name).order_by("created_at", "pk")) if not key_id else []
    rows = rows or list(ApiKey.objects.filter(key_id=format.id_in(key_id or name)))
    if not rows:
        raise selectors.unknown_key(format.id_in(key_id or name))
    return rows


def _changeable(rows: list[ApiKey], *, by_name: str, now: datetime) -> list[ApiKey]:
    """Of a name, those that open: what has ended is not brought back by the way. One that was meant by its id, unless revoked."""
    opening = set(selectors.not_ended(now).values_list("pk", flat=True))
    is_id = not any(row.name == by_name for row in rows)
    found = [row for row in rows if (row.revoked_at is None if is_id else row.pk in opening)]
    if not found:
        hint = "see them with: mcpkey list --all"
        raise GatewayError("ended", "that key has ended: nothing of it can be changed", hint=hint, exit_code=Exit.KEY)
    return found


def _columns(key: SavedKey) -> dict[str, Any]:
    names = ("key_id", "name", "hash", *selectors.TIMES)
    return {name: getattr(key, name) for name in names}


def _inherited(name: str, *, must_exist: bool) -> Grant:
    """What the newest key of that name could use, ended or not: who revokes a narrow key and makes it anew means a narrow one."""
    row = ApiKey.objects.filter(name=name).order_by("-created_at", "-pk").first()
    if row is None and must_exist:
        raise selectors.unknown_key(name)
    return grant.read(row.grant) if row is not None else EVERYTHING


def _stored(granted: Grant) -> dict[str, Any]:
    """What says something; for the audit row too."""
    return {field: value for field, value in granted.document().items() if value not in (None, [], {})}


def _expiry(now: datetime, expires_in: timedelta | None) -> datetime | None:
    if expires_in is None:
        return None
    if expires_in <= timedelta():
        raise GatewayError("usage", "a key must live for some time", exit_code=Exit.USAGE)
    return now + expires_in


def _new_key() -> tuple[str, str]:
    key_id = "".join(secrets.choice(format.ALPHABET) for _ in range(format.ID_LENGTH))
    secret = "".join(secrets.choice(format.ALPHABET) for _ in range(format.SECRET_LENGTH))
    return key_id, format.compose(key_id, secret)


def _check_name(name: str) -> None:
    if name.startswith(format.PREFIX):
        # Somebody pasted a key: it must not end up in an error, the database or the audit.
        raise GatewayError("usage", "a name cannot begin with mcp_, as keys do", exit_code=Exit.USAGE)
    if not NAME.fullmatch(name):
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
