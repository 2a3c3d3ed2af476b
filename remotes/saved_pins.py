"""Tool pins as a backup holds them, and bringing them back: fingerprints and who approved them, not the definitions.

A pin is worth most where the database was lost: without it a remote is met for the first time again, and trusted whatever it
says now. So what was approved comes back where nothing is known, and where the gateway itself trusted something else since. What
a person has approved since stands.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from django.db import transaction

from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.errors import GatewayError
from mcpserver.protocol.naming import REMOTE
from remotes.models import RemoteEvent, ToolPin
from remotes.pinning import UNAPPROVED

TRUSTED_BY = "gateway"
_TOOL_MAX = 512
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CLOCK = SystemClock()


class SavedPin(NamedTuple):
    remote: str
    tool: str
    sha256: str
    approved_at: datetime
    approved_by: str


def exported() -> dict[str, dict[str, list[str]]]:
    """What is approved, by remote and the remote's own name of the tool."""
    found: dict[str, dict[str, list[str]]] = {}
    rows = ToolPin.objects.exclude(sha256=UNAPPROVED).exclude(approved_at=None)
    for row in rows.values_list("remote", "tool", "sha256", "approved_at", "approved_by").iterator():
        remote, tool, sha256, approved_at, approved_by = row
        assert approved_at is not None
        found.setdefault(remote, {})[tool] = [sha256, approved_at.isoformat(), approved_by]
    return found


def read(document: Any) -> list[SavedPin]:
    """GatewayError `invalid_backup` for what `exported` never gives."""
    try:
        return [_pin(remote, tool, *facts) for remote, tools in document.items() for tool, facts in tools.items()]
    except (AttributeError, TypeError, ValueError):
        raise GatewayError("invalid_backup", "the tool pins in this backup are none") from None


def lacking(saved: Iterable[SavedPin]) -> list[SavedPin]:
    """Those that `restore` would bring back."""
    present = {(row.remote, row.tool): row for row in ToolPin.objects.defer("definition", "seen_definition")}
    return [pin for pin in saved if _is_lacking(pin, present.get((pin.remote, pin.tool)))]


def restore(saved: Iterable[SavedPin], *, actor: str, clock: Clock = _CLOCK) -> list[SavedPin]:
    """All or none, with an event for each remote: it is also the news that workers wait for."""
    now = clock.now()
    with transaction.atomic():
        pins = lacking(saved)
        for pin in pins:
            approved = {"sha256": pin.sha256, "approved_at": pin.approved_at, "approved_by": pin.approved_by}
            ToolPin.objects.update_or_create(
                remote=pin.remote, tool=pin.tool,
                defaults=approved | {"definition": None, "reported": [], "reported_at": None},
                create_defaults=approved | {"seen_sha256": pin.sha256, "seen_at": now},
            )  # fmt: skip
        for remote in sorted({pin.remote for pin in pins}):
            tools = [pin.tool for pin in pins if pin.remote == remote]
            RemoteEvent.objects.create(
                at=now, event=RemoteEvent.Event.TOOL_PINNED, remote=remote, actor=actor[:200],
                detail={"tools": len(tools), "named": tools[:20], "restored": True},
            )  # fmt: skip
    return pins


def _is_lacking(pin: SavedPin, row: ToolPin | None) -> bool:
    if row is None or row.sha256 == UNAPPROVED:
        return True
    is_later = row.approved_at is None or row.approved_at > pin.approved_at
    return row.sha256 != pin.sha256 and row.approved_by == TRUSTED_BY and is_later


def _pin(remote: str, tool: str, sha256: str, approved_at: str, approved_by: str) -> SavedPin:
    if not REMOTE.fullmatch(remote) or not 0 < len(tool) <= _TOOL_MAX or not _SHA256.fullmatch(sha256):
        raise ValueError(tool)
    moment = datetime.fromisoformat(approved_at)
    if moment.tzinfo is None or not isinstance(approved_by, str):
        raise ValueError(tool)
    return SavedPin(remote, tool, sha256, moment, approved_by[:200])
