"""What others may ask about configuration and remotes. Never writes, never contacts anything."""

from typing import Any

from remotes.config import following, revisions
from remotes.models import RemoteEvent, RemoteHealth, ToolPin
from remotes.pinning import Pin

_FACTS = ("status", "checked_at", "latency_ms", "era", "transport", "tools", "phase", "error", "last_ok_at")


def head() -> tuple[int, str, str] | None:
    """Number, sha256 and text of the revision that runs; None before the first."""
    found = revisions.head()
    return (found.number, found.sha256, found.text) if found else None


def head_number() -> int:
    """Cheap enough for every second; 0 before the first."""
    return revisions.head_number()


def revision_text(number: int) -> str | None:
    return revisions.text_of(number)


def history(limit: int) -> list[dict[str, Any]]:
    """The last revisions with actor and time, newest first."""
    return revisions.history(limit)


def ever_ran(sha256: str) -> bool:
    """Whether a text with this checksum is a revision."""
    return revisions.is_known(sha256)


def pending_error() -> list[dict[str, Any]] | None:
    """The problems of an edit that this process saw and did not apply."""
    return following.pending_error()


def health() -> dict[str, dict[str, Any]]:
    """The last probe of every remote that was ever probed, by name; times are datetimes in UTC."""
    return {row.pop("name"): row for row in RemoteHealth.objects.order_by("name").values("name", *_FACTS)}


def newest_tool_event() -> int:
    """Moves with every change and approval of a tool; 0 before the first. Cheap enough for every second."""
    return (
        RemoteEvent.objects.filter(event__startswith="tool_").order_by("-pk").values_list("pk", flat=True).first() or 0
    )


def tool_pins() -> dict[str, dict[str, Pin]]:
    """Every pin, by remote and by the remote's own name of the tool; a remote that was met has an entry, with pins or without."""
    met = RemoteEvent.objects.filter(event=RemoteEvent.Event.TOOL_PINNED).values_list("remote", flat=True).distinct()
    found: dict[str, dict[str, Pin]] = {remote: {} for remote in met}
    for remote, tool, sha256, seen in ToolPin.objects.values_list("remote", "tool", "sha256", "seen_sha256").iterator():
        found.setdefault(remote, {})[tool] = Pin(sha256, seen)
    return found


def tools_seen() -> dict[str, list[str]]:
    """The tools that each remote listed when it was last looked at, under its own names."""
    found: dict[str, list[str]] = {}
    for remote, tool in ToolPin.objects.exclude(seen_sha256="").values_list("remote", "tool"):
        found.setdefault(remote, []).append(tool)
    return found
