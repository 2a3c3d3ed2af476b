"""Remotes of HTTP+SSE (2024-11-05) that misbehave on the one stream that carries all their answers."""

import asyncio

import pytest
from msgspec import Raw

from remotes.upstream.outcome import Answer, Failure, Fault
from tests.component.upstreams import (
    CAP,
    SSE_HEAD,
    EventStream,
    Request,
    Wire,
    call,
    http,
    raw,
    reset,
    served,
    silence,
    status,
    upstream,
)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (reset, Fault.BROKEN),
        (raw(SSE_HEAD + b"0\r\n\r\n"), Fault.BROKEN),
        (status(200, b"{}", kind="application/json"), Fault.INVALID),
        (status(404), Fault.HTTP_STATUS),
        (status(503), Fault.HTTP_STATUS),
        (status(401), Fault.UNAUTHORIZED),
        (status(302, headers="Location: /elsewhere\r\n"), Fault.HTTP_STATUS),
        (raw(SSE_HEAD + b"40000\r\n" + b"x" * 0x40000), Fault.TOO_LARGE),
    ],
    ids=["reset", "ended", "json", "404", "503", "401", "redirect", "a line over the cap"],
)
async def test_a_stream_that_does_not_open_is_a_failure_of_the_connect(answer, fault):
    async with served(answer) as server, upstream(http(server, transport="sse"), cap=CAP // 2) as one:
        outcome = await call(one)
        assert isinstance(outcome, Failure)
        assert outcome.fault is fault
        assert set(server.calls()) == {"GET"}


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9/messages",
        "//127.0.0.1:9/messages",
        "https://127.0.0.1/messages",
        "http://evil.example/messages",
        "http://127.0.0.1\\@evil.example/messages",
        "ftp://127.0.0.1/x",
        "http://[::1/",
        "//[",
        "http://127.0.0.1:99999/",
        "javascript:alert(1)",
        "http://somebody:else@127.0.0.1:{port}/messages",
    ],
)
async def test_an_endpoint_on_another_origin_is_refused_and_gets_no_credential(endpoint):
    stream = EventStream()
    spec = {"transport": "sse", "headers": {"Authorization": "Bearer secret"}}
    async with served(stream) as server, upstream(http(server, **spec)) as one:
        stream.endpoint = endpoint.replace("{port}", str(server.port))
        outcome = await call(one)
        assert (outcome.fault, outcome.phase) == (Fault.INVALID, "handshake")
        assert "secret" not in outcome.message
        assert server.calls() == ["GET"]


@pytest.mark.parametrize("absolute", [True, False])
async def test_an_endpoint_on_its_own_origin_may_be_written_in_full(absolute):
    stream = EventStream()
    async with served(stream) as server, upstream(http(server, transport="sse")) as one:
        path = "/messages?session_id=a%2Fb"
        stream.endpoint = f"http://127.0.0.1:{server.port}{path}" if absolute else path
        assert isinstance(await call(one), Answer)
        assert server.last("tools/call").target.startswith("/messages?session_id=a")


async def test_a_stream_that_ends_fails_what_is_in_flight_at_once_and_the_next_call_opens_another():
    async def cut(stream: EventStream, request: Request) -> None:
        assert stream.wire is not None
        if server.count("tools/call") == 3:
            stream.wire.close()

    stream = EventStream({"tools/call": cut})
    async with served(stream) as server, upstream(http(server, transport="sse")) as one:
        outcomes = await asyncio.wait_for(asyncio.gather(*(call(one, seconds=10) for _ in range(3))), 3)
        assert [outcome.fault for outcome in outcomes] == [Fault.BROKEN] * 3
        stream._answers = {}
        assert isinstance(await call(one), Answer)
        assert (server.count("GET"), server.count("tools/call")) == (2, 4)


async def test_a_stream_that_ends_frees_a_caller_whose_post_hangs():
    stream = EventStream()

    async def script(request: Request, wire: Wire) -> None:
        if request.call == "tools/call":
            assert stream.wire is not None
            stream.wire.close()
            await silence(request, wire)
        else:
            await stream(request, wire)

    async with served(script) as server, upstream(http(server, transport="sse")) as one:
        outcome = await asyncio.wait_for(call(one, seconds=10), 3)
        assert outcome.fault is Fault.BROKEN


@pytest.mark.parametrize("code", [400, 404, 500, 307])
async def test_a_post_that_is_refused_fails_its_call_alone(code):
    stream = EventStream()

    async def script(request: Request, wire: Wire) -> None:
        if request.call == "prompts/get":
            await wire.answer(b"no", status=code, headers="Location: http://127.0.0.1:9/\r\n")
        else:
            await stream(request, wire)

    async with served(script) as server, upstream(http(server, transport="sse")) as one:
        refused, served_well = await asyncio.gather(call(one, method="prompts/get"), call(one))
        assert (refused.fault, refused.status) == (Fault.HTTP_STATUS, code)
        assert isinstance(served_well, Answer)
        assert server.count("GET") == 1


async def test_answers_in_any_order_and_strangers_among_them_find_their_callers():
    held: list[Request] = []

    async def backwards(stream: EventStream, request: Request) -> None:
        held.append(request)
        if len(held) == 5:
            await stream.down({"jsonrpc": "2.0", "id": 12345, "result": {"n": "stranger"}})
            await stream.down({"jsonrpc": "2.0", "id": "1", "result": {"n": "stranger"}})
            await stream.down(b'{"jsonrpc":"2.0","id":' + b"1" * 5000 + b',"result":{}}')
            for one in reversed(held):
                await stream.result(one, {"n": one.json["params"]["n"]})
                await stream.result(one, {"n": "again"})

    async with served(EventStream({"tools/call": backwards})) as server, upstream(http(server, transport="sse")) as one:
        outcomes = await asyncio.gather(*(call(one, params={"n": Raw(b"%d" % n)}) for n in range(5)))
        assert [outcome.result for outcome in outcomes] == [b'{"n": %d}' % n for n in range(5)]


async def test_nonsense_on_the_stream_ends_it_with_the_cause():
    async def nonsense(stream: EventStream, request: Request) -> None:
        assert stream.wire is not None
        await stream.wire.event(b"{oops")

    async with served(EventStream({"tools/call": nonsense})) as server, upstream(http(server, transport="sse")) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.excerpt) == (Fault.INVALID, b"{oops")
        assert server.count("tools/call") == 1


@pytest.mark.edge(14)
async def test_an_event_over_the_cap_ends_the_stream():
    async def huge(stream: EventStream, request: Request) -> None:
        assert stream.wire is not None
        await stream.wire.chunk(b"data: ")
        for _ in range(1000):
            await stream.wire.chunk(b"a" * 65536)

    async with served(EventStream({"tools/call": huge})) as server, upstream(http(server, transport="sse")) as one:
        outcome = await call(one)
        assert outcome.fault is Fault.TOO_LARGE
        await server.until(lambda state: state.open <= 1)


@pytest.mark.edge(15)
async def test_a_timeout_is_told_to_the_remote_by_notification():
    async def nothing(stream: EventStream, request: Request) -> None: ...

    async with served(EventStream({"tools/call": nothing})) as server, upstream(http(server, transport="sse")) as one:
        assert (await call(one, seconds=0.3)).fault is Fault.TIMEOUT
        await server.until(lambda state: state.count("notifications/cancelled") == 1)
        told = server.last("notifications/cancelled").json["params"]["requestId"]
        assert told == server.last("tools/call").id
