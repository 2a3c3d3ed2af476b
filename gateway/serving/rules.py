"""What we decide about connections: how long each phase may last, what is refused and in which words, how answers are cut.

Pure values and functions, so that another ASGI server could stand underneath and obey the same rules. Nothing here reads a
socket or a clock; `connection`, `request` and `server` carry the verdicts out.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

MIB = 1024 * 1024

# A larger write would sit in memory whole, whatever the client reads: what is sent must be able to pause in between.
SLICE_BYTES = 64 * 1024


class Phase(Enum):
    """Where a connection is in its exchange. One request at a time: pipelined ones wait for their turn."""

    IDLE = auto()  # nothing asked yet, or the last answer is written
    HEAD = auto()  # request line and header lines are arriving
    BODY = auto()
    ANSWERING = auto()  # the application has it and bounds itself; blocked writes have their own deadline
    REFUSED = auto()  # refused, half-closed; the rest of what the client sends is read and dropped
    CLOSING = auto()  # the last bytes are leaving


class Verdict(Enum):
    CLOSE = auto()
    REFUSE = auto()
    ABORT = auto()


WHEN_OVERDUE = {
    Phase.IDLE: Verdict.CLOSE,
    Phase.HEAD: Verdict.REFUSE,
    Phase.BODY: Verdict.REFUSE,
    Phase.REFUSED: Verdict.ABORT,
    Phase.CLOSING: Verdict.ABORT,
}


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Whole phases, not pauses within them: a drip of one byte a second extends nothing."""

    head_s: float = 10
    body_s: float = 30
    # Above the 60 s of nginx: the side that sends requests should be the one to close, or a request meets a closing door.
    idle_s: float = 75
    # While draining a busy client sends again within this and then learns from `Connection: close`.
    idle_draining_s: float = 2
    # A client that writes before it reads (Node) sees the refusal only if somebody goes on reading for a while.
    refused_s: float = 3
    refused_max_bytes: int = 8 * MIB
    closing_s: float = 60
    # A cancelled request tidies up, the last hook ends: together well inside what a supervisor grants after the grace.
    cancelled_s: float = 1
    stop_s: float = 5

    def allowed_s(self, *, draining: bool) -> dict[Phase, float]:
        return {
            Phase.IDLE: self.idle_draining_s if draining else self.idle_s,
            Phase.HEAD: self.head_s,
            Phase.BODY: self.body_s,
            Phase.ANSWERING: math.inf,
            Phase.REFUSED: self.refused_s,
            Phase.CLOSING: self.closing_s,
        }

    @property
    def sweep_s(self) -> float:
        """How often to look: one sweep over all connections costs less than a timer for each request."""
        shortest = min(self.head_s, self.body_s, self.idle_s, self.idle_draining_s, self.refused_s, self.closing_s)
        return min(0.5, shortest / 4)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that the server gives by itself. The body has the shape that an MCP client reads anyway."""

    status: int
    reason: str
    message: str
    code: int = -32600
    retry_after_s: int | None = None

    @property
    def body(self) -> bytes:
        return json.dumps(
            {"jsonrpc": "2.0", "id": None, "error": {"code": self.code, "message": self.message}}, separators=(",", ":")
        ).encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        lines = [(b"content-type", b"application/json"), (b"content-length", str(len(self.body)).encode())]
        if self.retry_after_s is not None:
            lines.append((b"retry-after", str(self.retry_after_s).encode()))
        return lines

    def closing_answer(self) -> bytes:
        """The whole HTTP answer of a refusal after which the connection is never used again."""
        head = b"HTTP/1.1 %d %s\r\n" % (self.status, self.reason.encode())
        lines = b"".join(b"%s: %s\r\n" % line for line in self.headers)
        return head + lines + b"connection: close\r\n\r\n" + self.body


def too_large(limit: int) -> Refusal:
    return Refusal(413, "Content Too Large", f"request body is larger than {limit} bytes")


def bad_request(detail: str = "malformed HTTP request") -> Refusal:
    return Refusal(400, "Bad Request", detail)


HEAD_TOO_LARGE = Refusal(431, "Request Header Fields Too Large", "request line and headers are too large")
TOO_SLOW = Refusal(408, "Request Timeout", "the request did not arrive in time")
FAILED = Refusal(500, "Internal Server Error", "internal error", code=-32603)
FULL = Refusal(503, "Service Unavailable", "the gateway has no room for connections", code=-32603, retry_after_s=10)
STOPPING = Refusal(503, "Service Unavailable", "the gateway is shutting down", code=-32603, retry_after_s=5)


# Connections beyond the limit that are told so; what comes beyond these too is cut off.
TOLD_FULL = 32


def slices(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), SLICE_BYTES):
        yield body[start : start + SLICE_BYTES]


def is_drained(*, connections: int, requests: int) -> bool:
    """A request may outlive its connection (a call that runs on to its deadline), a connection its last request."""
    return connections == 0 and requests == 0
