"""What the machine says: disk and clock. Reads, never changes or decides anything."""

import ctypes
import os
from pathlib import Path

from monitoring.health import Disk

MIB = 1024 * 1024
# Below this a write may fail at any moment; SQLite on a full disk is worse than an error.
DISK_RESERVE_MB = 8
# A commit, a change of the configuration and its backup make this many files before they are done.
INODES_RESERVE = 8

_TIME_ERROR = 5
# struct timex is 208 bytes on the 64-bit systems we know; the kernel writes no more than that.
_TIMEX_BYTES = 512


def disk(folder: Path) -> Disk:
    """The file system under `folder`, which need not exist yet."""
    existing = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
    try:
        found = os.statvfs(existing)
    except OSError:
        return Disk(stopped_writes=True)
    free_mb = found.f_bavail * found.f_frsize / MIB
    # As `df` counts: of what a user may fill, not of what is reserved for root.
    used = found.f_blocks - found.f_bfree
    percent = 100 * used / max(used + found.f_bavail, 1)
    # Some file systems (btrfs) have no fixed number of inodes, and say none.
    free_inodes = found.f_favail if found.f_files else None
    short = free_mb < DISK_RESERVE_MB or (free_inodes is not None and free_inodes < INODES_RESERVE)
    is_read_only = bool(found.f_flag & os.ST_RDONLY)
    return Disk(round(percent, 1), round(free_mb, 1), free_inodes, stopped_writes=short or is_read_only)


def clock_synchronised() -> bool | None:
    """What the kernel says of the system clock; None where it does not say."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    state: int = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR
