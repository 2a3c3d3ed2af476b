"""How a stream ends by itself: when, after what, and how silence is broken until then. Orders are held, not seconds."""

import asyncio
from typing import Any

import pytest

from gateway import access
from gateway.endpoint import stream
from gateway.endpoint.stream import Lifetime, lifetime, pump
from gateway.sessions.outbox import Outbox
from mcpserver.lib.limits import Limits
from mcpserver.protocol import sse

LONG = Lifetime(ends_s=60, over_s=60)


class Client:
    """Reads what is sent, and leaves when it is told to."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.leaves = asyncio.Event()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.bodies.append(message["body"])

    async def receive(self) -> Any:
        await self.leaves.wait()
        return {"type": "http.disconnect"}


@pytest.fixture(autouse=True)
def _a_request() -> None:
    access.begin("GET /mcp")


@pytest.mark.edge(3)
def test_an_hour_ends_between_its_last_five_minutes_and_its_last() -> None:
    assert lifetime(3600, 0) == (3300, 3600)
    assert lifetime(3600, 1) == (3540, 3600)
    assert len({lifetime(3600, chance / 1000) for chance in range(1000)}) == 1000


@pytest.mark.edge(2)
async def test_silence_is_broken_by_heartbeats() -> None:
    client, outbox = Client(), Outbox()
    pumping = asyncio.create_task(pump(outbox, client.send, 0.01, LONG))
    while len(client.bodies) < 3:
        await asyncio.sleep(0.01)
    outbox.put(b"told")
    outbox.end()
    await pumping
    assert client.bodies[:3] == [sse.HEARTBEAT] * 3
    assert client.bodies[-1] == b"told"


@pytest.mark.edge(10)
async def test_at_its_age_it_ends_after_what_waits() -> None:
    client, outbox = Client(), Outbox()
    for number in range(3):
        outbox.put(b"%d" % number)
    await pump(outbox, client.send, 60, Lifetime(0, 60))
    assert client.bodies == [b"0", b"1", b"2"]
    assert outbox.ended


async def test_a_flood_does_not_prolong_it() -> None:
    client, outbox = Client(), Outbox()

    async def flooded(message: Any) -> None:
        await client.send(message)
        await asyncio.sleep(0.001)
        outbox.put(b"more")

    outbox.put(b"first")
    await asyncio.wait_for(pump(outbox, flooded, 60, Lifetime(0.05, 60)), 20)
    assert set(client.bodies) == {b"first", b"more"}


async def test_what_was_promised_arrives_after_its_age() -> None:
    client, outbox = Client(), Outbox()
    outbox.promise()
    pumping = asyncio.create_task(pump(outbox, client.send, 0.01, Lifetime(0, 60)))
    while len(client.bodies) < 3:
        await asyncio.sleep(0.01)
    outbox.put_answer(b"the answer")
    outbox.settle()
    await asyncio.wait_for(pumping, 20)
    assert client.bodies[-1] == b"the answer"


async def test_what_never_comes_is_not_waited_for_beyond_the_limit() -> None:
    client, outbox = Client(), Outbox()
    outbox.promise()
    await asyncio.wait_for(pump(outbox, client.send, 60, Lifetime(0, 0.05)), 20)


async def test_whoever_left_is_not_said_goodbye_to() -> None:
    client, outbox = Client(), Outbox()
    running = asyncio.create_task(stream.run(outbox, client.send, client.receive, Limits(), first=b"first"))
    while not client.bodies:
        await asyncio.sleep(0)
    client.leaves.set()
    assert await asyncio.wait_for(running, 20) is False
    assert client.bodies == [b"first"]


@pytest.mark.edge(3)
async def test_whoever_stays_is() -> None:
    client, outbox = Client(), Outbox()
    outbox.put(b"told")
    limits = Limits(connection_timeout_s=0.3)
    running = stream.run(outbox, client.send, client.receive, limits, first=b"first")
    assert await asyncio.wait_for(running, 20) is True
    assert client.bodies[:2] == [b"first", b"told"]
