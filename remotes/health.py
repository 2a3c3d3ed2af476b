"""Writing down how remotes are: one row each, the last that was seen."""

from typing import Any

from django.utils import timezone

from remotes.models import RemoteHealth


def record_health(name: str, **facts: Any) -> None:
    """Overwrite what is known of one remote. A `healthy` one was also last seen well now."""
    facts.setdefault("checked_at", timezone.now())
    if facts.get("status") == "healthy":
        facts.setdefault("last_ok_at", facts["checked_at"])
    RemoteHealth.objects.update_or_create(name=name, defaults=facts)
