"""What stands between the conformance tool and the gateway is transparent, and its upstream answers over every transport."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests import peers
from tests.conformance.names import Names
from tests.conformance.proxy import Gateway, Head, proxying
from tests.conformance.sse_bridge import Bridge

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = [sys.executable, "-m", "tests.conformance.upstream"]
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}'

Script = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def proxied(script: Script) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the proxy, with a scripted gateway behind it: it is handed each request's bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = await reader.readuntil(b"\r\n\r\n")
        length = int(next(line[15:] for line in raw.lower().split(b"\r\n") if line.startswith(b"content-length:")))
        await script(raw + await reader.readexactly(length), reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    gateway = Gateway("127.0.0.1", server.sockets[0].getsockname()[1], "mcp_key", Names("ev"))
    async with proxying(gateway) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        yield reader, writer
        writer.close()
    server.close()


def posted(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"POST /mcp HTTP/1.1", *headers, b"Content-Length: %d" % len(body), b"", body])


async def test_a_request_keeps_the_spelling_of_its_headers_and_gains_key_and_name() -> None:
    arrived = []

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(request)
        writer.write(b"HTTP/1.1 202 Accepted\r\nX-Odd:  kept \r\nContent-Length: 0\r\n\r\n")

    async with proxied(script) as (reader, writer):
        for _ in range(2):  # on one connection
            writer.write(posted(CALL, b"Host: evil.example", b"MCP-NAME:  a  "))
            assert b"X-Odd:  kept \r\n" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    head, _, body = arrived[1].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[1:3] == [b"Host: evil.example", b"MCP-NAME:  ev__a  "]
    assert b"Authorization: Bearer mcp_key" in lines
    assert json.loads(body)["params"] == {"name": "ev__a"}


async def test_an_event_passes_before_the_stream_ends_and_leaving_closes_the_gateways_connection() -> None:
    gone = asyncio.Event()

    async def script(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        event = b"id: 1\ndata: {}\n\n"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await reader.read()
        gone.set()

    async with proxied(script) as (reader, writer):
        writer.write(posted(CALL))
        async with asyncio.timeout(5):
            assert (await Head.read(reader)).status == 200
            await reader.readuntil(b"data: {}\n\n")
            writer.close()
            await gone.wait()


async def used(client: Client) -> None:
    """List, and call what says little and what reports progress."""
    values: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        values.append(progress)

    assert {"test_simple_text", "greet"} <= {tool.name for tool in (await client.list_tools()).tools}
    result = await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)
    assert not result.is_error
    assert values == [0, 50, 100]


@pytest.mark.parametrize(("era", "mode"), [("legacy", "legacy"), ("modern", "2026-07-28"), ("both", "2026-07-28")])
async def test_the_upstream_serves_streamable_http_in_its_era(era: str, mode: str) -> None:
    with peers.running([*UPSTREAM, "--era", era], environment={"PYTHONPATH": str(ROOT)}) as peer:
        async with Client(streamable_http_client(peer.url), mode=mode) as client:
            await used(client)


async def test_the_bridge_makes_one_session_of_an_http_sse_endpoint() -> None:
    options = ["--era", "legacy", "--transport", "sse"]
    with peers.running([*UPSTREAM, *options], path="/sse", environment={"PYTHONPATH": str(ROOT)}) as peer:
        async with (
            Bridge(peer.url, None, Names(None)).serving() as port,
            Client(streamable_http_client(f"http://127.0.0.1:{port}/mcp"), mode="legacy") as client,
        ):
            await used(client)


@pytest.mark.parametrize(("era", "mode"), [("legacy", "legacy"), ("modern", "2026-07-28")])
async def test_the_upstream_serves_stdio_in_its_era(era: str, mode: str) -> None:
    command = [*UPSTREAM, "--transport", "stdio", "--era", era]
    process = StdioServerParameters(command=command[0], args=command[1:], cwd=ROOT)
    async with Client(stdio_client(process), mode=mode) as client:
        await used(client)
