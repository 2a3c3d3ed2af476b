"""Writing a file so that every reader, and every crash, finds the old content or the new, never a part.

A new content is written beside the file, synced, renamed over it, and the folder is synced. `Staged` keeps the two halves
apart for a caller that must do something (commit a transaction) between "it is on the disk" and "it is in place". A lock is
the kernel's: it ends with its holder, however that ends.

It never follows what a symlink used to point to: the link stays, its target is replaced.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mcpserver.lib.errors import Exit, GatewayError

LOCK_WAIT_S = 10.0
# Between two tries: short beside the milliseconds that an edit takes, long beside a busy loop.
_LOCK_POLL_S = 0.02
NEW_FILE_MODE = 0o600


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
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                message = f"another process has held {lock_file.name} for {wait_s:g} s"
                raise GatewayError("locked", message, hint="try again", exit_code=Exit.CONFLICT) from None
            time.sleep(_LOCK_POLL_S)
        else:
            return


def _mode_of(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        return NEW_FILE_MODE
