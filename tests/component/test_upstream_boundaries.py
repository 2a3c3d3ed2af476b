"""What must stay on its own side: credentials and cookies of one remote never reach another origin, and nothing is left open."""

import asyncio
import socket

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


class NameServer:
    """Stands in for the system's resolver: each question about a name gets the next of its answers, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.asked = 0
        self._answers = answers
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def _getaddrinfo(self, host, port, *more, **named):
        if host != "rebind.test":
            return self._real(host, port, *more, **named)
        self.asked += 1
        addresses = self._answers[min(self.asked, len(self._answers)) - 1]
        kind = (socket.SOCK_STREAM, 6, "")
        return [(socket.AF_INET, *kind, (address, port)) for address in addresses]


def rebinding(server, **changed):
    return http(server, url=f"http://rebind.test:{server.port}/mcp", **changed)


async def test_a_name_is_resolved_once_and_connected_to_as_judged(monkeypatch):
    names = NameServer(monkeypatch, ["127.0.0.1"], ["169.254.169.254"])
    async with served(modern()) as server, upstream(rebinding(server)) as one:
        assert isinstance(await call(one), Answer)
        assert names.asked == 1, "who asks a second time gets another answer"


@pytest.mark.parametrize("elsewhere", ["169.254.169.254", "10.0.0.1", "0.0.0.0"])
async def test_a_name_that_leads_elsewhere_later_is_refused_then(monkeypatch, elsewhere):
    NameServer(monkeypatch, ["127.0.0.1"], [elsewhere])
    async with served(modern()) as server, upstream(rebinding(server)) as one, upstream(rebinding(server)) as other:
        assert isinstance(await call(one), Answer)
        outcome = await call(other)
        assert outcome.fault is Fault.NOT_SENT
        assert elsewhere not in outcome.message, "a caller learns no address of the inside"


async def test_of_several_addresses_only_those_that_may_be_reached_are_tried(monkeypatch):
    NameServer(monkeypatch, ["10.0.0.1", "169.254.169.254", "127.0.0.1"])
    async with served(modern()) as server, upstream(rebinding(server)) as one:
        assert isinstance(await call(one), Answer)
