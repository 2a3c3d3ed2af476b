"""Two workers that are replaced while sessions and streams are open: each ends in the words of its era, its client goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.component.asking import ALL, PEER, OnStream, OverHttp, form, params_for, plan_of
from tests.component.real_gateway import Client, Stream, message, until
from tests.system import gateway, servers
from tests.system.load import load, modern, relayed, session
from tests.system.nodes import DEMO, Node

SHUTDOWN = ("shutdown", "server shutting down")
WANTED = {"notifications": {"toolsListChanged": True}}
CITY = "peer://city/1"
# A connection reaches either worker, as its address falls: so many reach both, but for one run in a thousand.
SOME = 10


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Node, Client]]:
    with servers.redis() as redis, tempfile.TemporaryDirectory(prefix="moved-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "data").mkdir()
        made = Node(folder, REDIS_URL=redis.url, MCP_HEARTBEAT_S="1")
        asking: dict[str, Any] = {"command": sys.executable, "args": [PEER, "--era", "legacy", "--name", "io"]}
        asking["env"] = {"PEER_JOURNAL": str(folder / "journal")}
        remotes = {"demo": DEMO, "io": asking, "sdk": peers.sdk_stdio(era="legacy").entry()}
        (folder / "mcp-config.yaml").write_text(gateway.configuration(remotes))
        gateway.manage(made.environment, "migrate")
        key = str(gateway.manage(made.environment, "mcpkey", "generate", "main")["key"])
        made.start("--no-worker")
        try:
            yield made, Client(made.port, key)
        finally:
            made.stop()


@pytest.fixture
def node(running: tuple[Node, Client]) -> Node:
    until(lambda: len(pids(running[0])) == 2, within_s=40)
    return running[0]


@pytest.fixture
def client(running: tuple[Node, Client]) -> Client:
    return running[1]


def restart(node: Node) -> None:
    assert gateway.manage(node.environment, "mcpserver", "restart")["ok"]


def listen(client: Client) -> Stream:
    stream = client.modern_stream("subscriptions/listen", WANTED, id="sub")
    assert stream.message()["method"] == "notifications/subscriptions/acknowledged"
    return stream


@pytest.mark.edge(17)
def test_streams_that_are_open_end_in_the_words_of_their_era_and_their_clients_go_on(
    node: Node, client: Client
) -> None:
    """Through whichever worker they run: half of the sessions' streams are passed on by the one that does not have them."""
    sessions = [client.session() for _ in range(4)]
    with contextlib.ExitStack() as stack:
        of_sessions = [stack.enter_context(one.stream()) for one in sessions]
        listening = [stack.enter_context(listen(client)) for _ in range(2)]
        relays = [stack.enter_context(client.relay()).opened() for _ in range(2)]
        restart(node)
        for stream in (*of_sessions, *(relay.stream for relay in relays)):
            assert [event for event in stream.rest() if event[0] not in ("", "message")] == [SHUTDOWN]
        for stream in listening:
            ((name, data),) = stream.rest()
            assert (name, json.loads(data)["id"], json.loads(data)["result"]["resultType"]) == (
                "message",
                "sub",
                "complete",
            )
    for one in sessions:
        with one.stream() as again:
            assert again.status == 200
            assert {one.call("ping").status for _ in range(SOME)} == {200}
    with listen(client), client.relay() as relay:
        assert relay.opened().call("tools/list")["result"]["tools"]


def test_a_session_goes_on_after_its_worker_is_gone_wherever_its_requests_come(node: Node, client: Client) -> None:
    """Answers to questions, cancellations and lost streams, each over a connection of its own."""
    opened = [OverHttp(client, ALL) for _ in range(3)]
    for one in opened:
        assert one.session.call("resources/subscribe", {"uri": CITY}).result == {}
        assert one.session.call("logging/setLevel", {"level": "debug"}).result == {}
    restart(node)
    for one in opened:
        with one.session.stream() as stream:
            updated = {"method": "notifications/resources/updated", "params": {"uri": CITY}}
            assert stream.message().items() >= updated.items(), "what may have changed meanwhile counts as changed"
            client.modern("tools/call", {"name": "sdk__touch", "arguments": {"uri": CITY}})
            assert stream.message().items() >= updated.items(), "and is told of from now on"
        for _ in range(SOME // 2):
            ended = one.run("tools/call", params_for("tools/call", "io", plan_of([form()])))
            assert ended.asked == [form()], ended.final
            assert ended.replies
        cancelled(one)
        resumed(one)
        assert one.session.delete().status == 204
        assert {one.session.call("ping").status for _ in range(SOME)} == {404}


def cancelled(one: OverHttp) -> None:
    call = one.begin("tools/call", params_for("tools/call", "io", plan_of([form()])))
    question = call.next()
    assert one.post(message("notifications/cancelled", {"requestId": 1})).status == 202
    withdrawn = call.stream.message()
    assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", question["id"])
    call.stream.close()


def resumed(one: OverHttp) -> None:
    call = one.begin("tools/call", params_for("tools/call", "io", plan_of([form()])))
    place = ""
    while not place:
        line = call.stream.line().decode()
        assert line, "it ended without an event"
        place = line.partition(": ")[2].strip() if line.startswith("id: ") else ""
    call.stream.close()
    with one.client.stream("GET", "/mcp", None, [*one.session.headers, ("Last-Event-ID", place)]) as stream:
        assert OnStream(stream, 1, one.post).run().asked == [form()]


@pytest.mark.edge(17)
def test_a_rolling_restart_under_load_with_streams_open_loses_no_call(node: Node, client: Client) -> None:
    everyone = [lambda: modern(client), lambda: modern(client), lambda: session(client), lambda: session(client)]
    everyone += [lambda: relayed(client), lambda: relayed(client)]
    with held_open(client) as ends, load(*everyone, pause_s=0.01) as calls:
        calls.goes_on(60)
        restart(node)
        calls.goes_on(60)
    assert calls.failures == []
    assert ends, "streams were open, and ended"
    assert set(ends) <= {SHUTDOWN[0], "complete"}


@contextlib.contextmanager
def held_open(client: Client) -> Iterator[list[str]]:
    """Streams that are opened again whenever they end, each with how it ended."""
    ends: list[str] = []
    over = threading.Event()
    opened = client.session()
    open_streams: set[Stream] = set()

    def hold(begin: Callable[[], Stream]) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, ValueError, AttributeError), begin() as stream:
                open_streams.add(stream)
                last = stream.rest()[-1:]
                open_streams.discard(stream)
                if last and not over.is_set():
                    ends.append("complete" if "complete" in last[0][1] else last[0][0])

    threads = [threading.Thread(target=hold, args=(begin,)) for begin in (opened.stream, lambda: listen(client))]
    for thread in threads:
        thread.start()
    try:
        yield ends
    finally:
        over.set()
        for stream in list(open_streams):
            with contextlib.suppress(OSError, AttributeError):
                stream.connection.sock.shutdown(2)
        for thread in threads:
            thread.join(30)


@pytest.mark.edge(17)
def test_of_a_killed_worker_only_what_it_had_in_flight_fails_and_says_so(node: Node, client: Client) -> None:
    """A call of a session that another worker passed on ends with an error, in JSON or on its stream; nothing hangs."""
    before = pids(node)
    sessions = [client.session() for _ in range(8)]
    slow = {"name": "demo__slow", "arguments": {"seconds": 4, "steps": 4}, "_meta": {"progressToken": "p"}}
    with load(lambda: modern(client), lambda: modern(client)) as calls:
        calls.goes_on(20)
        waiting = [
            one.client.stream("POST", "/mcp", message("tools/call", slow, id=5), one.headers) for one in sessions
        ]
        began = [one.message() for one in waiting]
        assert all(first["method"] == "notifications/progress" for first in began)
        os.kill(before[0], signal.SIGKILL)
        ended = [outcome(stream) for stream in waiting]
        calls.goes_on(40)
    assert set(ended) <= {"answered", "cut off", "error"}, ended
    assert len(calls.failures) <= 2, calls.failures
    until(lambda: before[0] not in pids(node) and len(pids(node)) == 2, within_s=20)
    assert {one.call("ping").status for one in sessions for _ in range(3)} == {200}


def outcome(stream: Stream) -> str:
    """How a call's stream ended: where its own worker died, nobody is left to say anything."""
    with stream:
        try:
            last = list(iter(stream.message, None))[-1:]
        except (OSError, ValueError, AssertionError) as error:
            return "cut off" if "IncompleteRead" in repr(error) or isinstance(error, OSError) else repr(error)
    if not last:
        return "cut off"
    if "error" in last[0]:
        assert "went away: it may have been carried out" in last[0]["error"]["message"], last
        return "error"
    return "answered" if "result" in last[0] else "cut off"


def pids(node: Node) -> list[int]:
    found: dict[str, Any] = gateway.manage(node.environment, "mcpserver", "status")["children"]
    return [child["pid"] for child in found.values() if child.get("pid") and child["state"] == "ready"]
