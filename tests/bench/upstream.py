"""The remote behind the gateway: an MCP server that echoes, as fast as Python allows, so that it is never the limit.

It speaks Streamable HTTP of both eras at `/{tools}/mcp` and HTTP+SSE of 2024-11-05 at `/{tools}/sse`, with `{tools}` tools:
`echo` answers its text, `slow` does so after 50 ms, `big` answers 1 MB, the others exist to be listed. `GET /counts` says
how often each method was asked. It checks nothing that a benchmark does not need checked, and never opens another port.
"""

import argparse
import asyncio
import gc
import itertools
import json
import socket
import sys
from collections import Counter
from typing import Any, cast

import msgspec
import uvloop

from tests.bench.wire import Messages, is_modern

SLOW_S = 0.05
BIG_BYTES = 1_000_000
MODERN = "2026-07-28"
SESSION_ERA = "2025-11-25"
_CACHE = b'"resultType":"complete","ttlMs":600000,"cacheScope":"public",'
_IDENTITY = {"name": "bench-upstream", "version": "1"}
_INITIALIZED = json.dumps(
    {"protocolVersion": SESSION_ERA, "capabilities": {"tools": {}}, "serverInfo": _IDENTITY},
).encode()
_DISCOVERED = json.dumps(
    {
        "supportedVersions": [MODERN, SESSION_ERA],
        "capabilities": {"tools": {}},
        "_meta": {"io.modelcontextprotocol/serverInfo": _IDENTITY},
    }
).encode()[1:-1]


class _Params(msgspec.Struct):
    name: str = ""
    arguments: dict[str, msgspec.Raw] = {}


class _Request(msgspec.Struct):
    method: str = ""
    id: msgspec.Raw = msgspec.Raw()  # empty: a notification (a union of Raw and None would refuse numbers)
    params: _Params | None = None


_decode = msgspec.json.Decoder(_Request).decode


def listing(count: int) -> list[dict[str, Any]]:
    """`count` tool definitions, each about the size that real servers have (350 B)."""
    schema = {"type": "object", "properties": {"text": {"type": "string", "description": "What to answer"}}}
    names = ["echo", "slow", "big", *(f"spare{number}" for number in range(count - 3))][:count]
    words = "Answers the text it is given. " * 5
    return [{"name": name, "title": f"Tool {name}", "description": words, "inputSchema": schema} for name in names]


class Upstream:
    """What all connections share: the answers, the open 2024-11-05 streams and the counts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.streams: dict[bytes, asyncio.Transport] = {}
        self.stream_ids = itertools.count(1)
        self._lists: dict[bytes, bytes] = {}
        self._big = b'"' + b"x" * BIG_BYTES + b'"'

    def answer(self, request: _Request, tools: bytes, *, modern: bool) -> tuple[bytes, bytes]:
        """The HTTP status and the JSON-RPC answer for a request with an id."""
        opening = b'{"jsonrpc":"2.0","id":' + bytes(request.id)
        result = self._result(request, tools, modern=modern)
        if result is None:
            status = b"404 Not Found" if modern else b"200 OK"
            return status, opening + b',"error":{"code":-32601,"message":"not served here"}}'
        return b"200 OK", opening + b',"result":' + result + b"}"

    def _result(self, request: _Request, tools: bytes, *, modern: bool) -> bytes | None:
        """The `result` object for a request; None when the method is not served."""
        complete = _CACHE if modern else b""
        match request.method:
            case "tools/call":
                params = request.params or _Params()
                text = self._big if params.name == "big" else bytes(params.arguments.get("text", b'""'))
                kind = b'"resultType":"complete",' if modern else b""
                return b"{" + kind + b'"content":[{"type":"text","text":' + text + b'}],"isError":false}'
            case "tools/list":
                return b"{" + complete + b'"tools":' + self._tools(tools) + b"}"
            case "server/discover" if modern:
                return b"{" + complete + _DISCOVERED + b"}"
            case "initialize" if not modern:
                return _INITIALIZED
            case "ping":
                return b"{}"
        return None

    def _tools(self, count: bytes) -> bytes:
        if count not in self._lists:
            self._lists[count] = json.dumps(listing(int(count))).encode()
        return self._lists[count]


class Connection(asyncio.Protocol):
    """One client connection: requests are answered in the order they came, `slow` ones by the loop's timer."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._messages = Messages()
        self._stream_id = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.streams.pop(self._stream_id, None)

    def data_received(self, data: bytes) -> None:
        for head, body in self._messages.feed(data):
            verb, path, _ = head.split(b" ", 2)
            if verb == b"POST":
                self._post(path, head, body)
            elif verb == b"GET" and path.endswith(b"/sse"):
                self._open_stream(path)
            elif path == b"/counts":
                self._respond(b"200 OK", json.dumps(self._upstream.counts).encode())
            else:
                self._respond(b"200 OK" if verb == b"DELETE" else b"405 Method Not Allowed")

    def _post(self, path: bytes, head: bytes, body: bytes) -> None:
        request = _decode(body)
        self._upstream.counts[request.method] += 1
        tools = path.split(b"/", 2)[1]
        _, _, stream_id = path.partition(b"session_id=")
        if stream_id:
            self._respond(b"202 Accepted", b"Accepted")
        elif not request.id:
            self._respond(b"202 Accepted")
        if not request.id:
            return
        modern = is_modern(head)
        status, answer = self._upstream.answer(request, tools, modern=modern)
        more = b"Mcp-Session-Id: bench\r\n" if request.method == "initialize" else b""
        wait = SLOW_S if request.params is not None and request.params.name == "slow" else 0
        if stream_id:
            self._later(wait, self._event, stream_id, answer)
        else:
            self._later(wait, self._respond, status, answer, more)

    def _later(self, wait: float, act: Any, *args: bytes) -> None:
        if wait:
            asyncio.get_running_loop().call_later(wait, act, *args)
        else:
            act(*args)

    def _respond(self, status: bytes, body: bytes = b"", more: bytes = b"") -> None:
        kind = b"Content-Type: application/json\r\n" if body else b""
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        self._transport.write(b"HTTP/1.1 " + status + b"\r\n" + kind + more + length + body)

    def _open_stream(self, path: bytes) -> None:
        self._stream_id = b"%d" % next(self._upstream.stream_ids)
        self._upstream.streams[self._stream_id] = self._transport
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        address = path.removesuffix(b"/sse") + b"/messages/?session_id=" + self._stream_id
        self._transport.write(head + _chunk(b"event: endpoint\ndata: " + address + b"\n\n"))

    def _event(self, stream_id: bytes, answer: bytes) -> None:
        stream = self._upstream.streams.get(stream_id)
        if stream is not None:
            stream.write(_chunk(b"event: message\ndata: " + answer + b"\n\n"))


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n" % len(payload) + payload + b"\r\n"


async def listen(listener: socket.socket) -> asyncio.Server:
    """Serve on an already listening socket until the returned server is closed."""
    upstream = Upstream()
    return await asyncio.get_running_loop().create_server(lambda: Connection(upstream), sock=listener)


async def _run(descriptor: int) -> None:
    server = await listen(socket.socket(fileno=descriptor))
    # Nothing on the path makes cycles; a collection here would be measured as the gateway's tail.
    gc.freeze()
    gc.disable()
    await server.serve_forever()


def _serve_stdio() -> None:
    """The same answers over stdio, for peers that know no other kind of remote."""
    upstream = Upstream()
    for line in sys.stdin.buffer:
        request = _decode(line)
        if request.id:
            _, answer = upstream.answer(request, b"1000", modern=False)
            sys.stdout.buffer.write(answer + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--fd", type=int, help="an inherited, listening socket")
    way.add_argument("--stdio", action="store_true")
    arguments = parser.parse_args()
    if arguments.stdio:
        _serve_stdio()
    else:
        uvloop.run(_run(arguments.fd))
