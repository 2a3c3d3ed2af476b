"""Log lines: JSON, UTC, one per line, in `combined.log` and `error.log`, written by a thread of their own.

A long-running process calls `start` once, after it has forked for the last time, and `stop` when it ends. From then on
whoever logs, the event loop above all, only appends to a queue in memory; a thread redacts, encodes, rotates, writes. The
hot path does not even build a record: it calls `access`. Commands never call `start`: what settings configure
(`configuration`) is short lines on stderr and nothing else.

Nothing here raises into the code that logs, and nothing here waits for a disk: when the queue is full or the disk is,
lines are dropped and counted (`state`), and the next line that can be written says how many were lost.
"""

import fcntl
import json
import logging
import logging.handlers
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal, get_args

from mcpserver.lib import redact
from mcpserver.lib.access_line import AccessLines

Process = Literal["gateway", "worker", "supervisor"]
# files: rotated here; external: one file each, opened again when somebody else rotates it; stdout: for journals.
Target = Literal["files", "external", "stdout"]
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

ACCESS = "mcp.access"
# About 10 MB of access lines: ten seconds of a stalled disk at a thousand calls a second.
QUEUE_MAX_LINES = 10_000
# Lines are written in batches, which cost one lock and one write each; this is how late a line may be.
LINGER_S = 0.1
RETRY_S = 2.0
BATCH_MAX_BYTES = 64 * 1024
# One line never fills a file: messages quote remotes, tracebacks have no end.
TEXT_MAX_CHARS = 8 * 1024
STOP_WAIT_S = 3.0

STDOUT, STDERR = 1, 2

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@dataclass(frozen=True, slots=True)
class State:
    """What health tells about the log of this process."""

    waiting: int = 0
    dropped: int = 0
    stopped: bool = False


# What others call.


def configuration(level: str) -> dict[str, Any]:
    """Django's LOGGING: stderr alone. `level` is LOG_LEVEL; people are told less than files are."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"failures": {"()": OnlyFailures}},
        "formatters": {"human": {"()": HumanFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "human", "level": stderr_level(level)}},
        "root": {"handlers": ["stderr"], "level": _number(level)},
        "loggers": {
            # Django's own set-up mails administrators and prints in DEBUG: one way out is enough.
            "django": {"handlers": [], "level": "INFO", "propagate": True},
            "django.request": {"filters": ["failures"], "propagate": True},
        },
    }


def start(
    process: Process,
    folder: Path,
    *,
    max_bytes: int,
    files: int,
    level: str = "INFO",
    target: Target = "files",
) -> None:
    """Send every line of this process to its place through the writer thread. Calling it again starts afresh."""
    global _writer
    stop()
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.setLevel(_number(level))
    _writer = _Writer(process, _places(folder, max_bytes, files, target), _number(level))
    root.handlers[:] = [_Enqueue(_writer)]
    _writer.start()


def stop() -> None:
    """Write what waits, for at most `STOP_WAIT_S`, and go back to stderr alone. Harmless when nothing was started."""
    global _writer
    writer, _writer = _writer, None
    if writer is None:
        return
    root = logging.getLogger()
    root.handlers[:] = [_stderr_handler(writer.stderr_level)]
    writer.finish()


def access(fields: dict[str, Any], *, request: str, ms: float, at: float | None = None) -> None:
    """One line for one request, from the event loop: costs an append. The dict is handed over and changed no more.

    `request` and `ms` are our own, and new in each line; the fields are those that come again. Values are those of JSON; text
    is redacted and escaped by the writer. The line is of level INFO, and goes nowhere where that is not wanted or `start` was
    not called.
    """
    writer = _writer
    if writer is not None and writer.wants_access:
        writer.put((at or time.time(), fields, request, ms))


def state() -> State:
    """The log of this process: lines waiting and lost, and whether writing has stopped."""
    return State() if _writer is None else _writer.state()


def target(word: str) -> Target:
    """MCP_LOG_TARGET, checked; ValueError names what it may be."""
    for known in get_args(Target):
        if word == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"MCP_LOG_TARGET={word!r} is none of {', '.join(get_args(Target))}")


def level(word: str) -> str:
    """LOG_LEVEL, checked; ValueError names what it may be."""
    known = {"": "INFO", "WARN": "WARNING"}.get(word.upper(), word.upper())
    if known not in LEVELS:
        raise ValueError(f"LOG_LEVEL={word!r} is none of {', '.join(LEVELS).lower()}")
    return known


def stderr_level(level: str) -> int:
    """People see warnings; with LOG_LEVEL=debug the news as well."""
    number = _number(level)
    return logging.INFO if number <= logging.DEBUG else max(number, logging.WARNING)


class JsonFormatter(logging.Formatter):
    """A record as one JSON line. Attributes given through `extra` become fields."""

    def __init__(self, process: str = "command") -> None:
        super().__init__()
        self._origin = {"process": process, "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return self.line(record.created, record.levelname, record.name, _message(record), fields | _exception(record))

    def line(self, at: float, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> str:
        """Our own names come first and cannot be replaced by a field."""
        document = {"time": _stamp(at), **self.origin(level, logger, message)}
        for name, value in fields.items():
            document[f"{name}_" if name in document else name] = value
        return _encoded(document)

    def origin(self, level: str, logger: str, message: str) -> dict[str, Any]:
        return {"level": level, "logger": logger, "message": message, **self._origin}


class HumanFormatter(logging.Formatter):
    """A record as one short line for a person at a terminal; a failure adds its last line, not its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        failure = _exception(record).get("exception", "").strip().rpartition("\n")[2]
        words = f"{_message(record)} ({failure})" if failure else _message(record)
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%SZ")
        return printable(redact.text(f"{at} {record.levelname.lower()} {record.name}: {words}"))


class OnlyFailures(logging.Filter):
    """Django warns of each 404 and logs each 503: an unready probe is no error, and strangers must not fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return bool(record.exc_info)


def printable(text: str) -> str:
    r"""Control and bidirectional characters as \uXXXX: nothing that is quoted can steer a terminal or forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


# The writer: one thread per process.


class _Enqueue(logging.Handler):
    """What stands at the root logger: it neither formats nor locks anything but its own queue."""

    def __init__(self, writer: "_Writer") -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.put(record)

    def handle(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return True


_Item = tuple[float, dict[str, Any], str, float] | logging.LogRecord


class _Writer:
    def __init__(self, process: Process, places: list["_Place"], level: int) -> None:
        self.wants_access = level <= logging.INFO
        self.stderr_level = stderr_level(logging.getLevelName(level))
        self._places = places
        self._json = JsonFormatter(process)
        self._access = AccessLines(_encoded, self._json.origin("INFO", ACCESS, "call"))
        self._stderr = _Descriptor(STDERR)
        self._stderr.setFormatter(HumanFormatter())
        self._queue: deque[_Item] = deque()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._overflowed = 0
        self._unwritten = 0
        self._reported = 0
        # A daemon: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, item: _Item) -> None:
        if len(self._queue) >= QUEUE_MAX_LINES:
            self._overflowed += 1
            return
        self._queue.append(item)
        if not self._wake.is_set():
            self._wake.set()

    def state(self) -> State:
        return State(len(self._queue), self._lost, any(place.failure for place in self._places))

    def finish(self) -> None:
        self._ended.set()
        self._wake.set()
        self._thread.join(STOP_WAIT_S)

    @property
    def _lost(self) -> int:
        return self._overflowed + self._unwritten

    def _run(self) -> None:
        while not self._ended.is_set():
            # What could not be written is tried again although nobody has anything to say: it is known whether that lasts.
            self._wake.wait(RETRY_S if any(place.failure for place in self._places) else None)
            self._ended.wait(LINGER_S)
            self._wake.clear()
            self._write_waiting()
        self._write_waiting()
        for place in self._places:
            place.handler.close()

    def _write_waiting(self) -> None:
        # Only what waits now: lines that keep coming must not keep the batch from being written.
        lines = [self._line(self._queue.popleft()) for _ in range(len(self._queue))]
        lost = self._lost
        notice = [(logging.WARNING, self._loss(lost - self._reported))] if lost > self._reported else []
        # The first place gets every line: what it loses is what is lost (the notice is made again).
        self._unwritten += min(len(lines), self._write(self._places[0], notice + lines))
        for place in self._places[1:]:
            said = [(place.level, self._loss(lost))] if place.failure else []
            self._write(place, said + lines)
        if not self._places[0].failure:
            self._reported = lost

    def _write(self, place: "_Place", lines: list[tuple[int, str]]) -> int:
        failed_before = place.failure
        unwritten = place.write([line for level, line in lines if level >= place.level])
        if place.failure and not failed_before:
            self._stderr.handle(_record(f"log lines are dropped and counted: {place.failure}", logging.ERROR))
        return unwritten

    def _line(self, item: _Item) -> tuple[int, str]:
        try:
            if isinstance(item, logging.LogRecord):
                if item.levelno >= self.stderr_level:
                    self._stderr.handle(item)
                return item.levelno, self._json.format(item)
            return logging.INFO, self._access.line(*item)
        except Exception as error:  # noqa: BLE001  Somebody's __str__, a value in a circle: the thread must outlive it.
            reason = f"a line could not be made: {type(error).__name__}"
            return logging.ERROR, self._json.line(time.time(), "ERROR", __name__, reason, {})

    def _loss(self, count: int) -> str:
        return self._json.line(time.time(), "WARNING", __name__, "log lines were dropped", {"dropped": count})


class _Place:
    """Somewhere that lines of `level` and above go. `failure` is why the last batch could not be written."""

    def __init__(self, level: int, handler: "Remembers", batch_max_bytes: int = BATCH_MAX_BYTES) -> None:
        self.level = level
        self.handler = handler
        self._batch_max_bytes = batch_max_bytes

    @property
    def failure(self) -> str | None:
        return self.handler.failure

    def write(self, lines: list[str]) -> int:
        """How many could not be written."""
        unwritten = 0
        for batch in _batches(lines, self._batch_max_bytes):
            self.handler.handle(_record("\n".join(batch)))
            unwritten += len(batch) if self.failure else 0
        return unwritten


# Where lines go.


class Remembers(logging.Handler):
    """Mixed into a handler: keeps the reason of its last failure instead of printing it; None once it wrote again."""

    failure: str | None = None

    def createLock(self) -> None:
        """None: the writer thread alone comes here, and at exit logging would wait for what a stuck one holds."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        self.failure = None
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        self.failure = str(sys.exc_info()[1])


class _Watched(Remembers, logging.handlers.WatchedFileHandler):
    """Somebody else rotates: the file is opened again when it has been moved away, and written to at its end, wherever that is.

    A lock on the file keeps the writers of other processes apart, so that what did not fit a full disk can be taken back.
    """

    def _open(self) -> TextIOWrapper:
        return TextIOWrapper(open(self.baseFilename, "ab", opener=_private), encoding=self.encoding)

    def emit(self, record: logging.LogRecord) -> None:
        self.failure = None
        try:
            self.reopenIfNeeded()
            if self.stream is None:
                self.stream = self._open()
                self._statstream()
            with _locked(self.stream.fileno()) as descriptor:
                write_whole(descriptor, f"{self.format(record)}\n".encode())
        except OSError:
            self.handleError(record)


class _Descriptor(Remembers):
    """A pipe or a terminal, written without Python's buffers: their lock, held by a thread whose reader has gone away,
    would turn the end of the process into a crash."""

    def __init__(self, descriptor: int, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        self.failure = None
        try:
            write_all(self._descriptor, f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except OSError:
            self.handleError(record)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)


@contextmanager
def _locked(descriptor: int) -> Iterator[int]:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield descriptor
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def write_whole(descriptor: int, content: bytes) -> None:
    """All or nothing: half a line on a full disk would spoil the next one too. Nobody else may write meanwhile."""
    before = os.fstat(descriptor).st_size
    try:
        write_all(descriptor, content)
    except OSError:
        os.ftruncate(descriptor, before)
        raise


def write_all(descriptor: int, content: bytes) -> None:
    """Past Python's buffers; OSError after a part of it is possible."""
    waiting = memoryview(content)
    while waiting:
        waiting = waiting[os.write(descriptor, waiting) :]


def _places(folder: Path, max_bytes: int, files: int, target: Target) -> list[_Place]:
    if target == "stdout":
        return [_Place(logging.NOTSET, _Descriptor(STDOUT))]
    # Not fatal: each write fails, is counted, and is tried again for as long as the process lives.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    wanted = ((logging.NOTSET, "combined.log"), (logging.ERROR, "error.log"))
    batch = min(BATCH_MAX_BYTES, max_bytes)
    return [_Place(level, _file(folder / name, max_bytes, files, target), batch) for level, name in wanted]


def _file(path: Path, max_bytes: int, files: int, target: Target) -> Remembers:
    if target == "external":
        return _Watched(path, delay=True, encoding="utf-8")
    # Imported here: settings import this module, and no command should pay for what only processes that run on need.
    from mcpserver.lib.rotation import Rotating

    return Rotating(path, max_bytes=max_bytes, files=files)


def _stderr_handler(level: int) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setLevel(level)
    handler.setFormatter(HumanFormatter())
    return handler


def _batches(lines: Iterable[str], max_bytes: int) -> list[list[str]]:
    batches: list[list[str]] = []
    size = max_bytes
    for line in lines:
        if size + len(line) >= max_bytes:
            batches.append([])
            size = 0
        batches[-1].append(line)
        size += len(line) + 1
    return batches


# Making a line.


def _record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord(__name__, level, "", 0, message, None, None)


def _message(record: logging.LogRecord) -> str:
    try:
        return _cut(record.getMessage())
    except (TypeError, ValueError):
        # A wrong number of arguments: the template still tells most of it.
        return _cut(f"{record.msg} {record.args!r}")


def _exception(record: logging.LogRecord) -> dict[str, str]:
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    words = "".join(traceback.format_exception(*record.exc_info, limit=-30))
    # The end names the cause: it is the beginning that may go.
    return {"exception": words[-TEXT_MAX_CHARS:]}


def _encoded(document: dict[str, Any]) -> str:
    """ASCII alone: whatever a stranger put into a value can neither end the line nor turn it round in a terminal."""
    line = _ENCODER.encode(document)
    if len(line) > TEXT_MAX_CHARS:
        document = {name: _cut(value) if isinstance(value, str) else value for name, value in document.items()}
        line = _ENCODER.encode(document)
    if redact.suspicious(line):
        line = _ENCODER.encode(redact.document(json.loads(line)))
    return line


def _plain(value: object) -> str:
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX_CHARS else f"{text[:TEXT_MAX_CHARS]}…"


# Made once: json.dumps makes one per call as soon as it is given options.
_ENCODER = json.JSONEncoder(default=_plain, separators=(",", ":"))


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(level: str) -> int:
    number = logging.getLevelName(level.upper())
    return number if isinstance(number, int) else logging.INFO


_writer: _Writer | None = None
