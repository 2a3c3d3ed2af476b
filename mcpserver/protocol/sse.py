"""Server-sent events, written and read (WHATWG HTML, "Server-sent events"; MCP transports of every revision)."""

from collections.abc import Iterator
from dataclasses import dataclass

from mcpserver.protocol.jsontext import one_line

HEARTBEAT = b": heartbeat\n\n"


class TooLong(Exception):
    """One event grew past the cap; the stream cannot be trusted any further."""


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: bytes
    id: str | None = None
    retry_ms: int | None = None

    @property
    def is_blank(self) -> bool:
        """Whether it carries no message: some are sent for their id, or to keep a connection alive."""
        return not self.data or self.data.isspace()


def encode(message: bytes, *, name: bytes = b"message", id: bytes | None = None) -> bytes:
    """One event holding one message."""
    head = b"event: " + name + b"\n"
    if id is not None:
        head += b"id: " + id + b"\n"
    return head + b"data: " + one_line(message) + b"\n\n"


def priming(id: bytes, retry_ms: int) -> bytes:
    """The event without a message that tells a client what to come back with, and how long to wait before it does."""
    return b"id: " + id + b"\nretry: %d\ndata:\n\n" % retry_ms


OVERSIZED = "oversized"
"""The name under which an event over the cap is told of, where it is passed over: its data are its first and last bytes."""
ENDS_BYTES = 256


class Splitter:
    """Bytes as they come from a socket in, whole events out; never holds more than `cap` bytes of an unfinished one.

    An event over the cap is passed over with `passes_over`, for streams that others use too; else it is the end.
    """

    def __init__(self, cap: int, *, passes_over: bool = False) -> None:
        self.passed_over = 0
        """Bytes of the event that is being passed over; 0 when it is none."""
        self._passes_over = passes_over
        self._head = b""
        self._tail = b""
        self._cap = cap
        self._buffer = bytearray()
        self._held = 0
        self._data: list[bytes] = []
        self._name = ""
        self._id: str | None = None
        self._retry: int | None = None
        self._seen_any = False
        self._after_cr = False

    @property
    def pending(self) -> int:
        """Bytes in memory of the event that has not ended yet."""
        return len(self._buffer) + self._held

    def clear(self) -> None:
        """Forget the event that has not ended: nobody reads on."""
        self._buffer, self._data, self._held = bytearray(), [], 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield each event completed by `chunk`; raises TooLong."""
        for line in self._lines(chunk):
            event = self._take(line)
            if event is not None:
                yield event
        if self.passed_over or self.pending > self._cap:
            self._pass_over()

    def _pass_over(self) -> None:
        if not self._passes_over:
            raise TooLong(f"an event is larger than {self._cap} bytes")
        if not self.passed_over:
            begun = self._data[0] if self._data else bytes(self._buffer[: 2 * ENDS_BYTES])
            self._head = begun.removeprefix(b"data:").lstrip(b" ")[:ENDS_BYTES]
            self.passed_over, self._data, self._held = self._held, [], 0
        surplus = len(self._buffer) - ENDS_BYTES
        if surplus > 0:  # what is left of a line is not the beginning of one: as a comment it says nothing
            self.passed_over += surplus
            self._buffer = bytearray(b":") + self._buffer[surplus:]

    def _lines(self, chunk: bytes) -> list[bytearray]:
        """The lines that `chunk` ends, in time linear in its length whichever line ends a remote chooses (LF, CR, CRLF)."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if not end:
            self._buffer += chunk
            return []
        whole, self._buffer = self._buffer, bytearray(chunk[end:])
        whole += chunk[:end]
        self._after_cr = chunk[-1:] == b"\r"
        if not self._seen_any:
            self._seen_any = True
            whole = whole.removeprefix(b"\xef\xbb\xbf")
        return whole.splitlines()

    def _take(self, line: bytearray) -> Event | None:
        if not line:
            return self._complete()
        if self.passed_over:
            self.passed_over += len(line)
            self._tail = bytes(line[-ENDS_BYTES:])
            return None
        colon = line.find(b":")
        field = line if colon < 0 else line[:colon]
        begin = len(line) if colon < 0 else colon + 1 + line.startswith(b" ", colon + 1)
        value = bytes(memoryview(line)[begin:])  # copied once: it may be large
        if field == b"data":
            self._data.append(value)
            self._held += len(value) + 1
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit() and len(value) < 10:
            self._retry = int(value)
        return None

    def _complete(self) -> Event | None:
        data, name, retry = self._data, self._name, self._retry
        self._data, self._name, self._retry, self._held = [], "", None, 0
        if self.passed_over:
            self.passed_over = 0
            return Event(OVERSIZED, self._head + b"\n" + self._tail, self._id, retry)
        if not data:
            return None
        return Event(name or "message", b"\n".join(data), self._id, retry)
