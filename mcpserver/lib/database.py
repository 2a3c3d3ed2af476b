"""The database, reached from the event loop without ever stopping it.

Django's ORM blocks, and asgiref's `sync_to_async` gives it one thread for everything: one query that hangs would stop
key refresh, config polling and health alike. This is the only way from the loop to the ORM: two threads of its own, a
bounded queue, a deadline per call, and connections that are dropped first when they have gone stale (outside Django's
request cycle nobody else does that, and a restarted PostgreSQL would be lost for ever).

It never retries: whether losing a call matters is known by who made it. Code that is synchronous anyway (commands,
Celery tasks) calls the ORM directly.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Barrier
from typing import ParamSpec, TypeVar

from django.apps import apps
from django.db import InterfaceError, OperationalError, ProgrammingError, close_old_connections, connection

from mcpserver.lib.errors import GatewayError

THREADS = 2
# Far above what a healthy worker ever has waiting: reaching it means that the database hangs.
WAITING_MAX = 64
# For the threads to be there, all of them.
START_S = 1.0
TIMEOUT_S = 5.0
# What Django raises when the database is away, locked, full, or has no tables (SQLite and PostgreSQL name that differently).
UNUSABLE = (OperationalError, InterfaceError, ProgrammingError)

P = ParamSpec("P")
R = TypeVar("R")

_under_way = 0


async def in_database(fn: Callable[..., R], *args: object, timeout_s: float = TIMEOUT_S) -> R:
    """Run `fn(*args)` in a database thread.

    GatewayError `database_timeout` after `timeout_s` (waiting for a thread counts), `database_busy` when too many calls
    wait, `database` when the database cannot be reached. A call that timed out while it ran may still take effect.
    """
    global _under_way
    if _under_way >= THREADS + WAITING_MAX:
        raise GatewayError("database_busy", f"{WAITING_MAX} database calls are waiting already")
    future = asyncio.get_running_loop().run_in_executor(_threads(), _run, fn, args)
    _under_way += 1
    try:
        # Not shielded: a call that still waits for a thread is taken out of the queue when its deadline passes.
        async with asyncio.timeout(timeout_s) as deadline:
            return await future
    except TimeoutError:
        if not deadline.expired():
            raise
        raise GatewayError("database_timeout", f"the database did not answer within {timeout_s:g} s") from None
    except UNUSABLE as error:
        raise unavailable(error) from error
    finally:
        _under_way -= 1


def unavailable(error: Exception) -> GatewayError:
    """What people and programs are told when the database refuses or cannot be reached."""
    words = " ".join(str(error).split()) or type(error).__name__
    if "disk is full" in words:
        hint = "make space, with: mcpbackup prune --keep 3; what uses it: du -sh */ | sort -h"
        return GatewayError("disk_full", "the database cannot be used: the disk is full", hint=hint)
    missing_table = "no such table" in words or "does not exist" in words
    return GatewayError(
        "database",
        f"the database cannot be used: {words}",
        hint="create its tables with: .venv/bin/python manage.py migrate"
        if missing_table
        else "check DATABASE_URL, the disk and the server",
    )


def unapplied() -> list[str]:
    """The migrations of this version that the database has not seen: a look at file names and one table, not Django's loader,
    which imports them all. Raises what UNUSABLE names where nobody can tell."""
    with connection.cursor() as cursor:
        seen: set[tuple[str, ...]] = set()
        if "django_migrations" in connection.introspection.table_names(cursor):
            cursor.execute("SELECT app, name FROM django_migrations")
            seen = set(cursor.fetchall())
    files = (
        (config.label, path.stem)
        for config in apps.get_app_configs()
        for path in (Path(config.path) / "migrations").glob("[0-9]*.py")
    )
    return sorted(f"{app}.{name}" for app, name in files if (app, name) not in seen)


@cache
def _threads() -> ThreadPoolExecutor:
    """All at once: one that is only started when it is needed may not be there to be had by then."""
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database")
    everyone = Barrier(THREADS)
    for _ in range(THREADS):
        threads.submit(everyone.wait, START_S)
    return threads


def _run(fn: Callable[..., R], args: tuple[object, ...]) -> R:
    # Before and after, as Django does around a request.
    close_old_connections()
    try:
        return fn(*args)
    finally:
        close_old_connections()
