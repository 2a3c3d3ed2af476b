"""Writing down how remotes are: one row each, the last that was seen."""

from datetime import datetime
from typing import Any

from django.utils import timezone

from remotes.models import RemoteHealth


def record_health(name: str, **facts: Any) -> None:
    """Overwrite what is known of one remote. A `healthy` one was also last seen well now."""
    facts.setdefault("checked_at", timezone.now())
    if facts.get("status") == "healthy":
        facts.setdefault("last_ok_at", facts["checked_at"])
    RemoteHealth.objects.update_or_create(name=name, defaults=facts)


def claim_probe(name: str, seen: datetime | None) -> bool:
    """Whether it is the caller's to probe a remote now. `seen`: when it was last looked at, as far as the caller knows.

    Of several machines that find the same remote due, the one that writes first has it; a loser has nothing to do.
    """
    now = timezone.now()
    if seen is None and RemoteHealth.objects.get_or_create(name=name, defaults={"checked_at": now})[1]:
        return True
    return bool(RemoteHealth.objects.filter(name=name, checked_at=seen).update(checked_at=now))
