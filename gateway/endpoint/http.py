"""The few shapes of HTTP that all endpoints share: an answer, a refusal, a body."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

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
