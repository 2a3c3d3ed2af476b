"""An event stream: what is queued for a client goes out, with a heartbeat between, until it ends, is too old, or nobody reads.

Three things end one: the outbox (the server is shutting down, the key was revoked, a newer stream took its place), its age,
and the client. The age at which one ends is spread over five minutes of an hour, so that a thousand streams that were opened
together do not come back together; what has been promised on it by then may still arrive until the hour is full.
"""

import asyncio
import random
from typing import NamedTuple

from gateway import access, metrics
from gateway.endpoint.http import EVENT_STREAM, Header, Receive, Send
from gateway.sessions.outbox import Outbox
from mcpserver.lib.limits import Limits
from mcpserver.protocol import sse

SHUTDOWN = b"event: shutdown\ndata: server shutting down\n\n"
# Of the age limit: the earliest end, and the latest, which leaves a call in flight the time that most take at most.
_EARLIEST, _LATEST = 11 / 12, 59 / 60


class Lifetime(NamedTuple):
    """When a stream is to end by itself, and when it must, in seconds from its beginning."""

    ends_s: float
    over_s: float


def lifetime(limit_s: float, chance: float) -> Lifetime:
    """`chance`: 0 to 1."""
    return Lifetime(limit_s * (_EARLIEST + (_LATEST - _EARLIEST) * chance), limit_s)


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
        life = lifetime(limits.connection_timeout_s, random.random())  # noqa: S311 - no secret
        await pump(outbox, send, limits.heartbeat_s, life)
        about.is_gone = watcher.done()
        return not about.is_gone
    finally:
        metrics.STREAMS.dec()
        watcher.cancel()


async def close(send: Send, last: bytes = b"") -> None:
    await send({"type": "http.response.body", "body": last, "more_body": False})


async def pump(outbox: Outbox, send: Send, heartbeat_s: float, life: Lifetime) -> None:
    """Send what comes, to the end of the outbox or of its life. A message that has begun goes out whole."""
    loop = asyncio.get_running_loop()
    began, is_ending = loop.time(), False
    while True:
        left = began + (life.over_s if is_ending else life.ends_s) - loop.time()
        if left <= 0 and is_ending:
            return
        if left <= 0:
            is_ending = True
            outbox.finish()
            continue
        message = await outbox.get(min(heartbeat_s, left))
        if message is None:
            return
        await send({"type": "http.response.body", "body": message or sse.HEARTBEAT, "more_body": True})


async def _leaves(receive: Receive, outbox: Outbox) -> None:
    """Wait for the client to leave, then end the stream."""
    while (await receive())["type"] != "http.disconnect":
        continue
    outbox.end()
