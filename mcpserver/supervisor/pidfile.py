"""The pid file: one supervisor per MCP_RUN_DIR, proven by a lock and not by a number.

The lock ends with the process that holds it, however it ends, so a stale file never keeps anyone from starting, and the pid in
a locked file is never somebody else's. Used before anything is installed too: standard library only.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcpserver.lib.errors import Exit, GatewayError

NAME = "supervisor.pid"


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Own the pid file while the block runs; GatewayError `already_running` when somebody else does.

    True where the last owner was killed: it did not empty the file, and its children may just be leaving.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _lock(descriptor):
            raise already_running(_written(descriptor))
        was_killed = _written(descriptor) is not None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            yield was_killed
        finally:
            # Emptied, not removed: two starters could each lock a different file of the same name.
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def owner(folder: Path) -> int | None:
    """The pid of the supervisor that runs in `folder`; None when there is none."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _lock(descriptor) else _written(descriptor)
    finally:
        os.close(descriptor)


def wait_until_free(folder: Path, *, timeout_s: float) -> bool:
    """Whether the owner ended in time."""
    deadline = time.monotonic() + timeout_s
    while owner(folder) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def already_running(pid: int | None) -> GatewayError:
    who = f"pid {pid}" if pid else "another process"
    return GatewayError(
        "already_running",
        f"the gateway is already running ({who})",
        hint="stop it with: mcpserver stop",
        exit_code=Exit.CONFLICT,
        pid=pid,
    )


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _written(descriptor: int) -> int | None:
    """None in the instant between another's lock and its pid; 0 would read as a claim."""
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
