"""Pinning tools and approving what changed: each a transaction with its events in the audit trail inside.

Workers report what they see; who comes second with the same finds it written and reports nothing. What a remote can make happen
is bounded: so many events an hour, so many pins, so many bytes of each definition.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet

from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.errors import Exit, GatewayError
from remotes.config.snapshot import Pin as Mode
from remotes.models import RemoteEvent, RemoteHealth, ToolPin
from remotes.pinning import GONE, UNAPPROVED, Sighting, is_news

# Of one remote. What comes at once to more tools than the second is one event that counts them.
EVENTS_PER_HOUR_MAX = 200
EACH_MAX = 20
# More than a remote can list at once (gateway.pages), so that those that went are remembered for a while.
PINS_MAX = 25_000
_BATCH = 500
_GATEWAY = "gateway"
_CLOCK = SystemClock()
_SEEN = ("seen_sha256", "seen_definition", "seen_at", "reported", "reported_at")
_APPROVED = ("sha256", "definition", "approved_at", "approved_by")
Event = RemoteEvent.Event
_WORDS = {
    Event.TOOL_PINNED: "pinned as first seen",
    Event.TOOL_CHANGED: "changed since approved",
    Event.TOOL_ADDED: "new since the first contact",
    Event.TOOL_REMOVED: "no longer offered",
    Event.TOOL_APPROVED: "approved",
}


@dataclass(frozen=True, slots=True)
class ToolChange:
    """One event that a call wrote, for the log line and the counter of who made it. `named`: the first few of its tools."""

    event: str
    remote: str
    tools: int
    named: tuple[str, ...]

    @property
    def told(self) -> str:
        more = f" and {self.tools - len(self.named)} more" if self.tools > len(self.named) else ""
        return f"{self.remote}: {', '.join(ascii(name[:60]) for name in self.named)}{more}: {_WORDS[Event(self.event)]}"

    @property
    def level(self) -> int:
        return logging.INFO if self.event in (Event.TOOL_PINNED, Event.TOOL_APPROVED) else logging.WARNING


def observe(remote: str, mode: Mode, sighting: Sighting, clock: Clock = _CLOCK) -> list[ToolChange]:
    """Write down the tools of a remote as they are now; returns what was news.

    Those of the first contact are pinned and, unless new ones are held, so is every later one. What is not as approved is noted.
    """
    now = clock.now()
    with transaction.atomic():
        _lock(remote)
        rows = {row.tool: row for row in _known(remote)}
        look = _Look(remote, mode, sighting, now, is_first=not rows and not _is_met(remote))
        for tool, digest in sighting.digests.items():
            look.at(tool, digest, rows.get(tool))
        for tool, row in rows.items():
            if tool not in sighting.digests:
                look.for_gone(row)
        look.save()
        _forget_the_oldest(remote)
        return look.tell()


def approve(
    remote: str, tools: Iterable[str] | None, *, actor: str, sha256: str = "", clock: Clock = _CLOCK
) -> list[dict[str, Any]]:
    """Take tools (None: all of the remote) for approved as they were last seen; those that went are forgotten.

    `sha256`: the beginning of the fingerprint that was looked at; with another one nothing is approved, but a conflict raised.
    """
    now = clock.now()
    with transaction.atomic():
        _lock(remote)
        wanted = pending(remote) if tools is None else pending(remote).filter(tool__in=list(tools))
        rows = list(wanted)
        _refuse_another(rows, sha256)
        ToolPin.objects.filter(pk__in=[row.pk for row in rows if row.seen_sha256 == GONE]).delete()
        kept = [row for row in rows if row.seen_sha256 != GONE]
        ToolPin.objects.filter(pk__in=[row.pk for row in kept]).update(
            sha256=F("seen_sha256"), definition=F("seen_definition"), approved_at=now, approved_by=actor[:200],
            seen_definition=None, reported=[], reported_at=None,
        )  # fmt: skip
        _audit(remote, Event.TOOL_APPROVED, [row.tool for row in rows], now, actor)
    return [{"mcp": remote, "upstream_name": row.tool, "sha256": row.seen_sha256 or None} for row in rows]


def pending(remote: str | None = None) -> QuerySet[ToolPin]:
    """The pins that await a decision: changed, new under `hold`, or gone."""
    rows = ToolPin.objects.exclude(sha256=F("seen_sha256"))
    return rows if remote is None else rows.filter(remote=remote)


@dataclass(slots=True)
class _Look:
    """One look at one remote: what it makes of each tool, and what is to be written."""

    remote: str
    mode: Mode
    sighting: Sighting
    now: datetime
    is_first: bool
    new: list[ToolPin] = field(default_factory=list)
    seen: list[ToolPin] = field(default_factory=list)
    trusted: list[ToolPin] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    news: dict[str, list[str]] = field(default_factory=dict)

    def at(self, tool: str, digest: str, row: ToolPin | None) -> None:
        """A tool that is there."""
        definition = self.sighting.definitions.get(tool)
        if row is None:
            self._meet(tool, digest, definition)
        elif row.sha256 == UNAPPROVED and self.mode != "hold":
            self.trusted.append(self._approved(tool, digest, definition))
        elif row.seen_sha256 != digest:
            reported = row.reported if digest == row.sha256 else self._told(row, digest, Event.TOOL_CHANGED)
            self.seen.append(self._noted(row, digest, definition, reported))

    def for_gone(self, row: ToolPin) -> None:
        if row.sha256 == UNAPPROVED:
            self.forgotten.append(row.pk)
        elif row.seen_sha256 != GONE:
            self.seen.append(self._noted(row, GONE, None, self._told(row, GONE, Event.TOOL_REMOVED)))

    def save(self) -> None:
        ToolPin.objects.filter(pk__in=self.forgotten).delete()
        ToolPin.objects.bulk_create(self.new, batch_size=_BATCH, ignore_conflicts=True)
        for rows, fields in ((self.seen, _SEEN), (self.trusted, (*_SEEN, *_APPROVED))):
            ToolPin.objects.bulk_create(
                rows, batch_size=_BATCH, update_conflicts=True, unique_fields=("remote", "tool"), update_fields=fields
            )

    def tell(self) -> list[ToolChange]:
        return [
            change
            for event, tools in self.news.items()
            for change in _audit(self.remote, event, tools, self.now, _GATEWAY)
        ]

    def _meet(self, tool: str, digest: str, definition: bytes | None) -> None:
        self.news.setdefault(Event.TOOL_PINNED if self.is_first else Event.TOOL_ADDED, []).append(tool)
        if self.is_first or self.mode != "hold":
            self.new.append(self._approved(tool, digest, definition))
        else:
            row = ToolPin(remote=self.remote, tool=tool)
            self.new.append(self._noted(row, digest, definition, [digest]))

    def _approved(self, tool: str, digest: str, definition: bytes | None) -> ToolPin:
        return ToolPin(
            remote=self.remote, tool=tool, sha256=digest, definition=definition, approved_at=self.now,
            approved_by=_GATEWAY, seen_sha256=digest, seen_at=self.now,
        )  # fmt: skip

    def _noted(self, row: ToolPin, digest: str, definition: bytes | None, reported: list[str]) -> ToolPin:
        is_told = len(reported) > len(row.reported)
        return ToolPin(
            remote=self.remote, tool=row.tool, sha256=row.sha256, seen_sha256=digest,
            seen_definition=None if digest == row.sha256 else definition, seen_at=self.now,
            reported=reported, reported_at=self.now if is_told else row.reported_at,
        )  # fmt: skip

    def _told(self, row: ToolPin, digest: str, event: str) -> list[str]:
        """What has been reported of the tool, this change included if it is news."""
        reported: list[str] = row.reported
        if not is_news(reported, digest, row.reported_at, self.now):
            return reported
        self.news.setdefault(event, []).append(row.tool)
        return [*reported, digest]


def _lock(remote: str) -> None:
    """One look or approval at a time: where rows can be locked, the remote's own is."""
    RemoteHealth.objects.get_or_create(name=remote)
    RemoteHealth.objects.select_for_update().get(name=remote)


def _known(remote: str) -> QuerySet[ToolPin]:
    return ToolPin.objects.filter(remote=remote).defer("definition", "seen_definition")


def _is_met(remote: str) -> bool:
    """A remote whose tools all went is no stranger: what it comes back with is new."""
    return RemoteEvent.objects.filter(remote=remote, event=Event.TOOL_PINNED).exists()


def _forget_the_oldest(remote: str) -> None:
    """A remote that renames its tools for ever leaves no trail that grows for ever."""
    too_many = ToolPin.objects.filter(remote=remote).count() - PINS_MAX
    if too_many > 0:
        oldest = ToolPin.objects.filter(remote=remote, seen_sha256=GONE).order_by("seen_at", "pk")
        ToolPin.objects.filter(pk__in=list(oldest.values_list("pk", flat=True)[:too_many])).delete()


def _refuse_another(rows: list[ToolPin], sha256: str) -> None:
    if sha256 and any(not row.seen_sha256.startswith(sha256.lower()) for row in rows):
        raise GatewayError(
            "conflict",
            "it is no longer what was looked at: it has changed once more",
            hint="look again with: mcp tools diff",
            exit_code=Exit.CONFLICT,
            sha256=rows[0].seen_sha256,
        )


def _audit(remote: str, event: str, tools: list[str], now: datetime, actor: str) -> list[ToolChange]:
    """Write the events; what is beyond the remote's share of the hour is not written and not told."""
    groups = [tools] if event == Event.TOOL_PINNED or len(tools) > EACH_MAX else [[tool] for tool in tools]
    if event != Event.TOOL_APPROVED:
        spent = RemoteEvent.objects.filter(remote=remote, event__in=_WORDS, at__gt=now - timedelta(hours=1)).count()
        groups = groups[: max(0, EVENTS_PER_HOUR_MAX - spent)]
    made = [ToolChange(event, remote, len(group), tuple(group[:EACH_MAX])) for group in groups]
    for one in made:
        RemoteEvent.objects.create(
            at=now, event=event, remote=remote, tool=one.named[0] if one.tools == 1 else "", actor=actor[:200],
            detail={"tools": one.tools, "named": list(one.named)} if one.tools > 1 else {},
        )  # fmt: skip
    return made
