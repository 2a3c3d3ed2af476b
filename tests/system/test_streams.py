"""Clients of a real gateway that leave, vanish without a word, stop reading, or are flooded: what is held for them, how long.

Deadlines are seconds instead of minutes, and stand in the configuration file, where an operator would put them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.component.real_gateway import PREFIX, Client, Relay, Session, Stream, message, odd, until
from tests.system.gateway import ROOT, Gateway, configuration, eventually, running
from tests.system.island import Island, Unavailable, island
from tests.system.tools import require, unavailable
from tests.system.watch import MIB, Watch, worker

STALE_S, HEARTBEAT_S = 3, 1
LIFETIME_S = 6
HEAVY = str(Path(peers.__file__).with_name("heavy_server.py"))
UNREAD_MIB = 10
# The SDK's servers take twenty times as long for a call as the others do.
REMOTES = ("heavy", "heavy-io") * 6 + ("new", "old", "io", "calm")
LISTEN = {"notifications": {"toolsListChanged": True}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Path]]:
    journal = tmp_path_factory.mktemp("streams") / "journal"
    with contextlib.ExitStack() as stack:
        writing = {"PEER_JOURNAL": str(journal)}
        new = stack.enter_context(peers.sdk_server("http", "--era", "modern", environment=writing))
        old = stack.enter_context(peers.sdk_server("http", "--era", "legacy", environment=writing))
        event = stack.enter_context(peers.running([sys.executable, HEAVY, "--transport", "http-sse"]))
        remotes: dict[str, dict[str, Any]] = {
            "new": {"url": new.url, "timeout": 5},
            "old": {"url": old.url, "timeout": 5},
            "io": peers.sdk_stdio(era="legacy", **writing).entry(timeout=5),
            "heavy": {"url": event.url, "timeout": 30},
            "heavy-io": {"command": sys.executable, "args": [HEAVY, "--transport", "stdio"], "timeout": 30},
            "calm": {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)},
        }
        room = "200"
        gateway = stack.enter_context(
            running(remotes, HOST="0.0.0.0", MCP_MAX_CONNECTIONS_PER_KEY=room, MCP_MAX_TOTAL_CONNECTIONS=room)
        )
        document = json.loads(configuration(remotes)) | {"gateway": {"stale_s": STALE_S, "heartbeat_s": HEARTBEAT_S}}
        (gateway.folder / "mcp-config.yaml").write_text(json.dumps(document))
        gateway.command("mcpconfig", "reload")
        eventually(
            gateway.remotes,
            lambda found: all(found.get(name, {}).get("status") == "healthy" for name in remotes),
            within_s=20,
            what="all healthy",
        )
        yield gateway, journal


@pytest.fixture
def gw(served: tuple[Gateway, Path]) -> Gateway:
    gateway, _ = served
    until(lambda: not any(held(gateway)[name] for name in ("active", "in_flight")), "nothing is left of another test")
    return gateway


@pytest.fixture
def client(gw: Gateway) -> Client:
    return Client(port(gw), gw.key)


def port(gateway: Gateway) -> int:
    return int(gateway.url.rsplit(":", 1)[1])


def held(gateway: Gateway) -> dict[str, Any]:
    """What /health says of connections."""
    connection = http.client.HTTPConnection("127.0.0.1", port(gateway), timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/health")
        found: dict[str, Any] = json.load(connection.getresponse())["connections"]
    return found


def sockets(gateway: Gateway) -> int:
    """Connections of clients as the kernel knows them, those of the test's own questions apart."""
    found = worker(gateway.process.pid).net_connections("tcp")
    return sum(each.status == "ESTABLISHED" and each.laddr.port == port(gateway) for each in found)


def events(journal: Path, tag: str) -> list[str]:
    return [line["event"] for line in peers.journal_lines(journal) if line.get("tag") == tag]


def watch(gateway: Gateway) -> Watch:
    """A neighbour with the other key calls all the while."""
    other = Client(port(gateway), gateway.keys[1])
    visit = {"name": "calm__echo", "arguments": {"text": "x"}}
    return Watch(worker(gateway.process.pid), lambda: other.modern("tools/call", visit).result)


def opened(client: Client) -> list[Stream]:
    """One stream of each era."""
    streams = [client.modern_stream("subscriptions/listen", LISTEN), client.session().stream()]
    streams.append(client.relay().opened().stream)
    assert [stream.status for stream in streams] == [200] * 3
    return streams


def fin(connection: http.client.HTTPConnection) -> None:
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


def rst(connection: http.client.HTTPConnection) -> None:
    """A reset in the place of a goodbye, sent as soon as nobody holds the socket."""
    assert connection.sock is not None
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def waiting(tool: str, tag: str, seconds: float = 60) -> dict[str, Any]:
    return {"name": tool, "arguments": {"tag": tag, "seconds": seconds}}


def took_s(done: Callable[[], object], what: str) -> float:
    began = time.monotonic()
    until(done, what, within_s=60)
    return time.monotonic() - began


class TestLeaving:
    @pytest.mark.edge(2)
    @pytest.mark.parametrize("leave", [fin, rst])
    def test_who_leaves_with_a_word_is_gone_within_two_seconds(
        self, gw: Gateway, client: Client, leave: Callable[[http.client.HTTPConnection], None]
    ) -> None:
        with client.modern_stream("subscriptions/listen", LISTEN) as staying:
            streams = opened(client)
            assert held(gw)["active"] == 4
            for stream in streams:
                leave(stream.connection)
                stream.response.close()
            assert took_s(lambda: held(gw)["active"] == 1, "their streams are gone") < 4
            assert staying.line(3 * HEARTBEAT_S).strip()

    @pytest.mark.edge(2)
    def test_three_hundred_streams_opened_and_closed_leave_nothing(self, gw: Gateway, client: Client) -> None:
        process = worker(gw.process.pid)
        for stream in opened(client):  # what the very first ones load is not theirs
            stream.close()
        until(lambda: not held(gw)["active"])
        files, memory = process.num_fds(), process.memory_info().rss
        for number in range(100):
            for stream in opened(client):
                (fin, rst)[number % 2](stream.connection)
                stream.response.close()
        until(lambda: not held(gw)["active"])
        assert process.num_fds() - files <= 10
        assert process.memory_info().rss - memory < 30 * MIB

    @pytest.mark.edge(2)
    @pytest.mark.parametrize("remote", ["new", "old", "io"])
    def test_a_modern_client_that_leaves_mid_call_cancels_it_at_the_remote(
        self, gw: Gateway, client: Client, served: tuple[Gateway, Path], remote: str
    ) -> None:
        tag = f"modern {remote}"
        before = sockets(gw)
        params = waiting(f"{remote}__cancellable", tag)
        connection = client.post_only("POST", "/mcp", *client.modern_request("tools/call", params))
        until(lambda: events(served[1], tag) == ["started"])
        rst(connection)
        assert took_s(lambda: events(served[1], tag) == ["started", "cancelled"], "cancelled at the remote") < 5
        assert took_s(lambda: sockets(gw) <= before, "its connection is gone") < 5

    @pytest.mark.edge(2)
    def test_a_session_client_that_leaves_mid_call_frees_its_connection_and_the_call_runs_to_its_deadline(
        self, gw: Gateway, client: Client, served: tuple[Gateway, Path]
    ) -> None:
        tags = {remote: f"session {remote}" for remote in ("new", "old", "io")}
        session = client.session()
        before, began = sockets(gw), time.monotonic()
        calls = [session.begin("tools/call", waiting(f"{to}__cancellable", tag), id=tag) for to, tag in tags.items()]
        until(lambda: all(events(served[1], tag) == ["started"] for tag in tags.values()))
        for connection in calls:
            rst(connection)
        assert took_s(lambda: sockets(gw) <= before, "their connections are gone") < 4
        assert held(gw)["in_flight"] == 3
        stopped = ["started", "cancelled"]
        until(lambda: all(events(served[1], tag) == stopped for tag in tags.values()), "told to stop at the deadline")
        assert 4 < time.monotonic() - began < 10


class TestVanishing:
    """Neither FIN nor RST, nor an answer to anything: an unplugged cable, a laptop that sleeps, a phone in a tunnel."""

    @pytest.fixture
    def far(self) -> Iterator[Island]:
        require("ip")
        with contextlib.ExitStack() as stack:
            try:
                found = stack.enter_context(island())
            except Unavailable as why:
                unavailable(str(why))
            yield found

    @pytest.mark.edge(2)
    def test_who_vanishes_without_a_word_is_freed_and_who_is_only_silent_stays(
        self, gw: Gateway, client: Client, served: tuple[Gateway, Path], far: Island
    ) -> None:
        distant = Client(port(gw), gw.key, far.shore)
        tag = "vanished"
        params = waiting("old__cancellable", tag)

        def visit() -> list[Any]:
            modern = distant.post_only("POST", "/mcp", *distant.modern_request("tools/call", params))
            return [*opened(distant), modern, distant.post_only("POST", "/mcp", b"", [("Content-Length", "9")])]

        before = sockets(gw)
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(stream) for stream in opened(client)]
            gone = far.inside(visit)
            until(lambda: events(served[1], tag) == ["started"])
            assert held(gw)["active"] == 6
            far.cut()
            freed = took_s(lambda: held(gw)["active"] == 3, "their streams are free")
            # A heartbeat that is not acknowledged in time, and the margin of a busy machine.
            assert freed < 2 * (HEARTBEAT_S + STALE_S)
            until(lambda: events(served[1], tag)[-1] == "cancelled")
            until(lambda: sockets(gw) <= before + 3, "their connections are gone")
            for stream in silent:
                assert stream.line(3 * HEARTBEAT_S).strip(), "who reads, lives on"
        for each in gone:
            each.close()


class TestReadingNothing:
    @pytest.mark.edge(2)
    @pytest.mark.edge(10)
    @pytest.mark.parametrize(("era", "remote"), [("modern", "heavy"), ("session", "heavy-io"), ("relay", "heavy")])
    def test_a_flood_of_progress_for_who_reads_nothing_costs_little_and_ends(
        self, gw: Gateway, client: Client, era: str, remote: str
    ) -> None:
        before, kept = sockets(gw), held(gw)["memory_bytes"]
        with watch(gw) as watched, contextlib.ExitStack() as stack:
            connection = self.flooded(client, era, f"{remote}__chatter", stack)
            stack.callback(connection.close)
            until(lambda: held(gw)["memory_bytes"] - kept > 300_000, "much waits for it")
            until(lambda: sockets(gw) <= before, "it is cut off", within_s=30)
        assert watched.more_mib < UNREAD_MIB
        assert watched.slowest_s < 2
        # A session may come back for the rest of its call: that much is kept for a minute.
        until(lambda: held(gw)["memory_bytes"] - kept < 1.2 * MIB, "what waited for it is gone")

    def flooded(self, client: Client, era: str, tool: str, stack: contextlib.ExitStack) -> http.client.HTTPConnection:
        params = {"name": tool, "arguments": {"count": 4_000, "bytes": 10_000}}
        token = {"_meta": {"progressToken": "t"}}
        if era == "modern":
            body, headers = client.modern_request("tools/call", params, meta={"progressToken": "t"})
            return client.post_only("POST", "/mcp", body, headers)
        if era == "session":
            return client.session().begin("tools/call", params | token)
        relay = client.relay().opened()
        assert relay.post(message("tools/call", params | token, id=7)).status == 202
        return relay.stream.connection


class TestManyCalls:
    @pytest.mark.edge(10)
    def test_a_thousand_calls_of_every_era_leave_nothing(self, gw: Gateway, client: Client) -> None:
        process = worker(gw.process.pid)
        session, relay = client.session(), client.relay().opened()

        def calls(count: int) -> None:
            for number in range(count):
                remote = REMOTES[number % len(REMOTES)]
                params = {"name": f"{remote}__echo", "arguments": {"text": "x" * 1000}}
                self.one(number % 3, client, session, relay, params)

        calls(120)
        files, memory = process.num_fds(), process.memory_info().rss
        calls(1000)
        assert process.num_fds() - files <= 10
        assert process.memory_info().rss - memory < 30 * MIB
        relay.stream.close()

    def one(self, era: int, client: Client, session: Session, relay: Any, params: dict[str, Any]) -> None:
        if era == 0:
            assert client.modern("tools/call", params).result["content"]
        elif era == 1:
            assert session.call("tools/call", params).result["content"]
        else:
            assert relay.call("tools/call", params)["result"]["content"]


@pytest.mark.edge(10)
def test_health_shows_connections_their_memory_and_their_lifetime(gw: Gateway, client: Client) -> None:
    with contextlib.ExitStack() as stack:
        for stream in opened(client):
            stack.enter_context(stream)
        found = held(gw)
        assert set(found) == {"active", "max", "in_flight", "sockets", "memory_bytes", "lifetime_limit_s"}
        assert (found["active"], found["max"], found["lifetime_limit_s"]) == (3, 200, 3600)
        assert found["sockets"] >= 4
        assert 0 <= found["memory_bytes"] < 10 * MIB, "the flood above shows that it moves"


class TestOldAge:
    @pytest.mark.edge(2)
    @pytest.mark.edge(10)
    def test_every_stream_ends_by_itself_at_its_age_in_the_form_of_its_era(self, tmp_path: Path) -> None:
        limits = {"MCP_CONNECTION_TIMEOUT_S": str(LIFETIME_S), "PEER_JOURNAL": str(tmp_path / "journal")}
        with running({"odd": odd()}, worker=False, **limits) as gateway:
            eventually(gateway.remotes, lambda found: found["odd"]["status"] == "healthy", within_s=20, what="healthy")
            client = Client(port(gateway), gateway.key)
            began = time.monotonic()
            modern, between, relay = client.modern_stream("subscriptions/listen", LISTEN, id="sub"), *two(client)
            assert modern.message()["method"] == "notifications/subscriptions/acknowledged"
            # Asked long before the end, and never answered: told so when the limit is reached.
            assert relay.post(message("tools/call", {"name": "odd__wait"}, id=7)).status == 202
            ((_, last),) = modern.rest()
            assert json.loads(last) == {
                "jsonrpc": "2.0",
                "id": "sub",
                "result": {"resultType": "complete", "_meta": {PREFIX + "subscriptionId": "sub"}},
            }
            assert between.rest() == []
            ((_, last),) = relay.stream.rest()
            assert json.loads(last) == {
                "jsonrpc": "2.0",
                "id": 7,
                "error": {"code": -32603, "message": "this stream has ended: open a new one"},
            }
            assert 0.9 * LIFETIME_S < time.monotonic() - began < 2 * LIFETIME_S
            until(lambda: not held(gateway)["active"], "their slots are free")
            for stream in opened(client):  # and they may come back at once
                stream.close()


def two(client: Client) -> tuple[Stream, Relay]:
    """The streams of the earlier eras; a session's opens with an event to come back with."""
    between = client.session().stream()
    while not between.line().startswith(b"id: "):
        continue
    return between, client.relay().opened()
