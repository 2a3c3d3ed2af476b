"""Lists that are long or never end, over every transport: taken whole or given up in time, and nobody else waits for them."""

import asyncio
import contextlib
import json
import time

import pytest

from gateway.catalog.joined import Joined
from gateway.catalog.listing import load
from remotes.upstream.outcome import Failed, Fault
from tests.component.upstreams import (
    EventStream,
    Request,
    Script,
    Wire,
    http,
    legacy,
    modern,
    process,
    served,
    upstream,
)

pytestmark = pytest.mark.edge(13)

COUNT = 10_000
CHILD = """
import json, sys
def tool(number):
    return {"name": "t" + str(number), "inputSchema": {"type": "object"}}
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
    if message["method"] == "tools/list":
        result = ANSWER
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def tool(number: object, **more: object) -> dict[str, object]:
    return {"name": f"t{number}", "inputSchema": {"type": "object"}, **more}


def whole(asked: int) -> dict[str, object]:
    return {"tools": [tool(number) for number in range(COUNT)], "resultType": "complete"}


def endless(asked: int) -> dict[str, object]:
    return {"tools": [tool(asked)], "nextCursor": f"c{asked}", "resultType": "complete"}


@contextlib.asynccontextmanager
async def remote(transport, answer, **spec):
    """A remote that lists what `answer` says, given how often it was asked."""
    asked = 0

    def result() -> object:
        nonlocal asked
        asked += 1
        return answer(asked)

    async def posted(request: Request, wire: Wire) -> None:
        await wire.result(request, result())

    async def streamed(stream: EventStream, request: Request) -> None:
        await stream.result(request, result())

    if transport == "stdio":
        words = {
            whole: f'{{"tools": [tool(n) for n in range({COUNT})]}}',
            endless: '{"tools": [tool(0)], "nextCursor": "c" + str(message["id"])}',
        }
        async with upstream(process(CHILD.replace("ANSWER", words[answer]), **spec), cap=20_000_000) as one:
            yield one
        return
    scripts: dict[str, Script] = {
        "modern": modern({"tools/list": posted}),
        "legacy": legacy({"tools/list": posted}),
        "sse": EventStream({"tools/list": streamed}),
    }
    async with served(scripts[transport]) as server:
        named = {"transport": "sse"} if transport == "sse" else {}
        async with upstream(http(server, **named, **spec), cap=20_000_000) as one:
            yield one


TRANSPORTS = pytest.mark.parametrize("transport", ["modern", "legacy", "sse", "stdio"])


@TRANSPORTS
async def test_ten_thousand_tools_are_taken_whole(transport):
    async with remote(transport, whole, list_timeout_s=20) as one:
        listing = await load(one, 55)
        assert [entry.own for entry in listing.entries["tools/list"]] == [f"t{number}" for number in range(COUNT)]


@TRANSPORTS
async def test_cursors_without_end_are_given_up_in_time(transport):
    async with remote(transport, endless, list_timeout_s=0.5) as one:
        started = time.monotonic()
        with pytest.raises(Failed) as failed:
            await load(one, 55)
        assert failed.value.failure.fault in (Fault.INVALID, Fault.TIMEOUT)
        assert time.monotonic() - started < 8, "not the usual ten seconds"


async def test_nobody_waits_while_thousands_of_tools_are_cleaned_and_pinned():
    """The loop goes round all the while: the longest turn's work is compared with a second, and was some ten milliseconds."""
    dirty = {"description": "what\u200b it \u202edoes " * 10}
    tools = [tool(number, **dirty) for number in range(2000)]
    body = json.dumps({"tools": tools, "resultType": "complete"}).encode()

    async def posted(request: Request, wire: Wire) -> None:
        await wire.answer(b'{"jsonrpc":"2.0","id":%d,"result":' % request.id + body + b"}")

    turns: list[float] = []

    async def turn() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            turns.append(time.thread_time() - last)
            last = time.thread_time()

    async with served(modern({"tools/list": posted})) as server:  # noqa: SIM117
        async with upstream(http(server, list_timeout_s=10), cap=20_000_000) as one:
            await one.connected(asyncio.get_running_loop().time() + 5)
            turning = asyncio.create_task(turn())
            listing = await load(one, 55)
            turning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await turning
    assert listing.notes.stripped == 2000 * 20
    assert len(Joined(1, [("remote", listing)]).result("tools/list", _everyone(), modern=True)) > 300_000
    assert max(turns) < 1


def _everyone():
    from keys.principal import Principal

    return Principal("k", "k")
