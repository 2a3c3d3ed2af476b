"""What processes and the machine use: memory, CPU, files, disk, clock. Reads, never changes or decides anything."""

import ctypes
import shutil
import threading
import time
from collections import deque
from pathlib import Path

import psutil

from monitoring.health import Disk, Process

MIB = 1024 * 1024
# CPU is an average over this window: long enough to mean something, short enough to be news.
CPU_WINDOW_S = 10.0
# Below this a write may fail at any moment; SQLite on a full disk is worse than an error.
DISK_RESERVE_MB = 8

_TIME_ERROR = 5
# struct timex is 208 bytes on the 64-bit systems we know; the kernel writes no more than that.
_TIMEX_BYTES = 512


class Usage:
    """What a process uses, this one by default. CPU counts between samples, which are at least a second apart."""

    def __init__(self, pid: int | None = None) -> None:
        self._process = psutil.Process(pid)
        self._samples: deque[tuple[float, float]] = deque([(time.monotonic(), self._cpu_s())])
        self._lock = threading.Lock()

    def read(self) -> Process:
        with self._process.oneshot():
            rss_mb = self._process.memory_info().rss / MIB
            open_files = self._process.num_fds()
        return Process(rss_mb=rss_mb, cpu_percent=self._cpu_percent(), open_files=open_files)

    def _cpu_percent(self) -> float:
        with self._lock:
            now, spent = time.monotonic(), self._cpu_s()
            if now - self._samples[-1][0] >= 1:
                self._samples.append((now, spent))
            # The oldest sample that is left is as old as the window or a little older.
            while len(self._samples) > 2 and now - self._samples[1][0] >= CPU_WINDOW_S:
                self._samples.popleft()
            since, spent_then = self._samples[0]
        return 100 * (spent - spent_then) / (now - since) if now > since else 0.0

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


def process(pid: int, *, over_s: float = 0.1) -> Process | None:
    """Another process as it is now, watched for `over_s`; None when it is gone or not ours to look at."""
    try:
        watched = psutil.Process(pid)
        cpu_percent = watched.cpu_percent(interval=over_s)
        return Process(watched.memory_info().rss / MIB, cpu_percent, watched.num_fds())
    except psutil.Error:
        return None


def disk(folder: Path) -> Disk:
    """The file system under `folder`, which need not exist yet."""
    existing = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
    try:
        usage = shutil.disk_usage(existing)
    except OSError:
        return Disk(stopped_writes=True)
    free_mb = usage.free / MIB
    # As `df` counts: of what a user may fill, not of what is reserved for root.
    percent = 100 * usage.used / max(usage.used + usage.free, 1)
    return Disk(percent=round(percent, 1), free_mb=round(free_mb, 1), stopped_writes=free_mb < DISK_RESERVE_MB)


def clock_synchronised() -> bool | None:
    """What the kernel says of the system clock; None where it does not say."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    state: int = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR
