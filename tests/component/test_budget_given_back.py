"""What an answer was granted of the memory is given back in the moment in which it fails: nobody waits for the collector."""

import asyncio
import contextlib
import gc

import pytest

from remotes.upstream.budget import Budget
from remotes.upstream.client import Upstream
from tests.component.upstreams import (
    SSE_HEAD,
    EventStream,
    Request,
    Script,
    Wire,
    call,
    http,
    legacy,
    modern,
    process,
    served,
)

pytestmark = pytest.mark.edge(14)

PART = b"x" * 300_000
CHILD = """
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    elif method == "tools/call":
        sys.stdout.write("{" + "x" * 300_000)
        sys.stdout.flush()
        END
"""


async def cut_json(request: Request, wire: Wire) -> None:
    head = b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 5000000\r\n\r\n"
    await wire.send(head, b'{"jsonrpc":' + PART)


async def cut_events(request: Request, wire: Wire) -> None:
    await wire.send(SSE_HEAD)
    await wire.chunk(b"event: message\ndata: " + PART)


def ended(begin, end):
    async def script(request: Request, wire: Wire) -> None:
        await begin(request, wire)
        if end == "reset":
            await asyncio.sleep(0.02)
            wire.reset()
        elif end == "close":
            wire.close()
        else:
            await wire.until_gone()

    return script


async def cut_event(stream: EventStream, request: Request) -> None:
    assert stream.wire is not None
    await stream.wire.chunk(b"event: message\ndata: " + PART)
    await asyncio.sleep(0.02)
    stream.wire.reset()


@contextlib.asynccontextmanager
async def remote(kind, end, budget):
    if kind == "stdio":
        spec = process(CHILD.replace("END", "os._exit(1)" if end != "hang" else "continue"), timeout_s=0.3)
        async with closing(Upstream(spec, budget=budget)) as one:
            yield one
        return
    scripts: dict[str, Script] = {
        "modern json": modern({"tools/call": ended(cut_json, end)}),
        "legacy json": legacy({"tools/call": ended(cut_json, end)}),
        "modern events": modern({"tools/call": ended(cut_events, end)}),
        "legacy events": legacy({"tools/call": ended(cut_events, end)}),
        "sse": EventStream({"tools/call": cut_event}),
    }
    async with served(scripts[kind]) as server:
        named = {"transport": "sse"} if kind == "sse" else {}
        async with closing(Upstream(http(server, timeout_s=0.3, **named), budget=budget)) as one:
            yield one


@contextlib.asynccontextmanager
async def closing(one):
    try:
        yield one
    finally:
        await one.close()


@contextlib.contextmanager
def nothing_is_collected():
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("end", ["reset", "close", "hang", "cancelled"])
@pytest.mark.parametrize("kind", ["modern json", "legacy json", "modern events", "legacy events", "sse", "stdio"])
async def test_an_answer_that_breaks_off_holds_nothing(kind, end):
    budget = Budget(8 * 1024 * 1024, read_max_bytes=1024 * 1024)
    with nothing_is_collected():
        async with remote(kind, "hang" if end == "cancelled" else end, budget) as one:
            for _ in range(2):
                calling = asyncio.create_task(call(one, seconds=0.15))
                if end == "cancelled":
                    while not budget.bytes and not calling.done():
                        await asyncio.sleep(0.005)
                    calling.cancel()
                await asyncio.wait([calling])
        assert budget.bytes == 0


@pytest.mark.parametrize("kind", ["modern json", "modern events"])
async def test_an_answer_that_found_no_room_in_time_holds_nothing(kind):
    budget = Budget(200_000, read_max_bytes=1024 * 1024)
    other = budget.held("another")
    assert other.covers(190_000), "one may go on beyond its half"
    with nothing_is_collected():
        async with remote(kind, "hang", budget) as one:
            outcome = await call(one, seconds=0.2)
            assert outcome.fault == "crowded"
        assert (budget.bytes, budget.waiting) == (190_000, 0)


@pytest.mark.parametrize("kind", ["modern json", "modern events"])
async def test_an_answer_that_is_too_large_holds_nothing(kind):
    budget = Budget(8 * 1024 * 1024, read_max_bytes=200_000)
    with nothing_is_collected():
        async with remote(kind, "hang", budget) as one:
            assert (await call(one, seconds=1)).fault == "too_large"
        assert budget.bytes == 0
