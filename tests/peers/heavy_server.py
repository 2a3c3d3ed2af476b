"""A server of every transport whose tools answer with far too much: what a gateway must survive. Standard library only.

`--transport http` (2026-07-28, JSON), `http-sse` (2026-07-28, the answer as an event), `sse` (HTTP+SSE) or `stdio` (2025-11-25).
HTTP servers announce their port on `--ready-fd`. Tools:

| tool      | answers with |
| --------- | ------------ |
| `text`    | `bytes` bytes of text in one block |
| `endless` | bytes without an end, none of them a line end |
| `gzip`    | a body of `bytes` zeros, compressed a thousandfold |
| `echo`    | a word |
| `chatter` | `count` notifications of progress with `bytes` bytes of text each, and then a word |
"""

import argparse
import json
import os
import queue
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MIB = 1024 * 1024
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("text", "endless", "gzip", "echo", "chatter")]
MODERN = "2026-07-28"


def plain(method: str) -> dict[str, Any] | None:
    """The results that are small."""
    capabilities: dict[str, Any] = {"tools": {}}
    if method == "server/discover":
        return {
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "capabilities": capabilities,
            "ttlMs": 60000,
            "cacheScope": "private",
        }
    if method == "initialize":
        info = {"name": "heavy", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
    if method == "tools/list":
        return {"tools": TOOLS, "ttlMs": 60000, "cacheScope": "private", "resultType": "complete"}
    return {} if method == "ping" else None


def pieces(request: dict[str, Any]):
    """The answer to one request, in pieces; none for what is no request."""
    method, id = request["method"], json.dumps(request["id"]).encode()
    result = plain(method)
    params = request.get("params") or {}
    arguments = params.get("arguments") or {}
    if result is not None:
        yield b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id, json.dumps(result).encode())
        return
    if method != "tools/call":
        yield b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32601,"message":"no"}}' % id
        return
    yield b'{"jsonrpc":"2.0","id":%b,"result":{"resultType":"complete","content":[{"type":"text","text":"' % id
    if params["name"] in ("echo", "chatter"):
        yield params["name"].encode()
        arguments = {}
    left = arguments.get("bytes", 0) if params["name"] != "endless" else sys.maxsize
    while left > 0:
        yield b"x" * min(left, MIB)
        left -= MIB
    yield b'"}]}}'


def chatter(request: dict[str, Any]):
    """What is told ahead of the answer: whole messages."""
    params = request.get("params") or {}
    if params.get("name") != "chatter":
        return
    told = {"progressToken": params["_meta"]["progressToken"], "message": "x" * params["arguments"]["bytes"]}
    for number in range(params["arguments"]["count"]):
        message = {"jsonrpc": "2.0", "method": "notifications/progress", "params": told | {"progress": number}}
        yield json.dumps(message).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"
    streams: list["queue.Queue[bytes]"] = []

    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.server.transport != "sse":
            self.head(405, "text/plain")
            self.chunk(b"")
            return
        messages: queue.Queue[bytes] = queue.Queue()
        self.streams.append(messages)
        self.head(200, "text/event-stream")
        self.chunk(b"event: endpoint\ndata: /messages\n\n")
        while True:
            self.chunk(messages.get())

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/mcp" and self.server.transport == "sse":
            self.head(405, "text/plain")
            self.chunk(b"")
        elif "id" not in request or self.server.transport == "sse":
            self.head(202, "text/plain")
            self.chunk(b"")
            if "id" in request:
                threading.Thread(target=self.down, args=(request,), daemon=True).start()
        elif request.get("params", {}).get("name") == "gzip":
            self.bomb(request)
        else:
            self.answer(request)

    def down(self, request: dict[str, Any]) -> None:
        stream = self.streams[-1]
        for message in chatter(request):
            while stream.qsize() > 4:
                threading.Event().wait(0.001)
            stream.put(b"data: %b\n\n" % message)
        stream.put(b"data: ")
        for piece in pieces(request):
            while stream.qsize() > 4:
                threading.Event().wait(0.001)
            stream.put(piece)
        stream.put(b"\n\n")

    def answer(self, request: dict[str, Any]) -> None:
        is_event = self.server.transport == "http-sse" and request["method"] == "tools/call"
        self.head(200, "text/event-stream" if is_event else "application/json")
        if is_event:
            for message in chatter(request):
                self.chunk(b"data: %b\n\n" % message)
            self.chunk(b"data: ")
        for piece in pieces(request):
            self.chunk(piece)
        if is_event:
            self.chunk(b"\n\n")
        self.chunk(b"")

    def bomb(self, request: dict[str, Any]) -> None:
        self.head(200, "application/json", "Content-Encoding: gzip")
        packer = zlib.compressobj(9, wbits=31)
        for piece in pieces(request):
            if packed := packer.compress(piece):
                self.chunk(packed)
        self.chunk(packer.flush())
        self.chunk(b"")

    def head(self, status: int, kind: str, *more: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", "Transfer-Encoding: chunked", *more]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode())

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True
    transport = ""


def serve_http(transport: str, ready_fd: int) -> None:
    server = Server(("127.0.0.1", 0), Handler)
    server.transport = transport
    os.write(ready_fd, json.dumps({"port": server.server_port}).encode() + b"\n")
    server.serve_forever()


def serve_stdio() -> None:
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" in request:
            for message in chatter(request):
                sys.stdout.buffer.write(message + b"\n")
            for piece in pieces(request):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.write(b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", required=True)
    parser.add_argument("--ready-fd", type=int, default=2)
    chosen = parser.parse_args()
    serve_stdio() if chosen.transport == "stdio" else serve_http(chosen.transport, chosen.ready_fd)
