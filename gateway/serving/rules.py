"""What we decide about connections: how long each phase may last, what is refused and in which words, how answers are cut.

Pure values and functions, so that another ASGI server could stand underneath and obey the same rules. Nothing here reads a
socket or a clock; `connection`, `request` and `server` carry the verdicts out.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, TypeVar

MIB = 1024 * 1024

# Of one body. Each costs as much as two hundred bytes: in pieces of one byte, a megabyte would take seconds of CPU.
PIECES_MAX = 8192

# A larger write would sit in memory whole, whatever the client reads: what is sent must be able to pause in between.
SLICE_BYTES = 64 * 1024


class Phase(Enum):
    """Where a connection is in its exchange. One request at a time: pipelined ones wait for their turn."""

    NEW = auto()  # nothing asked yet
    IDLE = auto()  # the last answer is written
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
    Phase.NEW: Verdict.CLOSE,
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
    # When there is no room for a newcomer, connections that ask for nothing give way to it, as they do in nginx: after so long
    # in their phase. A head comes in one piece from whoever means it, and a busy client asks again within two seconds.
    new_gives_way_s: float = 0.5
    head_gives_way_s: float = 1
    idle_gives_way_s: float = 2
    body_gives_way_s: float = 5
    # A cancelled request tidies up, the last hook ends: together well inside what a supervisor grants after the grace.
    cancelled_s: float = 1
    stop_s: float = 5

    def allowed_s(self, *, draining: bool) -> dict[Phase, float]:
        idle_s = self.idle_draining_s if draining else self.idle_s
        return {
            Phase.NEW: idle_s,
            Phase.IDLE: idle_s,
            Phase.HEAD: self.head_s,
            Phase.BODY: self.body_s,
            Phase.ANSWERING: math.inf,
            Phase.REFUSED: self.refused_s,
            Phase.CLOSING: self.closing_s,
        }

    @property
    def gives_way_s(self) -> Mapping[Phase, float]:
        """Who goes first stands first."""
        return {
            Phase.NEW: self.new_gives_way_s,
            Phase.HEAD: self.head_gives_way_s,
            Phase.IDLE: self.idle_gives_way_s,
            Phase.BODY: self.body_gives_way_s,
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

    def closing_answer(self, id: str) -> bytes:
        """The whole HTTP answer of a refusal after which the connection is never used again; `id`: the request's."""
        head = b"HTTP/1.1 %d %s\r\n" % (self.status, self.reason.encode())
        lines = b"".join(b"%s: %s\r\n" % line for line in self.headers)
        return head + lines + b"x-request-id: %s\r\nconnection: close\r\n\r\n" % id.encode() + self.body


def too_large(limit: int) -> Refusal:
    return Refusal(413, "Content Too Large", f"request body is larger than {limit} bytes")


def bad_request(detail: str = "malformed HTTP request") -> Refusal:
    return Refusal(400, "Bad Request", detail)


TOO_MANY_PIECES = bad_request(f"the request body comes in more than {PIECES_MAX} pieces")
HEAD_TOO_LARGE = Refusal(431, "Request Header Fields Too Large", "request line and headers are too large")
TLS = Refusal(400, "Bad Request", "this port speaks plain HTTP: call it with http://, or put TLS in front of it")
TOO_SLOW = Refusal(408, "Request Timeout", "the request did not arrive in time")
FAILED = Refusal(500, "Internal Server Error", "internal error", code=-32603)
FULL = Refusal(503, "Service Unavailable", "the gateway has no room for connections", code=-32603, retry_after_s=10)
STOPPING = Refusal(503, "Service Unavailable", "the gateway is shutting down", code=-32603, retry_after_s=5)


# At a time: a flood of newcomers does not mean a look at every connection for each, and those that are on their way out hold
# few descriptors. Where nobody could give way, nobody is looked for again at once.
GIVE_WAY_TOGETHER = 16
LOOKS_APART_S = 0.1
# Connections beyond the limit that are told so; what comes beyond these too is not taken.
TOLD_FULL = 16


class Held(Protocol):
    phase: Phase
    since: float


H = TypeVar("H", bound=Held)


def give_way(connections: Iterable[H], now: float, gives_way_s: Mapping[Phase, float]) -> list[H]:
    """Those that make room: whoever never asked before whoever asks slowly, and the longest in its phase first."""
    order = list(gives_way_s)
    could = [each for each in connections if now - each.since >= gives_way_s.get(each.phase, math.inf)]
    could.sort(key=lambda each: (order.index(each.phase), each.since))
    return could[:GIVE_WAY_TOGETHER]


def origin_form(method: bytes, target: bytes, hosts: list[bytes]) -> bytes | None:
    """The path and query of a target that does not begin with a slash (RFC 9112, 3.2); None where it cannot be served.

    An absolute target names the host a second time: where the two differ, whoever stands in front may have believed the other.
    """
    if target == b"*":
        return target if method == b"OPTIONS" else None
    scheme, separator, rest = target.partition(b"://")
    host, slash, path = rest.partition(b"/")
    if not separator or scheme.lower() not in (b"http", b"https") or [host.lower()] != [each.lower() for each in hosts]:
        return None
    return slash + path or b"/"


def slices(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), SLICE_BYTES):
        yield body[start : start + SLICE_BYTES]


def is_drained(*, connections: int, requests: int) -> bool:
    """A request may outlive its connection (a call that runs on to its deadline), a connection its last request."""
    return connections == 0 and requests == 0
