"""What monitoring does regularly. Celery's beat runs it; the schedule is in `mcpserver.celery`."""

from celery import shared_task

from mcpserver.lib.clock import SystemClock
from monitoring import services


@shared_task(name="monitoring.beat", ignore_result=True)  # type: ignore[untyped-decorator]
def beat() -> None:
    """The proof that tasks are run: not that a process exists, but that work which was due has been done."""
    services.record_beat("worker", at=SystemClock().now())
