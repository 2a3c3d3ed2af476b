"""What monitoring writes: signs of life."""

from datetime import datetime

from monitoring.models import Heartbeat


def record_beat(process: str, *, at: datetime, tasks: int = 0, failed: int = 0) -> None:
    """`process` was alive at `at`, and had run so many tasks."""
    facts = {"at": at, "tasks": tasks, "failed": failed}
    Heartbeat.objects.update_or_create(process=process, defaults=facts)
