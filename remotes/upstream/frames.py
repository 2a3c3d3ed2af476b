"""What the worker that owns a stdio remote's process and its siblings say to each other, and how it travels.

Each frame is a length and msgpack: payloads hold any byte, newlines too. Both ends are ours and of one version; the socket is
0600. Sending waits for room and has a deadline, so a sibling that stopped reading costs its own link and nothing else; what need
not arrive (progress, log messages) is dropped when there is none.
"""

import asyncio
import struct
from collections.abc import AsyncIterator

import msgspec

from mcpserver.protocol.jsonrpc import Fields
from remotes.upstream.connection import Greeting
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Outcome, Refusal

_LENGTH = struct.Struct(">I")
# Beside the payload, a frame holds names and numbers.
_AROUND_BYTES = 2 * 1024 * 1024
_ROOM_BYTES = 1024 * 1024
_SEND_S = 10.0


class Frame(msgspec.Struct, tag=True, frozen=True):
    pass


# From a sibling to the owner.


class Asked(Frame, frozen=True):
    """A request. `left_s` is what is left of its time; `notified`, `may_ask`: its caller can be told, and asked."""

    number: int
    method: str
    params: dict[str, bytes]
    meta: dict[str, bytes]
    capabilities: bytes
    client_info: bytes | None
    log_level: str | None
    progress_token: bytes | None
    notified: bool
    may_ask: bool
    left_s: float


class Withdrawn(Frame, frozen=True):
    """Nobody waits for this request any more."""

    number: int


class Replied(Frame, frozen=True):
    question: int
    result: bytes | None = None
    error: bytes = b""
    modern: bool = False


class Notified(Frame, frozen=True):
    method: str
    params: bytes | None


# From the owner to a sibling.


class Greeted(Frame, frozen=True):
    transport: str
    revision: str
    capabilities: dict[str, bytes]
    server_info: bytes
    instructions: str


class Unavailable(Frame, frozen=True):
    """There is no process to speak with."""

    failure: Failure


class Answered(Frame, frozen=True):
    number: int
    result: bytes | None = None
    modern: bool = False
    error: bytes | None = None
    failure: Failure | None = None


class Told(Frame, frozen=True):
    """A notification of one request."""

    number: int
    method: str
    params: bytes | None


class Question(Frame, frozen=True):
    number: int
    question: int
    method: str
    params: bytes | None


class Unasked(Frame, frozen=True):
    """The question need not be answered any more."""

    question: int


class Heard(Frame, frozen=True):
    """What the remote said outside any request: a method of `Listener` and its argument."""

    what: str
    text: str = ""
    params: bytes = b""


class Occupied(Frame, frozen=True):
    """Whether a further call's question could not be told from another's, whoever made that call."""

    is_so: bool


class Leaving(Frame, frozen=True):
    """The process is gone, or is another worker's soon: what is under way here ends here, the next call connects anew."""

    failure: Failure


_Any = (
    Asked
    | Withdrawn
    | Replied
    | Notified
    | Greeted
    | Unavailable
    | Answered
    | Told
    | Question
    | Unasked
    | Heard
    | Occupied
    | Leaving
)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Any).decode


class Link:
    """One end of a connection between two workers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, max_bytes: int) -> None:
        self._reader = reader
        self._writer = writer
        self._max_bytes = max_bytes + _AROUND_BYTES
        self._turn = asyncio.Lock()

    async def send(self, frame: Frame) -> None:
        """Raises Failed (NOT_SENT) when the other end is gone or takes nothing."""
        try:
            async with asyncio.timeout(_SEND_S), self._turn:
                await self._writer.drain()
                if self._writer.is_closing():
                    raise _gone()
                self._write(frame)
        except TimeoutError:
            self.close()
            raise _gone() from None
        except (ConnectionError, RuntimeError):
            raise _gone() from None

    def say(self, frame: Frame) -> None:
        """Send what may get lost, without waiting."""
        if not self._writer.is_closing() and self._writer.transport.get_write_buffer_size() < _ROOM_BYTES:
            self._write(frame)

    async def frames(self) -> AsyncIterator[Frame]:
        """Until the other end is gone, or says what is no frame."""
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                if length > self._max_bytes:
                    return
                yield _decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            return
        finally:
            self.close()

    def close(self) -> None:
        self._writer.close()

    def _write(self, frame: Frame) -> None:
        payload = _encode(frame)
        self._writer.write(_LENGTH.pack(len(payload)) + payload)


def _gone() -> Failed:
    return Failed(Failure(Fault.NOT_SENT, "send", "the worker that runs it is gone"))


# Values of ours as frames, and back.


def asked(number: int, exchange: Exchange, left_s: float) -> Asked:
    return Asked(
        number,
        exchange.method,
        _bytes(exchange.params),
        _bytes(exchange.meta),
        bytes(exchange.capabilities),
        None if exchange.client_info is None else bytes(exchange.client_info),
        exchange.log_level,
        None if exchange.progress_token is None else bytes(exchange.progress_token),
        exchange.notify is not None,
        exchange.ask is not None,
        left_s,
    )


def exchange(frame: Asked, now: float) -> Exchange:
    """The request as the owner makes it; whom it tells and asks is the owner's to say."""
    return Exchange(
        frame.method,
        fields(frame.params),
        deadline=now + frame.left_s,
        meta=fields(frame.meta),
        capabilities=msgspec.Raw(frame.capabilities),
        client_info=None if frame.client_info is None else msgspec.Raw(frame.client_info),
        log_level=frame.log_level,
        progress_token=None if frame.progress_token is None else msgspec.Raw(frame.progress_token),
    )


def answered(number: int, outcome: Outcome) -> Answered:
    match outcome:
        case Answer(result, modern):
            return Answered(number, result=result, modern=modern)
        case Refusal(error):
            return Answered(number, error=error)
        case Failure():
            return Answered(number, failure=outcome)


def outcome(frame: Answered) -> Outcome:
    if frame.failure is not None:
        return frame.failure
    return Refusal(frame.error) if frame.error is not None else Answer(frame.result or b"{}", frame.modern)


def greeted(greeting: Greeting) -> Greeted:
    capabilities = _bytes(greeting.capabilities)
    return Greeted(greeting.transport, greeting.revision, capabilities, greeting.server_info, greeting.instructions)


def greeting(frame: Greeted) -> Greeting:
    return Greeting(frame.transport, frame.revision, fields(frame.capabilities), frame.server_info, frame.instructions)


def fields(raw: dict[str, bytes]) -> Fields:
    return {name: msgspec.Raw(value) for name, value in raw.items()}


def _bytes(raw: Fields) -> dict[str, bytes]:
    return {name: bytes(value) for name, value in raw.items()}
