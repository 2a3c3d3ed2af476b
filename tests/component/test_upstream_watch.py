"""Asking a remote to tell of changes, and asking again: one listener of 2026-07-28, subscriptions of the revisions before."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from remotes.config.snapshot import RemoteSpec
from remotes.upstream.budget import Budget
from remotes.upstream.client import Upstream
from tests.component.upstreams import (
    CAP,
    MODERN,
    SSE_HEAD,
    Request,
    Script,
    Wire,
    discover_result,
    http,
    initialize_result,
    legacy,
    modern,
    process,
    raw,
    served,
    status,
)

LISTEN, SUBSCRIBE, UNSUBSCRIBE = "subscriptions/listen", "resources/subscribe", "resources/unsubscribe"
ALL = {"tools": {"listChanged": True}, "resources": {"listChanged": True, "subscribe": True}}
MARK = "io.modelcontextprotocol/subscriptionId"


class Heard(list[str]):
    """What the upstream told, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.news = asyncio.Event()

    def note(self, what: str) -> None:
        self.append(what)
        self.news.set()

    async def until(self, *expected: str) -> None:
        async with asyncio.timeout(5):
            while self != list(expected):
                self.news.clear()
                await self.news.wait()


@contextlib.asynccontextmanager
async def watching(spec: RemoteSpec) -> AsyncIterator[tuple[Upstream, Heard]]:
    """A connected remote that is listened to; closing it leaves no task behind."""
    before, heard = asyncio.all_tasks(), Heard()
    one = Upstream(spec, budget=Budget(8 * (CAP), read_max_bytes=CAP), watches=True)
    one.on_change = one.on_updated = heard.note
    try:
        await one.connected(asyncio.get_running_loop().time() + 5)
        yield one, heard
    finally:
        await one.close()
        for _ in range(5):
            await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if "accept" not in repr(task)}
    assert not left, f"closing left tasks behind: {left}"


class Listening:
    """A 2026-07-28 server's side of `subscriptions/listen`: each stream stays open until it is ended or left."""

    def __init__(self, *, grants: bool = True, refuses: int = 0) -> None:
        self.wires: list[Wire] = []
        self.left = 0
        self._grants = grants
        self.refuses = refuses

    async def __call__(self, request: Request, wire: Wire) -> None:
        if self.refuses:
            await wire.error(request, self.refuses, status=404 if self.refuses == -32601 else 200)
            return
        self.wires.append(wire)
        await wire.send(SSE_HEAD)
        granted = request.json["params"]["notifications"] if self._grants else {}
        params = {"_meta": {MARK: request.id}, "notifications": granted}
        await wire.event({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params})
        await wire.until_gone()
        self.left += 1

    async def say(self, method: str, **params: Any) -> None:
        await self.wires[-1].event({"jsonrpc": "2.0", "method": method, "params": params})

    def script(self, capabilities: Any = ALL) -> Script:
        async def discover(request: Request, wire: Wire) -> None:
            await wire.result(request, discover_result(capabilities=capabilities))

        return modern({LISTEN: self, "server/discover": discover})


def filter_of(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = request.json["params"]["notifications"]
    return found


class TestListening:
    async def test_one_stream_for_every_list_that_can_change(self) -> None:
        listening = Listening()
        async with served(listening.script()) as remote, watching(http(remote)) as (_, heard):
            await remote.until(lambda server: server.count(LISTEN) == 1)
            request = remote.last(LISTEN)
            assert filter_of(request) == {"toolsListChanged": True, "resourcesListChanged": True}
            assert request.headers["mcp-method"] == LISTEN
            assert request.json["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == MODERN
            await asyncio.wait_for(_until(lambda: listening.wires), 5)
            await listening.say("notifications/tools/list_changed")
            await listening.say("notifications/resources/updated", uri="x://1")
            await heard.until("tools", "x://1")

    @pytest.mark.parametrize("capabilities", [{"tools": {}}, {"tools": {"listChanged": False}, "resources": {}}, {}])
    async def test_a_remote_that_announces_nothing_is_not_asked(self, capabilities: Any) -> None:
        script = Listening().script(capabilities)
        async with served(script) as remote, watching(http(remote)) as (one, _):
            one.watch.want(frozenset({"x://1"}))
            await one.watch.settled()
            assert remote.calls() == ["server/discover"]

    async def test_other_resources_open_a_new_stream_before_the_old_one_ends(self) -> None:
        listening = Listening()
        async with served(listening.script()) as remote, watching(http(remote)) as (one, heard):
            one.watch.want(frozenset({"x://1", "x://2"}))
            await one.watch.settled()
            assert filter_of(remote.last(LISTEN))["resourceSubscriptions"] == ["x://1", "x://2"]
            streams = remote.count(LISTEN)
            one.watch.want(frozenset({"x://2"}))
            await one.watch.settled()
            assert remote.count(LISTEN) == streams + 1
            assert filter_of(remote.last(LISTEN))["resourceSubscriptions"] == ["x://2"]
            await asyncio.wait_for(_until(lambda: listening.left == streams), 5)
            assert heard == []

    async def test_what_is_not_acknowledged_is_known_to_be_refused(self) -> None:
        listening = Listening(grants=False)
        async with served(listening.script()) as remote, watching(http(remote)) as (one, _):
            one.watch.want(frozenset({"x://1"}))
            await one.watch.settled()
            assert one.watch.refused == {"x://1": None}

    async def test_a_stream_that_ends_is_opened_again_and_everything_counts_as_changed(self) -> None:
        listening = Listening()
        async with served(listening.script()) as remote, watching(http(remote)) as (one, heard):
            one.watch.want(frozenset({"x://1"}))
            await one.watch.settled()
            streams = len(listening.wires)
            for wire in listening.wires:
                wire.close()
            await heard.until("lists", "x://1")
            assert len(listening.wires) == streams + 1

    @pytest.mark.parametrize("code", [-32601, -32602, -32000])
    async def test_a_remote_that_refuses_is_left_alone(self, code: int) -> None:
        listening = Listening(refuses=code)
        async with served(listening.script()) as remote, watching(http(remote)) as (one, _):
            await remote.until(lambda server: server.count(LISTEN) == 1)
            await one.watch.settled()
            one.watch.want(frozenset({"x://1"}))
            await one.watch.settled()
            assert remote.count(LISTEN) == 1
            connection = await one.connected(asyncio.get_running_loop().time() + 1)
            assert connection.usable

    async def test_an_http_error_of_a_server_without_subscriptions_leaves_its_era_alone(self) -> None:
        async def discover(request: Request, wire: Wire) -> None:
            await wire.result(request, discover_result(capabilities=ALL))

        script = modern({LISTEN: status(405), "server/discover": discover})
        async with served(script) as remote, watching(http(remote)) as (one, _):
            await remote.until(lambda server: server.count(LISTEN) == 1)
            await one.watch.settled()
            assert (await one.connected(0)).usable
            assert remote.calls() == ["server/discover", LISTEN]

    async def test_one_that_is_busy_is_asked_again(self) -> None:
        listening = Listening(refuses=-32603)
        async with served(listening.script()) as remote, watching(http(remote)) as (_, heard):
            await remote.until(lambda server: server.count(LISTEN) == 1)
            listening.refuses = 0
            await heard.until("lists")
            assert remote.count(LISTEN) == 2

    async def test_a_process_tells_on_its_one_channel(self) -> None:
        code = (
            "import json, sys\n"
            "def say(**m): print(json.dumps({'jsonrpc': '2.0', **m}), flush=True)\n"
            "for line in sys.stdin:\n"
            "    m = json.loads(line); id = m.get('id'); p = m.get('params', {})\n"
            "    if m['method'] == 'server/discover':\n"
            f"        say(id=id, result={discover_result(capabilities=ALL)!r})\n"
            "    elif m['method'] == 'subscriptions/listen':\n"
            f"        mark = {{'{MARK}': id}}\n"
            "        granted = p['notifications']\n"
            "        say(method='notifications/subscriptions/acknowledged', params={'_meta': mark, 'notifications': granted})\n"
            "        for uri in granted.get('resourceSubscriptions', []):\n"
            "            say(method='notifications/resources/updated', params={'_meta': mark, 'uri': uri})\n"
            "    elif m['method'] == 'notifications/cancelled':\n"
            "        say(method='notifications/resources/updated', params={'uri': 'cancelled %s' % p['requestId']})\n"
        )
        async with watching(process(code, era=MODERN)) as (one, heard):
            await one.watch.settled()
            one.watch.want(frozenset({"x://1"}))
            # The request for nothing but lists was the second one on the channel, after discovery.
            await heard.until("x://1", "cancelled 2")


class Subscribing:
    """A 2025-11-25 server that lets clients subscribe, unless it refuses."""

    def __init__(self, *, refuses: bool = False, stream: bool = False) -> None:
        self._refuses = refuses
        self.wire: Wire | None = None
        self._stream = stream

    def script(self, capabilities: Any = ALL) -> Script:
        async def initialize(request: Request, wire: Wire) -> None:
            result = initialize_result(capabilities=capabilities)
            self.sessions += 1
            await wire.result(request, result, headers=f"Mcp-Session-Id: s{self.sessions}\r\n")

        return legacy({"initialize": initialize, SUBSCRIBE: self._answer, UNSUBSCRIBE: self._answer, "GET": self._open})

    sessions = 0

    async def _answer(self, request: Request, wire: Wire) -> None:
        if request.headers.get("mcp-session-id") != f"s{self.sessions}":
            await wire.answer(b"", status=404)
        elif self._refuses:
            await wire.error(request, -32002, "no such thing")
        else:
            await wire.result(request, {})

    async def _open(self, request: Request, wire: Wire) -> None:
        if not self._stream:
            await wire.answer(b"", status=405)
            return
        await wire.send(SSE_HEAD)
        self.wire = wire
        await wire.until_gone()


def about(server: Any) -> list[tuple[str, str]]:
    return [(one.call, one.json["params"]["uri"]) for one in server.arrived if one.call in (SUBSCRIBE, UNSUBSCRIBE)]


class TestSubscribing:
    async def test_each_resource_is_asked_for_once_and_given_up_once(self) -> None:
        async with served(Subscribing().script()) as remote, watching(http(remote)) as (one, heard):
            for wanted in ({"x://1", "x://2"}, {"x://2"}, {"x://2"}, set()):
                one.watch.want(frozenset(wanted))
                await one.watch.settled()
            assert about(remote) == [
                (SUBSCRIBE, "x://1"),
                (SUBSCRIBE, "x://2"),
                (UNSUBSCRIBE, "x://1"),
                (UNSUBSCRIBE, "x://2"),
            ]
            assert heard == []

    async def test_a_refusal_is_kept_in_the_remotes_words_and_not_taken_back(self) -> None:
        async with served(Subscribing(refuses=True).script()) as remote, watching(http(remote)) as (one, _):
            one.watch.want(frozenset({"x://1"}))
            await one.watch.settled()
            refusal = one.watch.refused["x://1"]
            assert refusal is not None
            assert b"no such thing" in refusal.error
            one.watch.want(frozenset())
            await one.watch.settled()
            assert about(remote) == [(SUBSCRIBE, "x://1")]

    async def test_a_remote_that_declares_nothing_is_not_asked(self) -> None:
        script = Subscribing().script({"resources": {"listChanged": True}})
        async with served(script) as remote, watching(http(remote)) as (one, _):
            one.watch.want(frozenset({"x://1"}))
            await one.watch.settled()
            assert about(remote) == []

    async def test_a_new_session_is_subscribed_again_and_everything_counts_as_changed(self) -> None:
        subscribing = Subscribing()
        async with served(subscribing.script()) as remote, watching(http(remote)) as (one, heard):
            one.watch.want(frozenset({"x://1"}))
            await one.watch.settled()
            subscribing.sessions += 1  # the remote has forgotten its session, and says so when it is next asked
            one.watch.want(frozenset({"x://1", "x://2"}))
            await heard.until("lost")
            await one.connected(asyncio.get_running_loop().time() + 5)
            await heard.until("lost", "lists", "x://1", "x://2")
            assert about(remote)[-2:] == [(SUBSCRIBE, "x://1"), (SUBSCRIBE, "x://2")]

    async def test_an_update_comes_on_the_sessions_stream(self) -> None:
        subscribing = Subscribing(stream=True)
        async with served(subscribing.script()) as remote, watching(http(remote)) as (_, heard):
            await remote.until(lambda server: server.count("GET") == 1)
            await asyncio.wait_for(_until(lambda: subscribing.wire), 5)
            assert subscribing.wire is not None
            for params in ({"uri": "x://1"}, {"uri": 7}, {}, {"uri": "x://2"}):
                await subscribing.wire.event(
                    {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params}
                )
            await heard.until("x://1", "x://2")

    async def test_a_remote_that_never_answers_holds_nobody_up_for_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("remotes.upstream.watch._SETTLE_S", 0.2)

        async def initialize(request: Request, wire: Wire) -> None:
            await wire.result(request, initialize_result(capabilities=ALL), headers="Mcp-Session-Id: s1\r\n")

        script = legacy({"initialize": initialize, SUBSCRIBE: raw(b"")})
        async with served(script) as remote, watching(http(remote)) as (one, _):
            one.watch.want(frozenset({"x://1"}))
            async with asyncio.timeout(2):
                await one.watch.settled()


async def _until(claim: Any) -> None:
    while not claim():
        await asyncio.sleep(0.01)
