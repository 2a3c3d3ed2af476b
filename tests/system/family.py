"""Every process of one gateway, wherever it has ended up: found by the folder that its environment names."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil


def family(folder: Path) -> dict[int, str]:
    """Pid and command line of what lives. A program of a remote must be given the folder by its entry."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if any(str(folder) in value for value in process.environ().values()):
                found[process.pid] = " ".join(process.cmdline()[-3:])
    return found


def ended(folder: Path, *, within_s: float) -> float:
    """Wait until nobody is left; the seconds it took."""
    began = time.monotonic()
    while left := family(folder):
        assert time.monotonic() - began < within_s, left
        time.sleep(0.05)
    return time.monotonic() - began
