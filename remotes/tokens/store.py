"""The table of tokens. Every write says which version it expects to find, and losing is a normal answer.

The lease is what makes a renewal happen once on all nodes: its end is on the database's clock, which they share. A holder that
died is waited for no longer than the lease; a lease from a future that is too far (a clock was set) counts as none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Q
from django.db.models.functions import Now
from django.utils import timezone

from remotes.models import RemoteEvent, StoredToken
from remotes.tokens.grant import Token

# Longer than a renewal may take, retries included.
LEASE = timedelta(seconds=40)


@dataclass(frozen=True, slots=True)
class Row:
    """`sealed` is empty where nothing is kept; `refused` says why the authorization server gives no more."""

    version: int = 0
    sealed: str = ""
    refused: str = ""


_NOBODY = Row()


def read(name: str) -> Row:
    found = StoredToken.objects.filter(name=name).values_list("version", "sealed", "refused").first()
    return Row(*found) if found else _NOBODY


def versions() -> dict[str, int]:
    """What every process looks at each second."""
    return dict(StoredToken.objects.values_list("name", "version"))


def facts() -> dict[str, Mapping[str, object]]:
    """What people may know, by remote."""
    rows = StoredToken.objects.exclude(sealed="").values("name", "expires_at", "scope", "refused", "updated_at")
    return {row["name"]: row for row in rows}


def claim(name: str, version: int, owner: str) -> bool:
    """Take the lease if `version` is still what is kept and nobody else holds it."""
    if version == 0:
        StoredToken.objects.get_or_create(name=name)
    until = ExpressionWrapper(Now() + LEASE, output_field=DateTimeField())
    is_free = Q(lease_owner__in=("", owner)) | Q(lease_until__lt=Now()) | Q(lease_until__gt=until)
    rows = StoredToken.objects.filter(is_free, name=name, version=version)
    return rows.update(lease_owner=owner, lease_until=until) == 1


def release(name: str, owner: str) -> None:
    StoredToken.objects.filter(name=name, lease_owner=owner).update(lease_owner="", lease_until=None)


def save(name: str, version: int, sealed: str, token: Token | None) -> int | None:
    """The next version, or None because another came first. Ends the lease."""
    if version == 0:
        StoredToken.objects.get_or_create(name=name)
    rows = StoredToken.objects.filter(name=name, version=version)
    return version + 1 if rows.update(**_kept(sealed, token)) else None


def refuse(name: str, version: int, sealed: str, token: Token | None, why: str) -> int | None:
    """No further token comes from this; what there was is kept. Ends the lease."""
    with transaction.atomic():
        rows = StoredToken.objects.filter(name=name, version=version)
        if not rows.update(**_kept(sealed, token) | {"refused": why[:200]}):
            return None
        RemoteEvent.objects.create(remote=name, event=RemoteEvent.Event.CREDENTIAL_REFUSED, detail={"why": why[:200]})
    return version + 1


def accept(name: str, version: int) -> None:
    """The remote took it after all."""
    StoredToken.objects.filter(name=name, version=version).update(version=version + 1, refused="")


def put(name: str, sealed: str, token: Token, actor: str) -> None:
    """After a login: whatever was there is over."""
    with transaction.atomic():
        StoredToken.objects.get_or_create(name=name)
        StoredToken.objects.filter(name=name).update(**_kept(sealed, token))
        RemoteEvent.objects.create(remote=name, event=RemoteEvent.Event.LOGGED_IN, actor=actor[:200])


def forget(name: str, actor: str) -> bool:
    """After a logout. The row stays, without its content: a version never comes twice."""
    with transaction.atomic():
        if not StoredToken.objects.filter(name=name).exclude(sealed="").update(**_kept("", None)):
            return False
        RemoteEvent.objects.create(remote=name, event=RemoteEvent.Event.LOGGED_OUT, actor=actor[:200])
    return True


def _kept(sealed: str, token: Token | None) -> dict[str, object]:
    ends = None if token is None or token.expires_at is None else datetime.fromtimestamp(token.expires_at, UTC)
    return {
        "version": F("version") + 1,
        "sealed": sealed,
        "refused": "",
        "expires_at": ends,
        "scope": token.scope if token else "",
        "updated_at": timezone.now(),
        "lease_owner": "",
        "lease_until": None,
    }
