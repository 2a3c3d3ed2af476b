"""What a remote trickles while it is connected to, shakes hands, lists or works stretches no deadline, on any transport."""

import asyncio
import time

import pytest

from gateway.catalog.listing import load
from remotes.upstream.outcome import Failed, Fault
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
    upstream,
)

SOON_S = 0.5
PACE_S = 0.05


async def drip(request: Request, wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    while True:
        await wire.send(b" ")
        await asyncio.sleep(PACE_S)


async def comments(request: Request, wire: Wire) -> None:
    await wire.send(SSE_HEAD)
    while True:
        await wire.chunk(b": still here\n\n")
        await asyncio.sleep(PACE_S)


async def head_by_bytes(request: Request, wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        await wire.send(b"a")
        await asyncio.sleep(PACE_S)


async def on_the_wire(stream: EventStream, request: Request) -> None:
    assert stream.wire is not None
    while True:
        await stream.wire.chunk(b": still here\n\n")
        await stream.down(
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
        )
        await stream.down(
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": request.id}}
        )
        await asyncio.sleep(PACE_S)


async def refused_in_time(one, work) -> None:
    started = time.monotonic()
    with pytest.raises(Failed) as failed:
        await work
    assert failed.value.failure.fault in (Fault.TIMEOUT, Fault.INVALID)
    assert time.monotonic() - started < 2 * SOON_S + 4


HANDSHAKES: dict[str, Script] = {
    f"{kind} {name}": script({method: answer})
    for kind, script, method in (("modern", modern, "server/discover"), ("legacy", legacy, "initialize"))
    for name, answer in (("drips", drip), ("comments", comments), ("head", head_by_bytes))
}


@pytest.mark.edge(1)
@pytest.mark.parametrize("handshake", HANDSHAKES)
async def test_a_handshake_over_http_has_its_time_and_no_more(handshake):
    async with (
        served(HANDSHAKES[handshake]) as server,
        upstream(http(server, connect_timeout_s=SOON_S)) as one,
    ):
        await refused_in_time(one, one.connected(asyncio.get_running_loop().time() + 10))


@pytest.mark.edge(1)
@pytest.mark.parametrize(
    "script", [comments, EventStream({"initialize": on_the_wire})], ids=["no endpoint", "no answer"]
)
async def test_a_handshake_over_an_event_stream_has_its_time_and_no_more(script):
    spec = {"transport": "sse", "connect_timeout_s": SOON_S}
    async with served(script) as server, upstream(http(server, **spec)) as one:
        await refused_in_time(one, one.connected(asyncio.get_running_loop().time() + 10))


@pytest.mark.edge(1)
@pytest.mark.edge(15)
async def test_a_call_over_an_event_stream_has_its_time_and_no_more():
    async with (
        served(EventStream({"tools/call": on_the_wire})) as server,
        upstream(http(server, transport="sse")) as one,
    ):
        assert (await call(one, seconds=SOON_S)).fault is Fault.TIMEOUT


BABBLE = """
import json, sys, threading, time
def say(message): print(json.dumps({"jsonrpc": "2.0"} | message), flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == WHEN:
        def babble():
            while True:
                print("still here", flush=True)
                say({"method": "notifications/progress", "params": {"progressToken": message["id"]}})
                time.sleep(0.05)
        threading.Thread(target=babble, daemon=True).start()
    elif message["method"] == "initialize":
        server = {"serverInfo": {"name": "p", "version": "1"}, "capabilities": {"tools": {}}}
        say({"id": message["id"], "result": server | {"protocolVersion": "2025-11-25"}})
"""


@pytest.mark.edge(1)
@pytest.mark.edge(15)
async def test_a_process_that_babbles_instead_of_answering_has_its_time_and_no_more():
    handshake = BABBLE.replace("WHEN", "'initialize'")
    async with upstream(process(handshake, connect_timeout_s=2 * SOON_S)) as one:
        await refused_in_time(one, one.connected(asyncio.get_running_loop().time() + 10))
    async with upstream(process(BABBLE.replace("WHEN", "'tools/call'"))) as one:
        await one.connected(asyncio.get_running_loop().time() + 5)
        assert (await call(one, seconds=SOON_S)).fault is Fault.TIMEOUT


@pytest.mark.edge(1)
async def test_a_list_of_endless_pages_has_its_time_and_no_more():
    async def pages(request: Request, wire: Wire) -> None:
        await asyncio.sleep(PACE_S)
        await wire.result(request, {"tools": [], "nextCursor": str(time.monotonic()), "resultType": "complete"})

    script = modern({"tools/list": pages})
    async with served(script) as server, upstream(http(server, list_timeout_s=SOON_S)) as one:
        await refused_in_time(one, load(one, 55))
