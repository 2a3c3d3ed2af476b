"""How long an event stream lives, and that its end cuts nothing in two."""

import asyncio
from typing import Any

import pytest

from gateway import access
from gateway.endpoint import stream
from gateway.outbox import Outbox
from mcpserver.lib.limits import Limits
from mcpserver.protocol import sse

EVENT = sse.encode(b'{"jsonrpc":"2.0","method":"notifications/message"}')


@pytest.mark.edge(3)
def test_an_hour_is_fifty_five_to_sixty_minutes():
    assert [stream.life_s(3600, chance) for chance in (0, 0.5, 1)] == [3600, 3450, 3300]


@pytest.mark.edge(3)
async def test_a_stream_that_is_too_old_ends_between_two_messages_by_our_own_doing():
    outbox, sent = Outbox(), list[bytes]()

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        outbox.put(EVENT)  # there is always more to say
        await asyncio.sleep(0.01)

    async def stays() -> Any:
        await asyncio.Event().wait()

    access.begin("GET /mcp")
    limits = Limits(connection_timeout_s=0.3)
    async with asyncio.timeout(5):
        assert await stream.run(outbox, send, stays, limits, first=sse.HEARTBEAT), "who serves it may say goodbye"
    assert sent[:2] == [b"", sse.HEARTBEAT]
    assert set(sent[2:]) == {EVENT}
