"""What monitoring writes: signs of life."""

from datetime import datetime

from monitoring.models import Heartbeat


def record_beat(process: str, *, at: datetime) -> None:
    """`process` was alive at `at`."""
    Heartbeat.objects.update_or_create(process=process, defaults={"at": at})
