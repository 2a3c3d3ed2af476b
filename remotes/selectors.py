"""What others may ask about configuration and remotes. Never writes, never contacts anything."""

from typing import Any

from remotes.config import following, revisions
from remotes.models import RemoteHealth

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


def pending_error() -> list[dict[str, Any]] | None:
    """The problems of an edit that this process saw and did not apply."""
    return following.pending_error()


def health() -> dict[str, dict[str, Any]]:
    """The last probe of every remote that was ever probed, by name; times are datetimes in UTC."""
    return {row.pop("name"): row for row in RemoteHealth.objects.order_by("name").values("name", *_FACTS)}
