"""Keeping a worker inside its limits of memory, CPU and open files: what is over one takes no new streams until well below.

Calls go on whatever is over: they are short, and bounded already. Memory that does not come down again is the supervisor's
matter, which replaces the worker. Decides first, in pure functions; what follows them does.
"""

import ctypes
import gc
import logging
import resource
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from mcpserver.lib.limits import Limits
from mcpserver.lib.usage import Process, Usage

log = logging.getLogger("mcp.gateway")

# Streams are refused from this share of the memory on, and taken again below the second.
MEMORY_SHEDS_AT, MEMORY_RESUMES_AT = 0.90, 0.85
CPU_HYSTERESIS_POINTS = 10
# Files that no connection may take: the database, the log and the remotes need some when everything else is full.
RESERVED_FILES = 64
RETRY_AFTER_S = 10


def shedding(before: Collection[str], used: Process, limits: Limits) -> tuple[str, ...]:
    """Which of `memory`, `cpu` and `files` are over their limit; `before`: which were, when it was last judged."""
    memory_at = limits.max_memory_mb * (MEMORY_RESUMES_AT if "memory" in before else MEMORY_SHEDS_AT)
    cpu_at = _cpu_resumes_at(limits) if "cpu" in before else limits.max_cpu_percent
    files_at = limits.max_open_files - RESERVED_FILES - (RESERVED_FILES if "files" in before else 0)
    over = {"memory": used.rss_mb > memory_at, "cpu": used.cpu_percent > cpu_at, "files": used.open_files > files_at}
    return tuple(name for name, is_over in over.items() if is_over)


def _cpu_resumes_at(limits: Limits) -> float:
    return max(limits.max_cpu_percent - CPU_HYSTERESIS_POINTS, limits.max_cpu_percent / 2)


def room(used: Process, connections: int, limits: Limits) -> int:
    """How many connections of clients may be open in all: what the files leave that something else holds."""
    others = max(0, used.open_files - connections)
    return max(1, limits.max_open_files - RESERVED_FILES - others)


def limit_open_files(limits: Limits) -> None:
    """Set this process's soft limit, as far as the hard one allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_open_files if hard == resource.RLIM_INFINITY else min(limits.max_open_files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def measured(usage: Usage, before: Process, limits: Limits) -> Process:
    """What is used now. Who is so short of files that /proc cannot be opened knows at least that."""
    try:
        return usage.read()
    except OSError as error:
        log.warning("what is used cannot be read: %s", error.strerror)
        return replace(before, open_files=limits.max_open_files)


def as_the_system_has_it(limits: Limits) -> Limits:
    """`limits`, where the system allows this process fewer open files than they do."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        limits if soft == resource.RLIM_INFINITY else replace(limits, max_open_files=min(limits.max_open_files, soft))
    )


def give_back_memory() -> None:
    """What nobody holds any more goes back to the system: cycles that wait to be collected, and pages that are kept free."""
    gc.collect()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
