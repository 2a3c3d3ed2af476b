"""What a process uses: memory, CPU, open files. Reads, never changes or decides anything."""

import threading
import time
from collections import deque
from dataclasses import dataclass

import psutil

MIB = 1024 * 1024
# CPU is an average over this window: long enough to mean something, short enough to be news.
CPU_WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Process:
    """What one process uses. `cpu_percent` is of one core."""

    rss_mb: float = 0.0
    cpu_percent: float = 0.0
    open_files: int = 0


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


def of(pid: int, *, over_s: float = 0.1) -> Process | None:
    """Another process as it is now, watched for `over_s` (0: its CPU is not asked for); None when it is gone or not ours
    to look at."""
    try:
        watched = psutil.Process(pid)
        cpu_percent = watched.cpu_percent(interval=over_s) if over_s else 0.0
        return Process(watched.memory_info().rss / MIB, cpu_percent, watched.num_fds())
    except psutil.Error:
        return None
