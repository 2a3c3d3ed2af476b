"""Room for SQLite to open its database on a full disk.

A database in WAL mode has an index that every process maps into memory. Whoever opens it after its last holder was killed makes
that file anew; where the disk has no block left for a page of it, touching the page is no error but SIGBUS, and the process
is gone without a word (ext4; tmpfs never does it). So before a connection is made the disk is looked at. If it is full and
nobody holds the database open, a file that was kept for that moment, the ballast, is given up; is there none, the opening fails
with words. The ballast is made again by the first connection that finds space.

It never touches the database, nor its index: closing any descriptor of a file takes away all locks that this process has on it.
"""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

BALLAST_BYTES = 1024 * 1024
# The index takes 32 KiB, a commit of ours some pages of the log.
ROOM_BYTES = 256 * 1024
# Beyond this the disk is not asked for more than its figures.
PLENTY_BYTES = 4 * (BALLAST_BYTES + ROOM_BYTES)
# The byte of the index on which every open connection has a lock (UNIX_SHM_DMS of SQLite).
_HELD_BYTE = "128"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def beside(database: Path) -> Path:
    """Where the ballast of a database lies."""
    return database.with_name(f"{database.name}-ballast")


def make_room(database: Path) -> None:
    """Called before `database` is opened. OSError (ENOSPC) where that would end the process."""
    folder, ballast = database.parent, beside(database)
    if _free_bytes(folder) >= PLENTY_BYTES:
        _keep(ballast)
    elif not _has_room(folder) and not is_held(database):
        with suppress(OSError):
            ballast.unlink()
        if not _has_room(folder):
            raise OSError(errno.ENOSPC, "the disk is full", str(folder))


def is_held(database: Path) -> bool:
    """Whether some process has the database open: then its index is whole, and opening it takes no space."""
    try:
        inode = os.stat(f"{database}-shm").st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    return locks_index(locks.splitlines(), inode)


def locks_index(lines: Iterable[str], inode: int) -> bool:
    """Whether one of the lines of /proc/locks is a connection's lock on the index with this inode."""
    # `1: POSIX  ADVISORY  READ 5087 fd:00:12345 128 128`; whoever waits has `->` after the number.
    fields = (line.split() for line in lines)
    return any(
        len(one) == 8 and one[1] == "POSIX" and one[5].endswith(f":{inode}") and one[6] == _HELD_BYTE for one in fields
    )


def _free_bytes(folder: Path) -> int:
    """What any user may fill. A folder that is not there is somebody else's error: plenty, and nothing is made there."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return PLENTY_BYTES
    return found.f_bavail * found.f_frsize


def _has_room(folder: Path) -> bool:
    """By taking it for a moment: reserved blocks and quotas are in no figure."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return error.errno not in _FULL
    try:
        os.posix_fallocate(descriptor, 0, ROOM_BYTES)
    except OSError as error:
        return error.errno not in _FULL
    finally:
        os.close(descriptor)
    return True


def _keep(ballast: Path) -> None:
    """Made where there is none. A folder that cannot be written has none: then nobody opens for writing there either."""
    if ballast.exists():
        return
    with suppress(OSError):
        descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, BALLAST_BYTES)
        finally:
            os.close(descriptor)
