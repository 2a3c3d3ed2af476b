"""Just enough HTTP/1.1 and SSE, split by hand, for a load client and an upstream that are never the limit.

Pure: bytes in, messages out. It trusts its peers to be well-formed, as both ends are ours or under test on loopback.
"""

import re
from collections.abc import Iterator

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_MODERN = re.compile(rb"\r\nmcp-protocol-version: *2026-07-28", re.IGNORECASE)
_SESSION = re.compile(rb"\r\nmcp-session-id: *([^\r]+)", re.IGNORECASE)
_EVENT_STREAM = re.compile(rb"\r\ncontent-type: *text/event-stream", re.IGNORECASE)


def is_modern(head: bytes) -> bool:
    return _MODERN.search(head) is not None


def is_event_stream(head: bytes) -> bool:
    return _EVENT_STREAM.search(head) is not None


def session_id(head: bytes) -> bytes:
    found = _SESSION.search(head)
    return found.group(1) if found else b""


def last_data(body: bytes) -> bytes:
    """The data of the last event of a whole event stream: the answer, when one was streamed."""
    events = body.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n\n")
    return _field(events[-1].split(b"\n"), b"data:")


class Messages:
    """Whole requests or responses out of a byte stream, as (head, body); the head keeps its first line."""

    def __init__(self) -> None:
        self._buffer = b""
        self._waiting: list[bytes] = []
        self._missing = (
            0  # bytes without which looking again is of no use: a 1 MB body is joined once, not at every read
        )

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._missing -= len(data)
        if self._missing > 0:
            self._waiting.append(data)
            return
        self._missing = 0
        self._buffer = b"".join((self._buffer, *self._waiting, data)) if self._buffer else data
        self._waiting.clear()
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[: end + 2]
            message = self._body(head, end + 4)
            if message is None:
                return
            body, after = message
            self._buffer = self._buffer[after:]
            yield head, body

    def _body(self, head: bytes, start: int) -> tuple[bytes, int] | None:
        if found := _LENGTH.search(head):
            after = start + int(found.group(1))
            self._missing = max(0, after - len(self._buffer))
            return None if self._missing else (self._buffer[start:after], after)
        if _CHUNKED.search(head):
            parts, after, ended = _chunks(self._buffer, start)
            return (b"".join(parts), after) if ended else None
        return b"", start


class Events:
    """The `event` and `data` of each server-sent event of one response, and its head once that is complete."""

    def __init__(self) -> None:
        self.head = b""
        self._buffer = b""
        self._text = b""
        self._chunked = False

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._buffer += data
        if not self.head:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head, self._buffer = self._buffer[: end + 2], self._buffer[end + 4 :]
            self._chunked = _CHUNKED.search(self.head) is not None
        self._text += self._unframed()
        if b"\r" in self._text:
            self._text = self._text.replace(b"\r\n", b"\n")
        while (end := self._text.find(b"\n\n")) >= 0:
            lines, self._text = self._text[:end].split(b"\n"), self._text[end + 2 :]
            yield _field(lines, b"event:"), _field(lines, b"data:")

    def _unframed(self) -> bytes:
        if not self._chunked:
            text, self._buffer = self._buffer, b""
            return text
        parts, after, _ = _chunks(self._buffer, 0)
        self._buffer = self._buffer[after:]
        return b"".join(parts)


def _field(lines: list[bytes], name: bytes) -> bytes:
    return b"\n".join(line[len(name) :].lstrip() for line in lines if line.startswith(name))


def _chunks(buffer: bytes, at: int) -> tuple[list[bytes], int, bool]:
    """The whole chunks from `at` on, where the next one begins, and whether the last one (no trailers) was seen."""
    parts: list[bytes] = []
    while (line := buffer.find(b"\r\n", at)) >= 0:
        size = int(buffer[at:line].partition(b";")[0], 16)
        start, after = line + 2, line + size + 4
        if len(buffer) < after:
            break
        if size == 0:
            return parts, after, True
        parts.append(buffer[start : after - 2])
        at = after
    return parts, at, False
