"""Remotes that are processes: one JSON message per line on their stdin and stdout, words for people on stderr.

The child runs without a shell, in a process group of its own, with a minimal environment plus what the configuration gives it.
Lines on stdout that are no JSON-RPC are logged, so many a second, never fatal: a stray print must not take a remote away.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

from mcpserver.protocol import jsonrpc, results
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.connection import Listener
from remotes.upstream.duplex import Duplex
from remotes.upstream.outcome import Failed, Failure, Fault

log = logging.getLogger("mcp.upstream")

# What a program needs to find itself and its files; everything else of ours (SECRET_KEY, DATABASE_URL, …) stays here.
INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
_GUARD = str(Path(__file__).with_name("guard.py"))
_READ_BYTES = 256 * 1024
_EXIT_GRACE_S = 2.0
_LAST_WORDS_S = 0.2
_LINES_PER_S = 20


async def open_stdio(spec: RemoteSpec, listener: Listener, *, line_max_bytes: int) -> Duplex:
    """Start the process; the handshake is the caller's. Raises Failed when it cannot be started."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", _GUARD, str(os.getpid()), spec.command, *spec.args,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=spec.cwd or None, env=environment(spec), start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        why = f"cannot start {spec.name}"
        raise Failed(Failure(Fault.NOT_SENT, "spawn", why, detail=f"{spec.command!r}: {error}")) from None
    wire = StdioWire(spec.name, process)
    channel = Duplex(spec.name, wire, listener)
    wire.start(channel, line_max_bytes)
    return channel


def environment(spec: RemoteSpec) -> dict[str, str]:
    """The child's whole environment."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(spec.env)


class StdioWire:
    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self._pumps: list[asyncio.Task[None]] = []
        self._closing = False
        self._last_words = ""
        self._window, self._logged, self._dropped = 0.0, 0, 0

    def start(self, channel: Duplex, line_max_bytes: int) -> None:
        self._pumps = [
            asyncio.create_task(self._read(channel, line_max_bytes)),
            asyncio.create_task(self._drain_stderr()),
        ]

    async def send(self, message: bytes) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.is_closing():
            raise Failed(Failure(Fault.NOT_SENT, "send", f"the process of {self._name} has ended"))
        try:
            # Room first: a caller whose time runs out behind a child that does not read leaves nothing in the buffer.
            await stdin.drain()
        except (ConnectionError, RuntimeError):
            raise Failed(Failure(Fault.NOT_SENT, "send", f"the process of {self._name} has ended")) from None
        stdin.write(jsonrpc.one_line(message) + b"\n")

    async def close(self) -> None:
        """End of input first, as the specification asks; then TERM, then KILL, to the whole group."""
        self._closing = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            for number in (None, signal.SIGTERM):
                if number is not None:
                    self._signal_group(number)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), _EXIT_GRACE_S)
                    break
        finally:  # What a wrapper left behind in the group; everything, where the time for manners was cancelled.
            self._signal_group(signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _EXIT_GRACE_S)
        current = asyncio.current_task()
        for pump in self._pumps:
            if pump is not current:
                pump.cancel()
        await asyncio.gather(*(pump for pump in self._pumps if pump is not current), return_exceptions=True)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _read(self, channel: Duplex, line_max_bytes: int) -> None:
        try:
            await self._messages(channel, line_max_bytes)
        except Exception:  # a fault of ours must not leave callers waiting for a reader that is gone
            log.exception("reading the stdout of %s failed", self._name)
        await self._ended(channel)

    async def _messages(self, channel: Duplex, line_max_bytes: int) -> None:
        assert self._process.stdout is not None
        buffer = bytearray()
        scanned = 0
        while chunk := await self._process.stdout.read(_READ_BYTES):
            buffer += chunk
            while (end := buffer.find(b"\n", scanned)) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                scanned = 0
                self._take(channel, line.strip())
            scanned = len(buffer)
            if scanned > line_max_bytes:
                failure = Failure(
                    Fault.TOO_LARGE, "answer", f"{self._name} sent a line of more than {line_max_bytes} bytes"
                )
                channel.broke(failure)
                await self.close()
                return

    def _take(self, channel: Duplex, line: bytes) -> None:
        if not line:
            return
        try:
            channel.received(line)
        except jsonrpc.Malformed as error:
            self._log(logging.WARNING, f"wrote to stdout what is no message ({error.message}): {line[:200]!r}")

    async def _ended(self, channel: Duplex) -> None:
        code: int | None = None
        with contextlib.suppress(TimeoutError):
            code = await asyncio.wait_for(self._process.wait(), _EXIT_GRACE_S)
        self._signal_group(signal.SIGKILL)
        await asyncio.wait(self._pumps[1:], timeout=_LAST_WORDS_S)
        said = self._last_words
        cause = "closed its stdout" if code is None else f"ended with exit code {code}"
        if code == 127 and not self._closing:
            channel.broke(Failure(Fault.NOT_SENT, "spawn", f"cannot start {self._name}", detail=said))
        else:
            channel.broke(Failure(Fault.BROKEN, "answer", f"the process of {self._name} {cause}", detail=said))

    async def _drain_stderr(self) -> None:
        """Read on whatever happens, or the child blocks."""
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(_READ_BYTES):
            for line in chunk.splitlines():
                text = results.untrusted(line[:500].strip())
                if text:
                    self._last_words = text
                    self._log(logging.INFO, text)

    def _log(self, level: int, text: str) -> None:
        """A line about what the child wrote; beyond so many a second they are counted instead."""
        now = asyncio.get_running_loop().time()
        if now - self._window >= 1:
            if self._dropped:
                log.warning("%s: %d more lines were dropped", self._name, self._dropped, extra={"remote": self._name})
            self._window, self._logged, self._dropped = now, 0, 0
        if self._logged < _LINES_PER_S:
            self._logged += 1
            log.log(level, "%s: %s", self._name, text, extra={"remote": self._name})
        else:
            self._dropped += 1
