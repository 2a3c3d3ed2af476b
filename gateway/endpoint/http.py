"""The few shapes of HTTP that all endpoints share: an answer, a refusal, a body."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from gateway.access import HEADER, Access
from mcpserver.protocol import jsonrpc

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON = (b"content-type", b"application/json")
EVENT_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # or nginx keeps events back
)


class Answering:
    """`send` of one request: the answer carries the request's id, and what it is stays known for the request's line."""

    __slots__ = ("_access", "_send")

    def __init__(self, send: Send, about: Access) -> None:
        self._send = send
        self._access = about

    def __call__(self, message: Message) -> Awaitable[None]:
        """No coroutine of its own: this is on the path of every answer."""
        about = self._access
        if message["type"] == "http.response.start":
            about.status = message["status"]
            message["headers"].append((HEADER, about.id.encode()))
        elif not about.is_told and not about.is_stream:
            about.said = message["body"]
        return self._send(message)


class Answer(msgspec.Struct, frozen=True):
    """A whole HTTP answer."""

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = (JSON,)


def refused(
    status: int, code: int, message: str, *, id: bytes | None = None, headers: tuple[Header, ...] = ()
) -> Answer:
    """An HTTP refusal whose body is a JSON-RPC error, so that no client takes this for another kind of server."""
    return Answer(status, jsonrpc.error(id, code, message), (JSON, *headers))


async def respond(send: Send, answer: Answer) -> None:
    # A 204 has no length, not even 0 (RFC 9110, 8.6).
    length = () if answer.status == 204 else ((b"content-length", b"%d" % len(answer.body)),)
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, *length]})
    await send({"type": "http.response.body", "body": answer.body})


async def read_body(receive: Receive) -> bytes | None:
    """The whole body, which the server underneath has capped; None when the client left."""
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts = [body]
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
    return b"".join(parts)
