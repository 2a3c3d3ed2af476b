"""Which worker of this machine runs the process of a stdio remote: whoever holds the lock. The others reach it by its socket.

One lock file and one socket in MCP_RUN_DIR for each remote and isolation unit. The kernel gives the lock back when its holder
dies, however it dies. In the file stands the process, so that the next holder can end what a dead one left before it starts
its own.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import signal
from pathlib import Path

import psutil

from mcpserver.lib import control
from mcpserver.lib.processes import born, descendants, send
from remotes.upstream.frames import Link
from remotes.upstream.outcome import Failed, Failure, Fault

# Between taking the lock and listening, and between leaving and giving the lock back, there is nobody to reach.
_LOOK_AGAIN_S = 0.05


class Berth:
    """`unit` is all that tells one process from another: the remote's specification, and whom it is kept apart for."""

    def __init__(self, folder: Path, name: str, unit: bytes, *, max_bytes: int) -> None:
        stem = folder / f"stdio-{name}-{hashlib.sha256(unit).hexdigest()[:16]}"
        self.socket = stem.with_suffix(".sock")
        self._lock = stem.with_suffix(".lock")
        self._name = name
        self._max_bytes = max_bytes
        self._held: int | None = None

    @property
    def is_ours(self) -> bool:
        return self._held is not None

    async def settle(self, deadline: float) -> Link | None:
        """A link to the worker that runs the process; None when that is this one from now on. Raises Failed."""
        loop = asyncio.get_running_loop()
        while not self._claimed():
            with contextlib.suppress(OSError):
                return await self._reached()
            if loop.time() >= deadline:
                why = f"the worker that runs {self._name} does not answer"
                raise Failed(Failure(Fault.NOT_SENT, "connect", why))
            await asyncio.sleep(_LOOK_AGAIN_S)
        return None

    def note(self, pid: int | None) -> None:
        """The process that runs here, for whoever comes after a sudden death; None: there is none to end."""
        if self._held is None:
            return
        words = b""
        if pid is not None:
            with contextlib.suppress(psutil.Error):
                words = f"{pid} {born(pid)}".encode()
        os.ftruncate(self._held, 0)
        os.pwrite(self._held, words, 0)

    def release(self) -> None:
        """Let another worker have it. The files go first, while they are still ours."""
        held, self._held = self._held, None
        if held is not None:
            self.socket.unlink(missing_ok=True)
            self._lock.unlink(missing_ok=True)
            os.close(held)

    def _claimed(self) -> bool:
        if self._held is not None:
            return True
        self._lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(self._lock, descriptor):  # locked too late: its last holder has taken the file away
                raise BlockingIOError
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._held = descriptor
        _end(os.pread(descriptor, 100, 0))
        return True

    async def _reached(self) -> Link:
        with control.Reachable(self.socket) as address:
            reader, writer = await asyncio.open_unix_connection(address)
        return Link(reader, writer, max_bytes=self._max_bytes)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _end(noted: bytes) -> None:
    """Kill what a dead holder left: it may hold what the next one needs."""
    try:
        pid, start = noted.decode().split()
        left = psutil.Process(int(pid))
        if born(left.pid) == start:
            send([left, *descendants(left.pid)], signal.SIGKILL)
    except (ValueError, psutil.Error):
        return  # nothing was noted, or nothing is left
