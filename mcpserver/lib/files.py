"""Writing a file so that every reader, and every crash, finds the old content or the new, never a part.

A new content is written beside the file, synced, renamed over it, and the folder is synced. `Staged` keeps the two halves
apart for a caller that must do something (commit a transaction) between "it is on the disk" and "it is in place". A lock is
the kernel's: it ends with its holder, however that ends.

It never follows what a symlink used to point to: the link stays, its target is replaced.
"""

import fcntl
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mcpserver.lib.errors import Exit, GatewayError

LOCK_WAIT_S = 10.0
# Between two tries: short beside the milliseconds that an edit takes, long beside a busy loop.
_LOCK_POLL_S = 0.02
NEW_FILE_MODE = 0o600
_HOLDER_MAX_BYTES = 1000


class Staged:
    """New content on the disk beside its file. `publish` puts it in place; `discard` forgets it. Either may come once."""

    def __init__(self, path: Path, content: bytes, *, mode: int | None = None) -> None:
        self._target = path.resolve()
        self._temporary = self._target.with_name(f".{self._target.name}.{secrets.token_hex(6)}.tmp")
        try:
            self._write(content, _mode_of(self._target) if mode is None else mode)
        except BaseException:
            self.discard()
            raise

    def _write(self, content: bytes, mode: int) -> None:
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())

    def publish(self) -> None:
        self._temporary.replace(self._target)
        sync_folder(self._target.parent)

    def discard(self) -> None:
        # Gone already, or in a folder that takes nothing: then there is nothing to tidy.
        with suppress(OSError):
            self._temporary.unlink()


def write_atomically(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Replace `path`; an existing file keeps its mode unless one is given, a new one is the owner's alone."""
    staged = Staged(path, content, mode=mode)
    try:
        staged.publish()
    except BaseException:
        staged.discard()
        raise


def sweep(path: Path) -> None:
    """Remove what a crash left beside `path`. Only under the lock that every writer of `path` holds."""
    target = path.resolve()
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(lock_file: Path, *, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold `lock_file` alone on this machine; GatewayError `locked` when that takes longer than `wait_s`."""
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, lock_file, wait_s)
        yield
    finally:
        # Closing gives the lock back. The file stays: removing it would let two holders in.
        os.close(descriptor)


def _acquire(descriptor: int, lock_file: Path, wait_s: float) -> None:
    """Whoever holds it writes into it who they are, for those who wait in vain; only the kernel's lock counts."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise _locked(_holder(descriptor), lock_file, wait_s) from None
            time.sleep(_LOCK_POLL_S)
        else:
            with suppress(OSError):  # On a full disk nobody is named, and the lock holds all the same.
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "command": _command()}).encode(), 0)
            return


def _locked(holder: dict[str, Any], lock_file: Path, wait_s: float) -> GatewayError:
    who = f"{holder['command']} (pid {holder['pid']})" if holder else "another process"
    hint = f"try again, or look at it: ps -fp {holder['pid']}" if holder else "try again"
    message = f"{who} has held {lock_file.name} for {wait_s:g} s"
    return GatewayError("locked", message, hint=hint, exit_code=Exit.CONFLICT, holder=holder or None)


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        told = json.loads(os.pread(descriptor, _HOLDER_MAX_BYTES, 0))
        return {"pid": int(told["pid"]), "command": str(told["command"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _command() -> str:
    """What this process was started as: the first words alone, as later ones may be secrets."""
    program, *words = sys.argv or ["python"]
    shown = words[:3] if program.endswith("manage.py") else [Path(program).name]
    return " ".join(shown)[:100]


def _mode_of(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        return NEW_FILE_MODE
