"""What monitoring has written down, read back."""

from dataclasses import dataclass
from datetime import datetime

from monitoring.models import Heartbeat


@dataclass(frozen=True, slots=True)
class Beat:
    """The last sign of life, and how many tasks the process had run by then, `failed` of them in vain."""

    at: datetime
    tasks: int
    failed: int


def last_beat(process: str) -> Beat | None:
    """When `process` was last known to live; None when it never was."""
    row = Heartbeat.objects.filter(process=process).values_list("at", "tasks", "failed").first()
    return Beat(*row) if row else None
