"""What monitoring does regularly. Celery's beat runs it; the schedule is in `mcpserver.celery`."""

import logging

from celery import shared_task
from celery.signals import task_failure, task_postrun
from django.conf import settings

from mcpserver.lib.clock import SystemClock
from mcpserver.lib.database import UNUSABLE, unavailable
from mcpserver.lib.errors import GatewayError
from monitoring import calls, services
from monitoring.backups import saving

log = logging.getLogger("mcp.backups")
calls_log = logging.getLogger("mcp.calls")


class _Run:
    """What this worker has run since it started. Its threads count without a lock: one lost now and then is no matter."""

    tasks = 0
    failed = 0


_run = _Run()


@task_postrun.connect  # type: ignore[untyped-decorator]
def _count(**_: object) -> None:
    _run.tasks += 1


@task_failure.connect  # type: ignore[untyped-decorator]
def _count_failure(**_: object) -> None:
    _run.failed += 1


@shared_task(name="monitoring.beat", ignore_result=True)  # type: ignore[untyped-decorator]
def beat() -> None:
    """The proof that tasks are run: not that a process exists, but that work which was due has been done."""
    services.record_beat("worker", at=SystemClock().now(), tasks=_run.tasks, failed=_run.failed)


@shared_task(name="monitoring.backup", ignore_result=True)  # type: ignore[untyped-decorator]
def backup() -> None:
    """The backup of the day, where there is none yet: after downtime, at once. What fails is tried again in a minute."""
    try:
        made = saving.daily()
    except UNUSABLE as error:
        log.warning("no backup of this day yet: %s", unavailable(error).message)
    except GatewayError as error:
        log.warning("no backup of this day yet: %s", error.message)
    else:
        if made is not None:
            log.info("backup of this day: %s", made["file"])


@shared_task(name="monitoring.prune_calls", ignore_result=True)  # type: ignore[untyped-decorator]
def prune_calls() -> None:
    """Keep the record of calls within its bounds. Deleting needs no room: on a full disk it is what makes some."""
    limits = settings.LIMITS
    try:
        pruned = calls.prune(SystemClock().now(), rows=limits.calls_keep_rows, days=limits.calls_keep_days)
    except UNUSABLE as error:
        calls_log.warning("calls not pruned yet: %s", unavailable(error).message)
    else:
        if pruned:
            calls_log.info("%d calls pruned from their record", pruned)
