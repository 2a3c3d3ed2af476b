"""What stands between the conformance tool and the gateway: adds the key, maps names, and is otherwise transparent.

The tool can send neither. Bytes of a request and of an answer pass as they are (the spelling of header names, white space
around values, bodies in which nothing is renamed); streams pass event by event, without waiting for their end. A client
that leaves closes the connection to the gateway, and the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tests.conformance.names import Names

HEAD_LIMIT = 1 << 20
RECORDED = 20_000  # bytes of each body that a record keeps
NO_BODY = frozenset({204, 304})


@dataclass
class Head:
    """Start line and headers, as they were spelled."""

    start: bytes
    fields: list[tuple[bytes, bytes]]

    @classmethod
    async def read(cls, reader: asyncio.StreamReader, begun: bytes = b"") -> Head:
        lines = (begun + await reader.readuntil(b"\r\n\r\n")).rstrip(b"\r\n").split(b"\r\n")
        pairs = (line.partition(b":") for line in lines[1:])
        return cls(lines[0], [(name, value) for name, _, value in pairs])

    def get(self, name: bytes) -> bytes | None:
        return next((value.strip() for key, value in self.fields if key.lower() == name), None)

    def drop(self, *names: bytes) -> None:
        self.fields = [(key, value) for key, value in self.fields if key.lower() not in names]

    def sized(self, length: int) -> None:
        """Say how long the body is, whatever was said before."""
        self.drop(b"content-length", b"transfer-encoding")
        self.fields.append((b"Content-Length", b" %d" % length))

    @property
    def chunked(self) -> bool:
        return (self.get(b"transfer-encoding") or b"").lower() == b"chunked"

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def __bytes__(self) -> bytes:
        return b"\r\n".join([self.start, *(name + b":" + value for name, value in self.fields), b"", b""])


@dataclass
class Gateway:
    """Where it is and how it is spoken to."""

    host: str
    port: int
    key: str
    names: Names


class Proxy:
    def __init__(self, gateway: Gateway, record: Path | None = None) -> None:
        self.gateway = gateway
        self._record = record
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1") -> int:
        self._server = await asyncio.start_server(self._connection, host, 0, limit=HEAD_LIMIT)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one client connection, one after the other."""
        begun: bytes | None = b""
        try:
            while begun is not None:
                begun = await self._exchange(reader, writer, begun)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begun: bytes) -> bytes | None:
        """One request and its answer; what came of the next request meanwhile, or None when there will be none."""
        head = await Head.read(reader, begun)
        body = b"".join([part async for part in pieces(head, reader, request=True)])
        upstream_reader, upstream = await asyncio.open_connection(
            self.gateway.host, self.gateway.port, limit=HEAD_LIMIT
        )
        try:
            upstream.write(self._for_gateway(head, body))
            answering = asyncio.create_task(self._answer(upstream_reader, writer, (head, body)))
            leaving = asyncio.create_task(reader.read(1))
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and leaving.result() == b"":
                answering.cancel()  # and the connection to the gateway closes: a client that left has cancelled
                return None
            again = await answering
            begun_next = await _left_over(leaving)
            return begun_next if again else None
        finally:
            upstream.close()

    def _for_gateway(self, head: Head, body: bytes) -> bytes:
        renamed, method = self.gateway.names.request(body)
        sent = Head(head.start, list(head.fields))
        sent.fields = [
            (name, self.gateway.names.header(method, value) if name.lower() == b"mcp-name" else value)
            for name, value in sent.fields
        ]
        if sent.get(b"authorization") is None:
            sent.fields.append((b"Authorization", b" Bearer " + self.gateway.key.encode()))
        if renamed != body or sent.chunked:
            sent.sized(len(renamed))
        return bytes(sent) + renamed

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: tuple[Head, bytes]
    ) -> bool:
        """Pass the answer on; whether the client may use its connection again."""
        started = monotonic()
        head = await Head.read(reader)
        body = b""
        if (head.get(b"content-type") or b"").startswith(b"text/event-stream"):
            passed = Head(head.start, list(head.fields))
            passed.drop(b"content-length", b"transfer-encoding")
            passed.fields.append((b"Transfer-Encoding", b" chunked"))
            writer.write(bytes(passed))
            async for event in events(pieces(head, reader)):
                mapped = self.gateway.names.event(event)
                body += mapped
                writer.write(b"%x\r\n%s\r\n" % (len(mapped), mapped))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            body = self.gateway.names.answer(b"".join([part async for part in pieces(head, reader)]))
            if head.status not in NO_BODY:
                head.sized(len(body))
            writer.write(bytes(head) + body)
        await writer.drain()
        self._note(request, head, body, monotonic() - started)
        return (head.get(b"connection") or b"").lower() != b"close"

    def _note(self, request: tuple[Head, bytes], answer: Head, body: bytes, took: float) -> None:
        if self._record is None:
            return
        exchange = {
            "request": readable(*request),
            "answer": readable(answer, body),
            "took_s": round(took, 3),
        }
        with self._record.open("a") as record:
            record.write(json.dumps(exchange, ensure_ascii=False) + "\n")


async def _left_over(reading: asyncio.Task[bytes]) -> bytes:
    """What was read of the next request; a read that still waits must be over before the next one begins."""
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await reading
    return b""


def readable(head: Head, body: bytes) -> dict[str, object]:
    fields = {name.decode("latin-1"): value.decode("latin-1").strip() for name, value in head.fields}
    return {"start": head.start.decode("latin-1"), "headers": fields, "body": body[:RECORDED].decode(errors="replace")}


async def pieces(head: Head, reader: asyncio.StreamReader, *, request: bool = False) -> AsyncIterator[bytes]:
    """The body, as it comes: chunked, of known length, or (an answer) to the end of the connection."""
    if head.chunked:
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers say nothing here
        return
    length = head.get(b"content-length")
    if length is not None:
        yield await reader.readexactly(int(length))
    elif not request and head.status not in NO_BODY:
        while part := await reader.read(65536):
            yield part


async def events(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole events of a stream, each with the blank line that ends it; at the end, what is left."""
    held = b""
    async for part in parts:
        held += part
        while (end := ends(held)) is not None:
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def ends(held: bytes) -> int | None:
    """Where the first event ends, after its blank line."""
    found = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := held.find(mark)) >= 0]
    return min(found, default=None)


@contextlib.asynccontextmanager
async def proxying(gateway: Gateway, record: Path | None = None) -> AsyncIterator[int]:
    """A proxy in front of the gateway; its port."""
    proxy = Proxy(gateway, record)
    try:
        yield await proxy.start()
    finally:
        await proxy.stop()
