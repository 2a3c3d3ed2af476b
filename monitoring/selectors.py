"""What monitoring has written down, read back."""

from datetime import datetime

from monitoring.models import Heartbeat


def last_beat(process: str) -> datetime | None:
    """When `process` was last known to live; None when it never was."""
    return Heartbeat.objects.filter(process=process).values_list("at", flat=True).first()
