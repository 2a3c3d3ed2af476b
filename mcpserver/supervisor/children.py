"""One child process: spawned with its sockets, watched through its pipe, told to end.

A child runs in a session of its own, so that a Ctrl-C meant for the supervisor does not reach it too, and is tethered: it gets
TERM when the supervisor is gone. Nothing here decides; nothing here waits.
"""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from mcpserver.lib import tether
from mcpserver.supervisor.plan import Spec, State

# A line is a few hundred bytes; whoever writes more is not a child of ours.
LINE_MAX_BYTES = 256 * 1024
# The stacks of some dozen threads.
STACKS_MAX_BYTES = 64 * 1024


class Child:
    """A process that was started for `spec`."""

    def __init__(
        self, spec: Spec, process: "subprocess.Popen[bytes]", ready_fd: int, stacks_fd: int | None, now: float
    ) -> None:
        self.spec = spec
        self.pid = process.pid
        self.pipe: int | None = ready_fd
        self.state = State.STARTING
        self.started_at = now
        self.ready_at: float | None = None
        self.kill_at: float | None = now + spec.boot_s
        self.facts: Mapping[str, Any] = {}
        self.error: dict[str, Any] | None = None
        self.has_hung_up = False
        self.beat_at = now
        self.beats_over = 0
        self.memory_max_mb = 0.0
        self.grace_s = spec.grace_s
        self.is_stalled = False
        self.was_killed = False
        self._process = process
        self._heard = b""
        self._stacks_fd = stacks_fd

    def heard(self) -> list[dict[str, Any]]:
        """The lines that arrived whole through its pipe: first that it is ready or why not, then its beats."""
        if self.pipe is None:
            return []
        try:
            part = os.read(self.pipe, 65536)
        except BlockingIOError:
            return []
        self.has_hung_up = not part
        *lines, rest = (self._heard + part + (b"" if part else b"\n")).split(b"\n")
        self._heard = rest[:LINE_MAX_BYTES]
        return [document for line in lines if (document := _document(line))]

    def close_pipe(self) -> None:
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None

    def is_ready(self, now: float, facts: Mapping[str, Any]) -> None:
        self.state, self.ready_at, self.beat_at, self.kill_at, self.facts = State.READY, now, now, None, facts

    def drain(self, now: float) -> None:
        """Tell it to end; it is killed when its grace is over."""
        if self.state is not State.DRAINING:
            self.state, self.kill_at = State.DRAINING, now + self.grace_s
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self.was_killed = True
        self.kill_at = None
        self._signal(signal.SIGKILL)

    def abort(self, kill_at: float) -> None:
        """Let it write down where it is, and end."""
        self.kill_at = kill_at
        self._signal(signal.SIGABRT)

    def ready_for_s(self, now: float) -> float:
        return 0.0 if self.ready_at is None else now - self.ready_at

    def reaped(self, status: int) -> None:
        """The arbiter waited for it: Popen must not try again."""
        self.state = State.STOPPED
        self._process.returncode = status
        self.close_pipe()

    def last_stacks(self) -> str:
        """Where its threads were when it was told to say so, or crashed deep inside; asked once."""
        descriptor, self._stacks_fd = self._stacks_fd, None
        if descriptor is None:
            return ""
        try:
            return os.pread(descriptor, STACKS_MAX_BYTES, 0).decode(errors="replace")
        finally:
            os.close(descriptor)

    def _signal(self, number: signal.Signals) -> None:
        # Not yet reaped, so the pid is still its own even if it is dead already.
        os.kill(self.pid, number)


def spawn(spec: Spec, environment: Mapping[str, str], now: float, *, again: bool = False) -> Child:
    """Start a child. Must run in the main thread, whose end is what the tether waits for."""
    with ExitStack() as passed_on, ExitStack() as kept:
        reader, writer = os.pipe()
        kept.callback(os.close, reader)
        passed_on.callback(os.close, writer)
        os.set_blocking(reader, False)
        stacks = _memory_file() if spec.beats else None
        if stacks is not None:
            kept.callback(os.close, stacks)
        argv = [*spec.argv, *(spec.again if again else ())]
        for descriptor in spec.sockets:
            argv += ["--fd", str(descriptor)]
        for number, descriptor in spec.spares.items():
            argv += ["--spare", f"{number}:{descriptor}"]
        argv += ["--ready-fd", str(writer), *(("--stacks-fd", str(stacks)) if stacks is not None else ())]
        process = subprocess.Popen(
            tether.command(argv),
            stdin=subprocess.DEVNULL,
            # The one document on stdout is the supervisor's; what a child has to tell, it tells through the pipe.
            stdout=subprocess.DEVNULL,
            pass_fds=(*spec.sockets, *spec.spares.values(), writer, *((stacks,) if stacks is not None else ())),
            env={**environment, **spec.environment},
            start_new_session=True,
        )
        kept.pop_all()
    return Child(spec, process, reader, stacks, now)


def _memory_file() -> int | None:
    """Where a dying process can write without a disk and without anybody who reads; None where there is no such thing."""
    return os.memfd_create("stacks") if hasattr(os, "memfd_create") else None


def _document(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
