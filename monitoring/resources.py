"""What the machine says: disk and clock. Reads, never changes or decides anything."""

import ctypes
import shutil
from pathlib import Path

from monitoring.health import Disk

MIB = 1024 * 1024
# Below this a write may fail at any moment; SQLite on a full disk is worse than an error.
DISK_RESERVE_MB = 8

_TIME_ERROR = 5
# struct timex is 208 bytes on the 64-bit systems we know; the kernel writes no more than that.
_TIMEX_BYTES = 512


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
