"""An event stream: what is queued for a client goes out, with a heartbeat between, until it ends, is too old, or nobody reads.

Three things end one: the outbox (the server is shutting down, the key was revoked, a newer stream took its place), its age,
and the client. The age limit is spread over five minutes, so that a thousand streams opened together do not come back together.
"""

import asyncio
import random

from gateway import access, metrics
from gateway.endpoint.http import EVENT_STREAM, Header, Receive, Send
from gateway.outbox import Outbox
from mcpserver.lib.limits import Limits
from mcpserver.protocol import sse

SHUTDOWN = b"event: shutdown\ndata: server shutting down\n\n"
_SPREAD = 1 / 12


async def run(
    outbox: Outbox, send: Send, receive: Receive, limits: Limits, *, first: bytes, headers: tuple[Header, ...] = ()
) -> bool:
    """Serve the stream to its end; True when it was ended from our side, and the caller may still say goodbye.

    Raises ClientGone when the client left in the middle of a write.
    """
    await send({"type": "http.response.start", "status": 200, "headers": [*EVENT_STREAM, *headers]})
    await send({"type": "http.response.body", "body": first, "more_body": True})
    watcher = asyncio.create_task(_leaves(receive, outbox))
    metrics.STREAMS.inc()
    about = access.current()
    access.opened(about)
    about.is_gone = True  # until it is known that it was ended from our side
    try:
        about.is_gone = not await _pump(outbox, send, limits, watcher)
        return not about.is_gone
    finally:
        metrics.STREAMS.dec()
        watcher.cancel()


async def close(send: Send, last: bytes = b"") -> None:
    await send({"type": "http.response.body", "body": last, "more_body": False})


def life_s(limit_s: float, chance: float) -> float:
    """How old a stream gets, for a chance between 0 and 1: an hour is 55 to 60 minutes."""
    return limit_s * (1 - chance * _SPREAD)


async def _pump(outbox: Outbox, send: Send, limits: Limits, watcher: "asyncio.Task[None]") -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + life_s(limits.connection_timeout_s, random.random())  # noqa: S311 - no secret
    while (left := until - loop.time()) > 0:
        message = await outbox.get(min(limits.heartbeat_s, left))
        if message is None:
            break
        await send({"type": "http.response.body", "body": message or sse.HEARTBEAT, "more_body": True})
    return not watcher.done()


async def _leaves(receive: Receive, outbox: Outbox) -> None:
    """Wait for the client to leave, then end the stream."""
    while (await receive())["type"] != "http.disconnect":
        continue
    outbox.end()
