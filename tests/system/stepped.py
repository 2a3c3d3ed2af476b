"""A clock that is set while processes run: libfaketime shows them another wall time, as a step of the real clock would.

Monotonic time goes on as the kernel counts it, and so do the stamps of files; a process sees the step within a second.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.system.tools import in_ci

LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")
HOUR_S = 3600.0
# libfaketime 0.9.10 moves the end of an absolute sleep by its offset also where monotonic time is left alone (EINVAL, or hours).
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"


class Clock:
    """`environment` makes a process and its children see this clock."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.ahead_s = 0.0
        self.set(0)
        (folder / "sitecustomize.py").write_text(SLEEP)
        self.environment = {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": str(folder),
        }

    def set(self, hours: float) -> None:
        """So far ahead of the real clock, from now on."""
        self.ahead_s = hours * HOUR_S
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{self.ahead_s:+.0f}\n")
        fresh.replace(self._file)

    def now(self) -> float:
        return time.time() + self.ahead_s


def _library() -> str:
    found = [str(path) for pattern in LIBRARIES for path in Path("/").glob(pattern.lstrip("/"))]
    if not found:
        words = "libfaketime is not installed (Debian: faketime)"
        pytest.fail(words) if in_ci() else pytest.skip(words)
    return found[0]
