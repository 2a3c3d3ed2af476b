"""A tiny ASGI application on the real server, for the tests of `gateway.serving`.

`python -m tests.component.serving_app '{"limits": …}'`

Prints one JSON line with its port when ready, and one at each step of its life. Every path is one behaviour.
"""

import asyncio
import gc
import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Any

from gateway.serving.request import Request
from gateway.serving.rules import Deadlines
from gateway.serving.server import ClientGone, Lifecycle, connections, in_flight, serve
from mcpserver.lib.limits import Limits
from mcpserver.lib.sockets import listening_socket

told_to_end = asyncio.Event()
seen: dict[str, Any] = {"gone": 0, "disconnects": 0, "cancelled": 0, "ended": 0}


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def body_of(receive) -> list[bytes]:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return parts
        parts.append(message["body"])
        if not message["more_body"]:
            return parts


async def answer(send, body: bytes, status: int = 200, *extra: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *extra]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope, receive, send) -> None:
    await answer(send, b"".join(await body_of(receive)))


async def pieces(scope, receive, send) -> None:
    """How many messages the body came in, and its length."""
    parts = await body_of(receive)
    await answer(send, json.dumps({"messages": len(parts), "bytes": sum(map(len, parts))}).encode())


async def show_scope(scope, receive, send) -> None:
    await body_of(receive)
    shown = {name: scope[name] for name in ("type", "method", "path", "root_path")}
    shown["headers"] = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    await answer(send, json.dumps(shown).encode())


async def show_seen(scope, receive, send) -> None:
    facts = seen | {
        "connections": connections(),
        "in_flight": in_flight(),
        "tasks": len(asyncio.all_tasks()),
        "loop": type(asyncio.get_running_loop()).__module__,
        "rss_kb": int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024,
        "requests_alive": sum(isinstance(each, Request) for each in gc.get_objects()),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }
    await answer(send, json.dumps(facts).encode())


async def flood(scope, receive, send) -> None:
    """Query: how many pieces of how many bytes."""
    pieces, size = map(int, scope["query_string"].split(b"x"))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        for number in range(pieces):
            await send({"type": "http.response.body", "body": bytes(size), "more_body": number < pieces - 1})
        seen["ended"] += 1
    except ClientGone:
        seen["gone"] += 1
        raise


async def stream(scope, receive, send) -> None:
    """Until the client leaves or the server drains."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: open\n\n", "more_body": True})
    await body_of(receive)
    left = asyncio.ensure_future(receive())
    ending = asyncio.ensure_future(told_to_end.wait())
    await asyncio.wait({left, ending}, return_when=asyncio.FIRST_COMPLETED)
    if left.done():
        seen["disconnects"] += 1
        try:
            await send({"type": "http.response.body", "body": b"data: late\n\n", "more_body": True})
        except ClientGone:
            seen["gone"] += 1
        return
    await send({"type": "http.response.body", "body": b"data: bye\n\n"})


async def slow(scope, receive, send) -> None:
    """Works for the seconds in the query, watching nobody."""
    await body_of(receive)
    try:
        await asyncio.sleep(float(scope["query_string"]))
    except asyncio.CancelledError:
        seen["cancelled"] += 1
        say(event="cancelled")
        raise
    seen["ended"] += 1
    say(event="worked")
    await answer(send, b"done")


async def wait_disconnect(scope, receive, send) -> None:
    await body_of(receive)
    message = await receive()
    assert message["type"] == "http.disconnect", message
    seen["disconnects"] += 1


async def fail(scope, receive, send) -> None:
    raise RuntimeError("as told")


async def fail_late(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise RuntimeError("as told")


async def say_nothing(scope, receive, send) -> None:
    return


async def no_body(scope, receive, send) -> None:
    await body_of(receive)
    await answer(send, b"", 204)


ROUTES = {
    "/": echo,
    "/pieces": pieces,
    "/scope": show_scope,
    "/seen": show_seen,
    "/flood": flood,
    "/stream": stream,
    "/slow": slow,
    "/wait": wait_disconnect,
    "/fail": fail,
    "/fail-late": fail_late,
    "/nothing": say_nothing,
    "/204": no_body,
}


async def application(scope, receive, send) -> None:
    await ROUTES.get(scope["path"], echo)(scope, receive, send)


async def on_start() -> None:
    if "fail_start" in sys.argv[2:]:
        raise RuntimeError("cannot start")
    say(event="starting")
    if "hang_start" in sys.argv[2:]:
        await asyncio.sleep(60)


async def on_drain() -> None:
    say(event="drain", connections=connections(), in_flight=in_flight())
    told_to_end.set()


async def on_stop() -> None:
    say(event="stop", in_flight=in_flight())
    if "hang_stop" in sys.argv[2:]:
        await asyncio.sleep(60)


def main() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    listener = listening_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]
    return serve(
        application,
        sockets=[listener],
        limits=Limits(**options.get("limits", {})),
        lifecycle=Lifecycle(on_start, on_drain, on_stop),
        ready=lambda: say(event="ready", port=port),
        deadlines=Deadlines(**options.get("deadlines", {})),
    )


if __name__ == "__main__":
    sys.exit(main())
