"""The folder of backups: files named by time and kind, the newest of each kind, and `backup-latest.json`, a copy of the newest.

Whoever writes or removes holds the folder's lock. A file is complete when it has its name: it was written beside it and
synced. What does not carry such a name is somebody else's and is never touched.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcpserver.lib import files
from mcpserver.lib.errors import Exit, GatewayError
from monitoring.backups.document import KINDS, MAX_BYTES, Kind

LATEST = "backup-latest.json"
_LOCK = ".lock"
_LEFTOVERS = ".backup-*.tmp"
_NAME = re.compile(rf"backup-(\d{{8}}T\d{{6}})Z-(\d{{6}})-({'|'.join(KINDS)})\.json", flags=re.ASCII)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup by what its name and `stat` tell; nothing of it was read."""

    path: Path
    kind: Kind
    at: datetime
    size: int


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time; GatewayError `locked`, `disk_full` or `read_only`."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            stack.enter_context(files.locked(folder / _LOCK))
            for leftover in folder.glob(_LEFTOVERS):  # of whoever was killed while it held the lock
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None
        yield


def put(folder: Path, content: bytes, *, kind: Kind, at: datetime, becomes_latest: bool) -> Path:
    """Under the lock: a new file, and the copy that is the latest. Both are on the disk before either has its name."""
    path = folder / f"backup-{at.astimezone(UTC):%Y%m%dT%H%M%SZ-%f}-{kind}.json"
    with ExitStack() as stack:
        try:
            staged = [files.Staged(path, content)]
            stack.callback(staged[0].discard)
            if becomes_latest:
                staged.append(files.Staged(folder / LATEST, content, mode=files.NEW_FILE_MODE))
                stack.callback(staged[1].discard)
            for one in staged:
                one.publish()
        except OSError as error:
            raise unwritable(folder, error) from None
    return path


def kept(folder: Path) -> list[Kept]:
    """Newest first."""
    found = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return []
    for entry in entries:
        match = _NAME.fullmatch(entry.name)
        if match is None or not entry.is_file(follow_symlinks=False):
            continue
        at = _time(match[1], match[2])
        if at is not None:
            found.append(Kept(folder / entry.name, _kind(match[3]), at, entry.stat(follow_symlinks=False).st_size))
    return sorted(found, key=lambda one: (one.at, one.path.name), reverse=True)


def latest(folder: Path) -> Path | None:
    """The copy that is the latest, if there is one; GatewayError `unreadable` where that cannot be seen."""
    path = folder / LATEST
    try:
        return path if stat.S_ISREG(path.stat().st_mode) else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        hint = f"whose is it? ls -ld {folder}"
        raise GatewayError("unreadable", f"{folder} cannot be read: {error.strerror}", hint=hint) from None


def summary(folder: Path) -> dict[str, Any]:
    """For a status: how many there are, and the newest of them."""
    found = kept(folder)
    newest = found[0] if found else None
    if newest is None:
        return {"count": 0, "newest": None, "newest_at": None, "newest_daily_at": None}
    daily = next((one.at for one in found if one.kind == "daily"), None)
    return {"count": len(found), "newest": newest.path.name, "newest_at": newest.at, "newest_daily_at": daily}


def superfluous(found: list[Kept], keep: int) -> list[Kept]:
    """What is beyond the newest `keep` of its kind."""
    return [one for kind in KINDS for one in [one for one in found if one.kind == kind][keep:]]


def remove(found: list[Kept]) -> None:
    """Under the lock where there is one; needs no space."""
    for one in found:
        one.path.unlink(missing_ok=True)


def content(path: Path) -> bytes:
    """GatewayError `not_found`, `unreadable` or `not_a_backup`."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise GatewayError("not_a_backup", f"{path} is not a file")
            held = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        hint = "see what there is with: mcpbackup list"
        raise GatewayError("not_found", f"there is no {path}", hint=hint, exit_code=Exit.NOT_FOUND) from None
    except OSError as error:
        raise GatewayError("unreadable", f"{path} cannot be read: {error.strerror}") from None
    if len(held) > MAX_BYTES:
        raise GatewayError("not_a_backup", f"{path} is larger than any backup")
    return held


def unwritable(folder: Path, error: OSError) -> GatewayError:
    where = f"{folder} cannot be written"
    if error.errno in _FULL:
        hint = "make space with: mcpbackup prune --keep 3"
        return GatewayError("disk_full", f"{where}: the disk is full", hint=hint)
    if error.errno in _READ_ONLY:
        return GatewayError(
            "read_only", f"{where}: {error.strerror}", hint="set MCP_BACKUP_DIR to a folder that can be"
        )
    return GatewayError("io_error", f"{where}: {error.strerror}", hint="set MCP_BACKUP_DIR to a folder that can be")


def _time(seconds: str, microseconds: str) -> datetime | None:
    try:
        return datetime.strptime(f"{seconds}{microseconds}+0000", "%Y%m%dT%H%M%S%f%z")
    except ValueError:
        return None


def _kind(word: str) -> Kind:
    return next(kind for kind in KINDS if kind == word)
