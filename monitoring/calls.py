"""The record of calls: who called which tool, prompt or resource, and how it ended. Written in bulk, found again, pruned.

Writing is on the gateway's budget of CPU: statements of our own for hundreds of rows cost a fifth of what the ORM's bulk insert
does. Time and request have an index, which costs next to nothing as both only grow. No other has: reading all of a quarter of a
million rows takes 35 ms, and each further index would cost each call a microsecond.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from itertools import islice, repeat
from typing import Any

from django.db import connection, transaction
from django.db.models import Avg, Count, Max, Min, Q, QuerySet

from gateway.record import KINDS, Verdict
from gateway.record import Call as Ended
from mcpserver.lib import redact
from monitoring.models import Call

# What went well, or as its caller could expect; the rest is what an operator looks for.
GOOD = ("ok", "input_required")
OUTCOMES = tuple(verdict.value for verdict in Verdict)
# Deleted in one transaction: some ten milliseconds, for which another writer can wait.
PRUNED_AT_ONCE = 1000

_FIELDS = [field.attname for field in Call._meta.concrete_fields if not field.primary_key]
_LENGTHS = {field.attname: field.max_length for field in Call._meta.concrete_fields if field.max_length}


# Writing.


def write(calls: Sequence[Ended]) -> None:
    """Store calls, all or none."""
    rows = iter(calls)
    with transaction.atomic(), connection.cursor() as cursor:
        for size in _sizes(len(calls)):
            values = [value for call in islice(rows, size) for value in _values(call)]
            cursor.execute(_insert(size), values)


def _sizes(count: int) -> Iterator[int]:
    """A statement for each number of rows would be kept, at up to half a megabyte: there are these few."""
    for size in (500, 100, 20, 4, 1):
        yield from repeat(size, count // size)
        count %= size


@cache
def _insert(rows: int) -> str:
    row = f"({','.join(['%s'] * len(_FIELDS))})"
    return f"INSERT INTO {Call._meta.db_table} ({','.join(_FIELDS)}) VALUES {','.join([row] * rows)}"  # noqa: S608 - our own words


def _values(call: Ended) -> tuple[Any, ...]:
    """In the order of the columns."""
    said = call.fields
    return (
        _time(call.at),
        call.request,
        said["key"],
        call.key_name,
        _text("source", said["source"]),
        said["remote"],
        KINDS[said["method"]],
        _text("name", said["name"]),
        said["era"],
        said["transport"],
        said["outcome"],
        said["code"],
        call.ms,
        call.answer_bytes,
        None if call.arguments is None else _arguments(call.arguments),
    )


def _time(at: float) -> str:
    """UTC, as SQLite keeps it and PostgreSQL reads it. To the millisecond, as in the log."""
    second, ms = divmod(int(at * 1000), 1000)
    return f"{_second(second)}.{ms:03d}000"


@lru_cache(maxsize=64)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


@lru_cache(maxsize=2048)
def _text(column: str, text: str) -> str:
    """A stranger's text as its column takes it. Masked before it is cut: half a secret has another shape."""
    return redact.text(text[:4096].replace("\0", ""))[: _LENGTHS[column]]


def _arguments(raw: bytes) -> str:
    try:
        return json.dumps(redact.document(json.loads(raw)))
    except (ValueError, RecursionError):
        return json.dumps(f"{len(raw)} bytes")


# Reading.


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is left empty is not asked. `keys`: ids. `outcome`: one of the words, or `bad` for all that are no success."""

    remote: str = ""
    keys: frozenset[str] = field(default_factory=frozenset)
    name: str = ""
    request: str = ""
    outcome: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def rows(self) -> QuerySet[Call]:
        asked: dict[str, Any] = {
            "remote": self.remote,
            "name": self.name,
            "request": self.request,
            "at__gte": self.since,
        }
        asked |= {"at__lt": self.until, "key_id__in": self.keys}
        found = Call.objects.filter(**{column: value for column, value in asked.items() if value})
        if self.outcome == "bad":
            return found.exclude(outcome__in=GOOD)
        return found.filter(outcome=self.outcome) if self.outcome else found


def last_number() -> int:
    """The number of the newest call; 0 before the first."""
    return Call.objects.aggregate(last=Max("pk"))["last"] or 0


def newest(wanted: Wanted, count: int, *, after: int = 0, until: int | None = None) -> list[tuple[int, dict[str, Any]]]:
    """The newest calls that are wanted, oldest first, each with its number; only those between two numbers."""
    rows = wanted.rows().filter(pk__gt=after)
    rows = rows if until is None else rows.filter(pk__lte=until)
    return [(row.pk, _document(row)) for row in reversed(rows.order_by("-pk")[:count])]


def summed(wanted: Wanted, count: int) -> dict[str, Any]:
    """How many there were, how they ended, and the `count` tools and keys that were busiest."""
    rows = wanted.rows()
    whole = rows.aggregate(calls=Count("pk"), first=Min("at"), last=Max("at"))
    outcomes = rows.values_list("outcome").annotate(calls=Count("pk")).order_by("-calls")
    return {
        "calls": whole["calls"],
        "first": whole["first"],
        "last": whole["last"],
        "outcomes": dict(outcomes),
        "called": _busiest(rows, ("remote", "kind", "name"), count),
        "keys": _busiest(rows, ("key_name", "key_id"), count),
    }


def _busiest(rows: QuerySet[Call], by: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    figures = {
        "calls": Count("pk"),
        "bad": Count("pk", filter=~Q(outcome__in=GOOD)),
        "average_ms": Avg("ms"),
        "max_ms": Max("ms"),
        "last": Max("at"),
    }
    found = rows.values(*by).annotate(**figures).order_by("-calls")[:count]
    return [{**row, "average_ms": round(row["average_ms"], 2)} for row in found]


def _document(row: Call) -> dict[str, Any]:
    document = {
        "time": row.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request": row.request,
        "key": row.key_id,
        "key_name": row.key_name,
        "source": row.source,
        "remote": row.remote,
        "kind": row.kind,
        "name": row.name,
        "era": row.era,
        "transport": row.transport,
        "outcome": row.outcome,
        "code": row.code,
        "ms": row.ms,
        "answer_bytes": row.answer_bytes,
    }
    return document if row.arguments is None else document | {"arguments": json.loads(row.arguments)}


# Pruning.


def prune(now: datetime, *, rows: int, days: float) -> int:
    """Delete what is beyond the newest `rows`, and what is older; how many went. In small transactions, oldest first."""
    last = max(_last_beyond(rows), _last_before(now - timedelta(days=days)))
    pruned = 0
    while batch := list(Call.objects.filter(pk__lte=last).order_by("pk").values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        Call.objects.filter(pk__gte=batch[0], pk__lte=batch[-1]).delete()
        pruned += len(batch)
    return pruned


def _last_beyond(rows: int) -> int:
    """The newest of those that are too many; 0 when there are none."""
    return Call.objects.order_by("-pk").values_list("pk", flat=True)[rows : rows + 1].first() or 0


def _last_before(moment: datetime) -> int:
    return Call.objects.filter(at__lt=moment).aggregate(last=Max("pk"))["last"] or 0
