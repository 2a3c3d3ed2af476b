"""What must stay on its own side: credentials and cookies of one remote never reach another origin, and nothing is left open."""

import asyncio

import pytest

from remotes.upstream.outcome import Answer, Fault
from tests.component.upstreams import (
    EventStream,
    Request,
    Script,
    Wire,
    call,
    http,
    legacy,
    modern,
    served,
    silence,
    upstream,
)

SECRET = {"Authorization": "Bearer secret", "X-API-Key": "secret"}


def redirect_to(url: str, code: int = 307) -> Script:
    async def script(request: Request, wire: Wire) -> None:
        await wire.answer(b"", status=code, headers=f"Location: {url}\r\n")

    return script


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "stage", ["server/discover", "initialize", "notifications/initialized", "tools/call", "GET", "DELETE"]
)
async def test_no_redirect_is_followed_at_any_stage(stage, code):
    async with served(modern()) as elsewhere:
        script = legacy({stage: redirect_to(elsewhere.url, code)})
        async with served(script) as server:
            async with upstream(http(server, headers=SECRET)) as one:
                await call(one)
            assert server.count(stage) >= 1
        assert elsewhere.accepted == 0


@pytest.mark.parametrize("stage", ["GET", "initialize", "tools/call"])
async def test_no_redirect_of_an_event_stream_is_followed(stage):
    stream = EventStream()
    async with served(modern()) as elsewhere:
        away = redirect_to(elsewhere.url)

        async def script(request: Request, wire: Wire) -> None:
            await (away if request.call == stage else stream)(request, wire)

        async with served(script) as server, upstream(http(server, transport="sse", headers=SECRET)) as one:
            outcome = await call(one)
            assert (outcome.fault, outcome.status) == (Fault.HTTP_STATUS, 307)
            assert "redirect" in outcome.message
        assert elsewhere.accepted == 0


async def test_the_configured_credential_goes_with_every_request_of_a_session():
    async with served(legacy()) as server:
        async with upstream(http(server, headers=SECRET)) as one:
            await call(one)
            await server.until(lambda state: state.count("GET") == 1)
        assert {"server/discover", "initialize", "GET", "DELETE", "tools/call"} <= set(server.calls())
        assert {request.headers.get("authorization") for request in server.arrived} == {"Bearer secret"}


async def test_the_configured_credential_goes_with_every_request_of_an_event_stream():
    async with served(EventStream()) as server, upstream(http(server, transport="sse", headers=SECRET)) as one:
        await call(one)
        assert {request.headers.get("x-api-key") for request in server.arrived} == {"secret"}


async def test_a_cookie_that_one_remote_sets_is_sent_nowhere():
    async def with_cookie(request: Request, wire: Wire) -> None:
        body = {"jsonrpc": "2.0", "id": request.id, "result": {"resultType": "complete"}}
        await wire.answer(body, headers="Set-Cookie: who=first; Path=/\r\n")

    async with served(modern({"tools/call": with_cookie})) as first, served(modern()) as second:
        async with upstream(http(first)) as one, upstream(http(second)) as other:
            for _ in range(2):
                assert isinstance(await call(one), Answer)
                assert isinstance(await call(other), Answer)
        assert not [request for request in first.arrived + second.arrived if "cookie" in request.headers]


async def test_no_proxy_of_the_environment_is_used(monkeypatch):
    async with served(modern()) as proxy, served(modern()) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        async with upstream(http(server)) as one:
            assert isinstance(await call(one), Answer)
        assert proxy.accepted == 0


async def test_a_secret_in_the_address_is_in_no_message():
    async with served(modern({"server/discover": silence})) as server:
        url = server.url + "?key=topsecret"
    async with upstream(http(server, url=url)) as one:
        outcome = await call(one)
        assert outcome.fault is Fault.NOT_SENT
        assert "topsecret" not in outcome.message


@pytest.mark.parametrize("script", [modern, legacy, EventStream])
async def test_closing_ends_what_is_in_flight_and_every_socket(script):
    hang = {"tools/call": silence}

    async def never(stream: EventStream, request: Request) -> None: ...

    chosen = EventStream({"tools/call": never}) if script is EventStream else script(hang)
    async with served(chosen) as server:
        async with upstream(http(server)) as one:
            held = [asyncio.create_task(call(one, seconds=20)) for _ in range(5)]
            await server.until(lambda state: state.count("tools/call") == 5)
            await asyncio.wait_for(one.close(), 5)
            outcomes = await asyncio.wait_for(asyncio.gather(*held), 3)
            assert {outcome.fault for outcome in outcomes} == {Fault.BROKEN}
        await server.until(lambda state: state.open == 0)
        assert server.count("tools/call") == 5


async def test_a_remote_that_is_closed_answers_for_itself_and_connects_no_more():
    async with served(modern()) as server:
        async with upstream(http(server)) as one:
            await call(one)
        assert (await call(one)).fault is Fault.NOT_SENT
        assert server.accepted == 1


async def test_closing_while_connecting_ends_the_connect():
    async with served(modern({"server/discover": silence})) as server, upstream(http(server)) as one:
        waiting = asyncio.create_task(call(one))
        await server.until(lambda state: state.count("server/discover") == 1)
        await asyncio.wait_for(one.close(), 2)
        assert (await asyncio.wait_for(waiting, 2)).fault is Fault.NOT_SENT, "failed, not cancelled"
        await server.until(lambda state: state.open == 0)
