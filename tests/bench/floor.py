"""The floor: a bare ASGI application that answers the echo itself, on the very launcher that serves the gateway.

What the gateway costs above it is the gateway's own doing; what the floor costs is Daphne's, Twisted's and the kernel's.
"""

import argparse
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

Message = dict[str, Any]


class _Params(msgspec.Struct):
    arguments: dict[str, msgspec.Raw]


class _Call(msgspec.Struct):
    id: msgspec.Raw
    params: _Params


_decode = msgspec.json.Decoder(_Call).decode


async def application(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer one tools/call of the load client with its own text."""
    assert scope["type"] == "http"
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    call = _decode(body)
    text = call.params.arguments["text"]
    result = b',"result":{"resultType":"complete","content":[{"type":"text","text":' + text + b'}],"isError":false}}'
    answer = b'{"jsonrpc":"2.0","id":' + call.id + result
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def main() -> int:
    """Serve on the inherited listening socket until SIGTERM."""
    from gateway.serving import Lifecycle
    from gateway.serving.server import serve  # the first import, as it chooses the event loop
    from mcpserver.lib.limits import Limits

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="an inherited, listening socket")
    listener = socket.socket(fileno=parser.parse_args().fd)

    async def nothing() -> None:
        return

    lifecycle = Lifecycle(on_start=nothing, on_drain=nothing, on_stop=nothing)
    return serve(application, sockets=[listener], limits=Limits(), lifecycle=lifecycle, ready=lambda: None)


if __name__ == "__main__":
    raise SystemExit(main())
