"""Celery: what runs on a schedule. With REDIS_URL it is a normal broker; without, one worker that holds everything itself.

Without Redis the broker is this process's memory, a threads pool works and beat is a thread beside it (Celery's filesystem
broker was measured to kill its worker and to lose tasks, and a beat of its own outlives a killed worker and doubles the
schedule). A task sent by any other process would then vanish: there it runs at once, in place, and its error is raised.

With Redis the queue is this machine's own: each machine has a beat and a worker, and what one sends no other does for it. What is
to be done once among all of them (a probe of an address) is claimed in the database.

Configuration is a loader, so that a task module imported anywhere finds it, and no command pays for importing Celery.
"""

import os
from importlib.util import find_spec
from typing import Any

from celery import Celery
from celery.loaders.base import BaseLoader
from celery.signals import task_postrun, task_prerun

from mcpserver.lib import node
from mcpserver.lib.clock import steady_now

# Task, interval in seconds. A task that could not start within its interval is dropped: the next one is due.
SCHEDULE: dict[str, float] = {
    "monitoring.beat": 10.0,
    # Looks whether the day has its backup.
    "monitoring.backup": 60.0,
    # Deletes calls that are too old or too many.
    "monitoring.prune_calls": 60.0,
    # Looks for remotes that are due, each at its own probe_interval.
    "remotes.probe": 5.0,
}
# Set by `celery_worker`: only there is the memory broker read by anyone.
IN_WORKER = "MCP_CELERY_WORKER"
THREADS = 4


def configuration(
    redis_url: str, *, in_worker: bool, schedule: dict[str, float] | None = None, queue: str = "mcp"
) -> dict[str, Any]:
    """All that differs between the two ways, and what both share."""
    shared: dict[str, Any] = {
        "timezone": "UTC",
        "imports": task_modules(),
        "task_ignore_result": True,
        "task_default_queue": queue,
        # Tasks hold their own deadlines; a task lost with its worker is run again, so each must bear that.
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": False,
        "broker_connection_retry_on_startup": True,
        # No schedule file: what was due while nothing ran is not caught up.
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_schedule": {name: _every(name, seconds) for name, seconds in (schedule or SCHEDULE).items()},
    }
    if redis_url:
        return shared | {
            "broker_url": redis_url,
            "broker_transport_options": {"socket_connect_timeout": 5, "socket_timeout": 5},
        }
    return shared | {
        "broker_url": "memory://localhost/",
        "task_always_eager": not in_worker,
        "task_eager_propagates": True,
        # Nobody else can reach this memory: no control messages to wait for.
        "worker_enable_remote_control": False,
    }


def task_modules() -> tuple[str, ...]:
    modules = (f"{app}.tasks" for app in ("keys", "remotes", "gateway", "monitoring"))
    return tuple(module for module in modules if find_spec(module))


def _every(name: str, seconds: float) -> dict[str, Any]:
    from celery.schedules import schedule

    # Celery measures by the wall clock: set back by an hour, nothing would be due for an hour.
    return {"task": name, "schedule": schedule(seconds, nowfun=steady_now), "options": {"expires": seconds}}


class Loader(BaseLoader):  # type: ignore[misc]  # celery has no types
    """How an app without words of its own learns ours: named by CELERY_LOADER, see `apps`."""

    def read_configuration(self, env: str = "") -> dict[str, Any]:
        from django.conf import settings

        is_worker = os.environ.get(IN_WORKER) == str(os.getpid())
        queue = f"mcp-{node.name(settings.MCP_RUN_DIR)}" if settings.REDIS_URL else "mcp"
        return configuration(settings.REDIS_URL, in_worker=is_worker, queue=queue)


# Without Celery's Django fixup, which runs every system check of the project in each worker; what it does for connections
# is done here: a task begins without stale ones (a restarted PostgreSQL is lost for ever otherwise).
app = Celery("mcpserver", loader="mcpserver.celery:Loader", fixups=[])


@task_prerun.connect  # type: ignore[untyped-decorator]
@task_postrun.connect  # type: ignore[untyped-decorator]
def drop_stale_connections(**_: object) -> None:
    from django.db import close_old_connections

    if not app.conf.task_always_eager:  # In place, the caller's connection and transaction are the task's.
        close_old_connections()
