"""Lists of remotes that are long, endless, malformed or hostile: what the catalogue makes of them, and in which time."""

import asyncio
import contextlib
import dataclasses
import json
import time

import pytest

from gateway import calls
from gateway.catalog.catalog import Catalog
from gateway.catalog.listing import Entry, load
from gateway.catalog.pins import KnownPins
from mcpserver.protocol.inbound import Call
from remotes.config.snapshot import RemoteSpec, Snapshot
from remotes.upstream.budget import Budget
from remotes.upstream.outcome import Answer, Failed, Fault, Refusal
from remotes.upstream.pool import Pool
from tests.component.upstreams import (
    SSE_HEAD,
    TOOL,
    EventStream,
    Request,
    Script,
    Wire,
    body,
    http,
    modern,
    served,
    silence,
    status,
    upstream,
)

LONGEST = 55


def tool(name: object, **changed: object) -> dict[str, object]:
    return {**TOOL, "name": name, **changed}


def tools(*entries: object, **more: object) -> Script:
    async def script(request: Request, wire: Wire) -> None:
        await wire.result(request, {"tools": list(entries), "resultType": "complete", **more})

    return script


async def listed(answer: Script, *, cap: int = 20 * 1024 * 1024, **spec):
    async with served(modern({"tools/list": answer})) as server, upstream(http(server, **spec), cap=cap) as one:
        return await load(one, LONGEST)


async def failure_of(answer: Script, **spec):
    with pytest.raises(Failed) as failed:
        await listed(answer, **spec)
    return failed.value.failure


def names(listing) -> list[str]:
    return [entry.own for entry in listing.entries["tools/list"]]


@pytest.mark.edge(13)
async def test_a_list_of_ten_thousand_tools_is_taken_whole():
    started = time.process_time()
    listing = await listed(tools(*(tool(f"t{n}") for n in range(10_000))))
    assert names(listing) == [f"t{n}" for n in range(10_000)]
    assert time.process_time() - started < 5


@pytest.mark.edge(13)
async def test_pages_are_joined_in_their_order_with_the_cursor_as_it_came():
    async def paged(request: Request, wire: Wire) -> None:
        cursor = request.json["params"].get("cursor")
        page = {None: ("a", ""), "": ("b", "ü \\ 2"), "ü \\ 2": ("c", None)}[cursor]
        await wire.result(request, {"tools": [tool(page[0])], "nextCursor": page[1]})

    assert names(await listed(paged)) == ["a", "b", "c"]


@pytest.mark.edge(13)
@pytest.mark.parametrize("cursors", [["x", "x"], ["x", "y", "x"]], ids=["the same", "in a circle"])
async def test_cursors_in_a_circle_end_the_load(cursors):
    asked = []

    async def circle(request: Request, wire: Wire) -> None:
        asked.append(request.json["params"].get("cursor"))
        await wire.result(request, {"tools": [TOOL], "nextCursor": cursors[(len(asked) - 1) % len(cursors)]})

    failure = await failure_of(circle)
    assert (failure.fault, failure.phase) == (Fault.INVALID, "list")
    assert len(asked) <= 3


@pytest.mark.edge(13)
@pytest.mark.parametrize("slow", [0, 0.05])
async def test_cursors_without_end_end_the_load_in_its_time(slow):
    asked = []

    async def endless(request: Request, wire: Wire) -> None:
        asked.append(request.id)
        await asyncio.sleep(slow)
        await wire.result(request, {"tools": [tool(f"t{len(asked)}")], "nextCursor": str(len(asked))})

    started = time.monotonic()
    failure = await failure_of(endless, list_timeout_s=1.5)
    assert failure.fault in (Fault.INVALID, Fault.TIMEOUT)
    assert time.monotonic() - started < 8, "not the ten seconds of a load nobody bounds"


@pytest.mark.edge(14)
async def test_pages_that_are_few_and_huge_end_the_load_at_a_total_of_bytes():
    asked = []
    page = b'{"jsonrpc":"2.0","id":%ID%,"result":{"tools":[],"x":"' + b"x" * 9_000_000 + b'","nextCursor":"%ID%"}}'

    async def huge(request: Request, wire: Wire) -> None:
        asked.append(request.id)
        await body(page)(request, wire)

    failure = await failure_of(huge, list_timeout_s=8)
    assert failure.fault is Fault.INVALID
    assert len(asked) <= 5


MALFORMED = [
    "a word",
    7,
    None,
    [],
    {},
    {"name": 7, "inputSchema": {"type": "object"}},
    {"name": "", "inputSchema": {"type": "object"}},
    {"name": None, "inputSchema": {"type": "object"}},
    {"name": "no-schema"},
    {"name": "schema-is-a-word", "inputSchema": "object"},
    {"name": "schema-of-arrays", "inputSchema": {"type": "array"}},
    {
        "name": "bad-header",
        "inputSchema": {"type": "object", "properties": {"a": {"type": "object", "x-mcp-header": "A"}}},
    },
    {
        "name": "bad-token",
        "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "a b"}}},
    },
]


@pytest.mark.edge(13)
@pytest.mark.parametrize("entry", MALFORMED, ids=lambda entry: json.dumps(entry)[:40])
async def test_a_malformed_tool_is_dropped_and_reported_and_its_siblings_stay(entry):
    listing = await listed(tools(tool("first"), entry, tool("last")))
    assert names(listing) == ["first", "last"]
    assert len(listing.problems) == 1
    assert "dropped" in listing.problems[0]


@pytest.mark.edge(13)
async def test_a_tool_nested_without_measure_takes_nobody_away():
    schema = (
        b'{"type":"object","properties":{"a":{"x-mcp-header":"A","type":"string"}},"b":'
        + b"[" * 700
        + b"]" * 700
        + b"}"
    )
    entry = b'{"name":"deep","inputSchema":' + schema + b"}"
    page = b'{"jsonrpc":"2.0","id":%ID%,"result":{"tools":[' + entry + b"," + json.dumps(tool("last")).encode() + b"]}}"
    assert names(await listed(body(page)))[-1] == "last"


@pytest.mark.edge(13)
async def test_a_lone_surrogate_in_a_description_loses_nothing():
    entry = b'{"name":"a","description":"cut \\ud83d","inputSchema":{"type":"object"}}'
    page = b'{"jsonrpc":"2.0","id":%ID%,"result":{"tools":[' + entry + b"]}}"
    assert names(await listed(body(page))) == ["a"]


@pytest.mark.edge(13)
async def test_thousands_of_malformed_tools_are_reported_in_a_few_lines():
    listing = await listed(tools(*({"name": "x" * 10_000} for _ in range(1_000)), tool("good")))
    assert names(listing) == ["good"]
    assert len(listing.problems) <= 21
    assert max(map(len, listing.problems)) <= 200
    assert listing.problems[-1] == "and 980 more"


@pytest.mark.parametrize(
    "result",
    ["{}", '{"tools":7}', '{"tools":null}', '{"tools":{"a":1}}', "[]", "null", '"x"'],
)
async def test_a_result_without_a_list_is_a_failure_that_says_so(result):
    failure = await failure_of(body(b'{"jsonrpc":"2.0","id":%ID%,"result":' + result.encode() + b"}"))
    assert (failure.fault, failure.phase) == (Fault.INVALID, "list")


@pytest.mark.parametrize(("ttl", "read"), [(-1, 0), (1e3, 0), ("soon", 0), (None, 0), (7, 7), (10**400, 300_000)])
async def test_a_cache_hint_is_read_within_bounds_and_nonsense_as_no_time_at_all(ttl, read):
    assert (await listed(tools(TOOL, ttlMs=ttl))).ttl_ms == read


@pytest.mark.edge(1)
@pytest.mark.parametrize("answer", [silence, status(500), body(b"nonsense")])
async def test_a_list_that_does_not_come_is_a_failure_within_the_list_timeout(answer):
    started = time.monotonic()
    await failure_of(answer, list_timeout_s=0.5)
    assert time.monotonic() - started < 5, "not the usual ten seconds"


@contextlib.asynccontextmanager
async def catalogue(*specs):
    """The real catalogue over real upstreams, and what it published."""
    published: list[set[str]] = []
    pool = Pool(budget=Budget(8 * (1024 * 1024), read_max_bytes=1024 * 1024))
    catalog = Catalog(published.append, lambda kept: None, KnownPins())
    snapshot = Snapshot(1, "", {spec.name: spec for spec in specs})
    pool.follow(snapshot, {})
    catalog.follow(snapshot, {spec.name: one for spec in specs if (one := pool.get(spec.name)) is not None})
    try:
        yield catalog, published
    finally:
        await catalog.close()
        await pool.close()


@pytest.mark.edge(1)
async def test_a_remote_that_hangs_keeps_no_other_remote_off_the_list():
    async with served(modern()) as good, served(silence) as bad:
        hanging = dataclasses.replace(http(bad), name="hanging")
        async with catalogue(http(good), hanging) as (catalog, _):
            started = time.monotonic()
            joined = await catalog.ready()
            assert [entry.exposed for entry in joined.entries("tools/list")] == ["remote__echo"]
            first_s = time.monotonic() - started
            assert first_s < 8, "not the ten seconds that it hangs"
            started = time.monotonic()
            await catalog.ready()
            assert time.monotonic() - started < first_s / 2, "it is waited for once"


@pytest.mark.edge(1)
async def test_a_revision_is_shown_as_a_whole_and_what_hangs_joins_later(monkeypatch):
    """Every list is that of the old revision or of the new one, and none waits."""
    monkeypatch.setattr("gateway.catalog.catalog.FIRST_LOAD_PATIENCE_S", 0.5)
    goes_on = asyncio.Event()

    async def late(request: Request, wire: Wire) -> None:
        await goes_on.wait()
        await modern()(request, wire)

    async with served(modern()) as old, served(modern()) as new, served(late) as slow:
        specs = {name: dataclasses.replace(http(one), name=name) for name, one in (("old", old), ("new", new))}
        pool = Pool(budget=Budget(8 * (1024 * 1024), read_max_bytes=1024 * 1024))
        catalog = Catalog(lambda kinds: None, lambda kept: None, KnownPins())
        seen: list[list[str]] = []

        def look() -> None:
            names = [entry.exposed for entry in catalog.joined.entries("tools/list")]
            if not seen or seen[-1] != names:
                seen.append(names)

        def follow(*chosen: RemoteSpec) -> None:
            snapshot = Snapshot(1, "", {spec.name: spec for spec in chosen})
            pool.follow(snapshot, {})
            catalog.follow(snapshot, {spec.name: one for spec in chosen if (one := pool.get(spec.name)) is not None})

        follow(specs["old"])
        await catalog.ready()
        look()
        follow(specs["new"], dataclasses.replace(http(slow), name="slow"))
        async with asyncio.timeout(5):
            while len(seen) < 3:
                look()
                if len(seen) == 2:
                    goes_on.set()
                await asyncio.sleep(0.01)
        assert seen == [["old__echo"], ["new__echo"], ["new__echo", "slow__echo"]]
        await catalog.close()
        await pool.close()


@pytest.mark.edge(1)
async def test_what_was_listed_last_stands_while_a_remote_is_away():
    answers: dict[str, Script] = {}
    async with served(modern(answers)) as server, catalogue(http(server)) as (catalog, _):
        await catalog.ready()
        answers["tools/list"] = status(500)
        kept = catalog.kept("remote")
        kept.wake.set()
        await server.until(lambda state: state.count("tools/list") == 2)
        assert catalog.joined.tool("remote__echo") is not None


async def test_a_remote_that_announces_a_change_with_every_list_is_not_asked_without_end(monkeypatch):
    monkeypatch.setattr("gateway.catalog.catalog._LOADS_APART_S", 0.3)

    async def restless(request: Request, wire: Wire) -> None:
        await wire.send(SSE_HEAD)
        await wire.event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        await wire.event({"jsonrpc": "2.0", "id": request.id, "result": {"tools": [TOOL]}})
        wire.close()

    async with served(modern({"tools/list": restless})) as server, catalogue(http(server)) as (catalog, _):
        await catalog.ready()
        await server.until(lambda state: state.count("tools/list") >= 2)
        started = time.monotonic()
        await server.until(lambda state: state.count("tools/list") >= 4)
        assert time.monotonic() - started > 0.3


async def test_a_change_that_an_event_stream_announces_is_listed_soon():
    entries: list[dict[str, object]] = [dict(TOOL)]

    async def current(stream: EventStream, request: Request) -> None:
        await stream.result(request, {"tools": entries})

    stream = EventStream({"tools/list": current})
    async with served(stream) as server, catalogue(http(server, transport="sse")) as (catalog, published):
        await catalog.ready()
        entries.append(tool("new"))
        await stream.down({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        async with asyncio.timeout(4):
            while catalog.joined.tool("remote__new") is None:
                await asyncio.sleep(0.01)
        assert published == [{"tools"}, {"tools"}]


# What becomes of a strange result on its way to a client.

CLIENTS = ["2025-11-25", "2026-07-28"]


def answered(answer, revision: str, *, method: str = "tools/call"):
    call = Call(b"7", method, {}, {}, revision)
    one = type("Named", (), {"spec": http_spec()})()
    return calls.answered(call, Entry("remote", "echo", "remote__echo", b"{}"), one, answer)


def http_spec():
    return RemoteSpec("remote", "http", url="http://127.0.0.1:1/")


@pytest.mark.edge(16)
@pytest.mark.parametrize("revision", CLIENTS)
@pytest.mark.parametrize("modern_remote", [True, False])
@pytest.mark.parametrize(
    "raw", [b"null", b"[]", b'"x"', b"7", b'{"_meta":5,"content":[]}', b'{"_meta":[],"resultType":1}']
)
def test_a_result_of_the_wrong_shape_is_never_blamed_on_the_caller(raw, modern_remote, revision):
    served_as = answered(Answer(raw, modern_remote), revision)
    document = json.loads(served_as.body)
    assert document["id"] == 7
    if raw[:1] != b"{" or "error" in document:
        assert document["result"]["isError"] is True
    assert "error" not in document


@pytest.mark.parametrize("revision", CLIENTS)
def test_an_error_of_a_remote_is_relayed_with_the_id_of_the_caller(revision):
    served_as = answered(Refusal(b'{"code":-1,"message":"no","data":{"a":12345678901234567890123}}'), revision)
    assert json.loads(served_as.body) == {
        "jsonrpc": "2.0",
        "id": 7,
        "error": {"code": -1, "message": "no", "data": {"a": 12345678901234567890123}},
    }
