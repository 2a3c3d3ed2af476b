"""Remotes that are processes: one JSON message per line on their stdin and stdout, words for people on stderr.

The child runs without a shell, in a session of its own, with a minimal environment plus what the configuration gives it, and is
tethered: it ends with us. What it says that is no message is counted and logged at a bounded rate, never fatal: a stray print
must not take a remote away. What it says too fast is read no faster than others can bear.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal

import psutil

from mcpserver.lib import tether
from mcpserver.lib.processes import descendants, how_it_ended, send
from mcpserver.protocol import codes, jsonrpc, jsontext
from remotes.config.snapshot import RemoteSpec
from remotes.upstream import shortage
from remotes.upstream.budget import FREE_BYTES, Budget, Held
from remotes.upstream.connection import Listener
from remotes.upstream.duplex import Duplex
from remotes.upstream.lines import ENDS_BYTES, Lines, Oversized
from remotes.upstream.outcome import Failed, Failure, Fault
from remotes.upstream.overheard import Overheard
from remotes.upstream.record import Record

log = logging.getLogger("mcp.upstream")

# What a program needs to find itself (PATH), its user's files (HOME, USER, LOGNAME, SHELL), room for temporary ones (TMPDIR), and
# how to write text and times (LANG, LC_ALL, TERM, TZ). Everything else of ours (SECRET_KEY, DATABASE_URL, …) stays here.
INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
_READ_BYTES = 256 * 1024
# Six ends of pipes, and what starting a process takes for a moment.
_SPAWN_FILES = 16
_EXIT_GRACE_S = 2.0
# One that never said a word has nothing to finish, and somebody waits for the next try.
_SPEECHLESS_GRACE_S = 0.3
_LAST_WORDS_S = 0.2
# After so many lines the loop is everybody's again. What answers nobody is read at this rate at most; a long line counts as many,
# and what is no message at all as five.
_LINES_AT_A_TIME = 64
_BABBLE_PER_S = 10_000
_BABBLE_BYTES = 4096
_NOISE_COST = 4
_STDERR_BYTES_PER_S = 32 * 1024 * 1024
# A line that is over the cap is passed over; one that never ends is no accident.
_ENDLESS = 16


async def open_stdio(spec: RemoteSpec, listener: Listener, *, budget: Budget, record: Record) -> Duplex:
    """Start the process; the handshake is the caller's. Raises Failed when it cannot be started."""
    record.places.take(spec.name)
    try:
        _require_files()
        process = await asyncio.create_subprocess_exec(
            *tether.command([spec.command, *spec.args], alone=True),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=spec.cwd or None, env=environment(spec), start_new_session=True,
        )  # fmt: skip
    except BaseException as error:
        record.places.give_back()
        if not isinstance(error, OSError | ValueError):
            raise
        if isinstance(error, OSError) and (short := shortage.of(error)) is not None:
            gc.collect()  # uvloop leaves the pipes of a process that it could not start in a cycle
            why = f"it cannot be started, this machine is short of {short}"
            raise Failed(Failure(Fault.BUSY, "spawn", why, retry_after_s=shortage.RETRY_AFTER_S)) from None
        why = f"cannot start {spec.name}"
        raise Failed(Failure(Fault.NOT_SENT, "spawn", why, detail=f"{spec.command!r}: {error}")) from None
    record.born(process.pid)
    wire = StdioWire(spec, process, record, budget)
    channel = Duplex(spec.name, wire, listener)
    wire.start(channel)
    return channel


def _require_files() -> None:
    """Raises OSError where there are not enough: uvloop then loses some for good, and cannot say why it failed."""
    with contextlib.ExitStack() as taken:
        for _ in range(_SPAWN_FILES):
            taken.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def environment(spec: RemoteSpec) -> dict[str, str]:
    """The child's whole environment."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(spec.env)


class StdioWire:
    def __init__(self, spec: RemoteSpec, process: asyncio.subprocess.Process, record: Record, budget: Budget) -> None:
        self._name = spec.name
        self._process = process
        self._record = record
        self._budget = budget
        self._overheard = Overheard(spec.name, spec.env)
        self._babble = _Pace(_BABBLE_PER_S)
        self._turn = asyncio.Lock()
        self._pumps: list[asyncio.Task[None]] = []
        self._closing = False
        self._was_heard = False
        self._is_buried = False
        self._reaped = asyncio.create_task(self._reap())
        self._left = asyncio.create_task(self._end_what_is_left())

    def start(self, channel: Duplex) -> None:
        self._pumps = [
            asyncio.create_task(self._read(channel)),
            asyncio.create_task(self._drain_stderr()),
        ]

    async def send(self, message: bytes) -> None:
        stdin = self._process.stdin
        try:
            # One after the other, and room first: a caller whose time runs out behind a child that does not read leaves
            # nothing in the buffer, and those who wait with it do not fill it all at once.
            async with self._turn:
                if stdin is None or stdin.is_closing():
                    raise self._over()
                await stdin.drain()
                stdin.write(jsontext.one_line_for_any_reader(message) + b"\n")
        except (ConnectionError, RuntimeError):
            raise self._over() from None

    def _over(self) -> Failed:
        return Failed(Failure(Fault.NOT_SENT, "send", f"the process of {self._name} has ended"))

    async def close(self) -> None:
        """End of input first, as the specification asks; then TERM, then KILL, to the whole group and whoever left it."""
        self._closing = True
        grace_s = _EXIT_GRACE_S if self._was_heard else min(_SPEECHLESS_GRACE_S, _EXIT_GRACE_S)
        family: list[psutil.Process] = []
        try:
            if not self._reaped.done():
                with contextlib.suppress(RuntimeError):  # no more threads: its group alone then
                    family = await asyncio.to_thread(descendants, self._process.pid)
            if self._process.stdin is not None:
                self._process.stdin.close()
            if not await self._gone_within(grace_s):
                self._signal_group(signal.SIGTERM)
                await self._gone_within(grace_s)
        finally:  # What a wrapper left behind; everything, where the time for manners was cancelled.
            self._bury(family)
            await self._gone_within(_EXIT_GRACE_S)
        current = asyncio.current_task()
        pumps = [pump for pump in (*self._pumps, self._left) if pump is not current]
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _gone_within(self, seconds: float) -> bool:
        await asyncio.wait({self._reaped}, timeout=seconds)
        return self._reaped.done()

    async def _reap(self) -> None:
        """The place is given back when the process is really gone, however long that takes."""
        try:
            code = await self._process.wait()
        finally:
            self._record.places.give_back()
        if self._record.pid == self._process.pid:
            self._record.pid = None
            self._record.last_exit = how_it_ended(code)

    async def _end_what_is_left(self) -> None:
        """A wrapper that died leaves a program that nobody could end any more, and that may serve on over the same pipes."""
        await asyncio.wait({self._reaped})
        await asyncio.wait(self._pumps, timeout=_EXIT_GRACE_S)
        self._bury([])

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _bury(self, family: list[psutil.Process]) -> None:
        """Once only: later the number may be another group's."""
        if not self._is_buried:
            self._is_buried = True
            self._signal_group(signal.SIGKILL)
            send(family, signal.SIGKILL)

    async def _read(self, channel: Duplex) -> None:
        failure: Failure | None = None
        try:
            failure = await self._messages(channel)
        except Exception:  # a fault of ours must not leave callers waiting for a reader that is gone
            log.exception("reading the stdout of %s failed", self._name)
        if failure is None:
            await self._ended(channel)
        else:
            channel.broke(failure)
            await self.close()

    async def _messages(self, channel: Duplex) -> Failure | None:
        """Until the end of its stdout; a Failure when the process has to go for what it writes."""
        assert self._process.stdout is not None
        loop = asyncio.get_running_loop()
        line_max_bytes = self._budget.read_max_bytes
        lines = Lines(line_max_bytes)
        held = self._budget.held(self._name)
        while chunk := await self._process.stdout.read(_READ_BYTES):
            if found := lines.feed(chunk):
                await self._take_all(channel, found, line_max_bytes, held)
                found.clear()
                held = self._budget.held(self._name)
            if lines.passed_over:
                held.shrink()
            elif lines.pending > FREE_BYTES:
                await channel.afford(held, lines.pending)
            if lines.passed_over > _ENDLESS * line_max_bytes:
                return _too_large(self._name, line_max_bytes)
            if (pause_s := self._babble.pause_s(loop.time())) > 0:
                await asyncio.sleep(pause_s)
        return None

    async def _take_all(self, channel: Duplex, found: list[bytes | Oversized], line_max_bytes: int, held: Held) -> None:
        """The first line takes the memory of what was read of it before; the others came whole."""
        for count, line in enumerate(found, start=1):
            self._take(channel, line, line_max_bytes, held if count == 1 else None)
            if count % _LINES_AT_A_TIME == 0:
                await asyncio.sleep(0)

    def _take(self, channel: Duplex, line: bytes | Oversized, line_max_bytes: int, held: Held | None) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(line, Oversized):
            self._record.too_large += 1
            if not channel.failed(line.number, _too_large(self._name, line_max_bytes)):
                self._noise(line.head, f"longer than {line_max_bytes} bytes", now)
            return
        text = line.strip()
        if not text:
            return
        try:
            if channel.received(text, held):
                self._was_heard = True
                return
        except jsonrpc.Malformed as error:
            # A stray print is nobody's answer, and nor is one with an id that was never asked for.
            is_broken = error.code == codes.PARSE_ERROR
            is_meant = (
                is_broken and text.startswith(b"{") and b'"jsonrpc"' in text and b'"method"' not in text[:ENDS_BYTES]
            )
            if channel.unreadable(text, error, is_meant=is_meant):
                return
            self._noise(text, error.message, now)
        self._record.strays = channel.strays
        self._babble.spend(1 + len(text) // _BABBLE_BYTES, now)

    def _noise(self, line: bytes, why: str, now: float) -> None:
        self._record.noise += 1
        self._babble.spend(_NOISE_COST, now)
        self._overheard.noise(line, why, now)

    async def _ended(self, channel: Duplex) -> None:
        loop = asyncio.get_running_loop()
        is_gone = await self._gone_within(_EXIT_GRACE_S)
        self._bury([])
        await asyncio.wait(self._pumps[1:], timeout=_LAST_WORDS_S)
        self._overheard.end(loop.time())
        self._record.last_words = said = self._overheard.last_words
        code = self._process.returncode if is_gone else None
        if code == tether.CANNOT_RUN and not self._was_heard and not self._closing:
            channel.broke(Failure(Fault.NOT_SENT, "spawn", f"cannot start {self._name}", detail=said))
        else:
            cause = "closed its stdout" if code is None else f"ended with {how_it_ended(code)}"
            channel.broke(Failure(Fault.BROKEN, "answer", f"the process of {self._name} {cause}", detail=said))

    async def _drain_stderr(self) -> None:
        """Read on whatever happens, or the child blocks."""
        assert self._process.stderr is not None
        loop = asyncio.get_running_loop()
        pace = _Pace(_STDERR_BYTES_PER_S)
        while chunk := await self._process.stderr.read(_READ_BYTES):
            self._overheard.chunk(chunk, loop.time())
            pace.spend(len(chunk), loop.time())
            if (pause_s := pace.pause_s(loop.time())) > 0:
                await asyncio.sleep(pause_s)


class _Pace:
    """So much a second, in windows of one second: what is over it waits for the next."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._window = float("-inf")
        self._spent = 0

    def spend(self, cost: int, now: float) -> None:
        if now - self._window >= 1:
            self._window, self._spent = now, 0
        self._spent += cost

    def pause_s(self, now: float) -> float:
        return self._window + 1 - now if self._spent > self._per_s else 0.0


def _too_large(name: str, line_max_bytes: int) -> Failure:
    return Failure(Fault.TOO_LARGE, "answer", f"{name} sent a line of more than {line_max_bytes} bytes")
