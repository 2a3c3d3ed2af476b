"""Circuit breakers as all workers and nodes share them: one row for each that is not closed.

Moved by compare-and-set, so that of many who see that a next try is due exactly one makes it. What opens or closes a circuit is
not decided here.
"""

import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from django.db import IntegrityError, transaction

from remotes.models import RemoteCircuit

NO_MARK = ""


@dataclass(frozen=True, slots=True)
class SharedCircuit:
    """See `RemoteCircuit`."""

    name: str
    digest: str
    state: str
    since: datetime
    lasts_s: float
    wait_s: float
    failures: int
    reason: str
    contact_closes: bool
    mark: str = NO_MARK


def everyone() -> dict[str, SharedCircuit]:
    """All circuits that are not closed, by name; cheap enough for every second."""
    fields = SharedCircuit.__dataclass_fields__
    return {row["name"]: SharedCircuit(**row) for row in RemoteCircuit.objects.values(*fields)}


def swap(name: str, *, expected: str, new: SharedCircuit | None) -> str | None:
    """Put `new` (None: closed) where the circuit with the mark `expected` was; the new mark, or None when another was faster."""
    if new is None:
        deleted, _ = RemoteCircuit.objects.filter(name=name, mark=expected).delete()
        return NO_MARK if deleted or expected == NO_MARK else None
    values = asdict(replace(new, mark=secrets.token_hex(8)))
    if expected == NO_MARK:
        try:
            with transaction.atomic():
                RemoteCircuit.objects.create(**values)
        except IntegrityError:
            return None
    elif not RemoteCircuit.objects.filter(name=name, mark=expected).update(**values):
        return None
    mark: str = values["mark"]
    return mark


def close(name: str) -> bool:
    """Closed for everybody, whoever opened it; whether it was not closed before."""
    deleted, _ = RemoteCircuit.objects.filter(name=name).delete()
    return bool(deleted)
