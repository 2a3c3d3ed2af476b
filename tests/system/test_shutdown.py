"""The end of a gateway that is busy: what is answered, what is told, what is ended, and how long all that takes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.component.real_gateway import Client, Stream, message, until
from tests.system import clinging, gateway
from tests.system.family import ended, family
from tests.system.nodes import DEMO, Node, installed

pytestmark = pytest.mark.edge(17)

SHUTDOWN = ("shutdown", "server shutting down")
STOPPING = {"code": -32603, "message": "the gateway is shutting down"}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as threads:
        yield threads


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Node, Client]]:
    remotes = {"demo": DEMO} | {name: clinging.entry("wrapped", name) for name in ("meek", "stubborn")}
    with installed(remotes) as found:
        yield found


def in_flight(node: Node) -> int:
    return int(node.status()["in_flight"])


def listeners(client: Client) -> list[Stream]:
    """An idle stream of each era, past its greeting."""
    modern = client.modern_stream("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    modern.message()
    return [modern, client.session().stream(), client.relay().opened().stream]


def goodbye(stream: Stream) -> tuple[list[tuple[str, str]], float]:
    """What it was told to its end, and when that was."""
    return stream.rest(), time.monotonic()


def exit_code(node: Node) -> int:
    assert node.process is not None
    return node.process.wait(12)


def refused_at(port: int) -> float:
    """When connections were refused."""
    while True:
        with socket.socket() as peer:
            if peer.connect_ex(("127.0.0.1", port)) != 0:
                return time.monotonic()
        time.sleep(0.01)


def test_stop_answers_what_runs_tells_who_listens_and_leaves_nobody(
    place: tuple[Node, Client], pool: ThreadPoolExecutor
) -> None:
    node, client = place
    node.start()
    slow = {"name": "demo__slow", "arguments": {"seconds": 5, "steps": 5}}
    calls = [pool.submit(client.modern, "tools/call", slow) for _ in range(10)]
    streams = listeners(client)
    page = http.client.HTTPConnection("127.0.0.1", client.port)
    page.request("GET", "/health/ready")
    assert page.getresponse().read()
    until(lambda: in_flight(node) == 10)

    ends = [pool.submit(goodbye, stream) for stream in streams]
    stop = pool.submit(gateway.manage, node.environment, "mcpserver", "stop")
    closed_at = refused_at(client.port)
    page.request("GET", "/health")
    health = page.getresponse()
    assert (health.status, json.load(health)["status"]) == (503, "draining")
    (((_, result),), _), *others = told = [end.result(10) for end in ends]
    assert json.loads(result)["result"]["resultType"] == "complete"
    assert [events for events, _ in others] == [[SHUTDOWN], [SHUTDOWN]]
    assert all(at - closed_at < 2 for _, at in told)
    assert [call.result(10).result["content"][0]["text"] for call in calls] == ["5 steps in 5.0 s"] * 10
    stopped = stop.result(20)
    assert (sorted(stopped["drained"]), stopped["killed"]) == (["celery", "gateway-0"], [])
    assert exit_code(node) == 0
    ended(node.folder, within_s=2)


def test_what_outlasts_the_grace_is_told_in_its_own_form_and_a_terminals_ctrl_c_counts_once(
    place: tuple[Node, Client], pool: ThreadPoolExecutor
) -> None:
    node, client = place
    node.start(MCP_SHUTDOWN_GRACE_S="2")
    hold = {"name": "stubborn__hold", "arguments": {}}
    modern = pool.submit(client.modern, "tools/call", hold, id=1)
    session = pool.submit(client.session().call, "tools/call", hold, id=2)
    relay = client.relay().opened()
    assert relay.post(message("tools/call", hold, id=3)).status == 202
    rest = pool.submit(relay.stream.rest)
    until(lambda: in_flight(node) == 3)

    began = time.monotonic()
    os.killpg(node.pids["supervisor"], signal.SIGINT)  # as a terminal does it: to everyone in the foreground
    assert refused_at(client.port) - began < 1
    for answer, number in ((modern, 1), (session, 2)):
        reply = answer.result(10)
        assert (reply.status, reply.json) == (503, {"jsonrpc": "2.0", "id": number, "error": STOPPING})
    (kind, data), *last = rest.result(10)
    assert (kind, json.loads(data)) == ("message", {"jsonrpc": "2.0", "id": 3, "error": STOPPING})
    assert last == [SHUTDOWN]
    assert exit_code(node) == 0
    assert 2 <= time.monotonic() - began < 2 + 2 * 5
    ended(node.folder, within_s=2)


def test_a_second_signal_ends_everything_at_once(place: tuple[Node, Client], pool: ThreadPoolExecutor) -> None:
    node, client = place
    node.start(MCP_SHUTDOWN_GRACE_S="60")
    programs = [line for line in family(node.folder).values() if "clinging" in line]
    assert len(programs) == 4, programs
    call = pool.submit(client.modern, "tools/call", {"name": "stubborn__hold", "arguments": {}})
    until(lambda: in_flight(node) == 1)
    os.kill(node.pids["supervisor"], signal.SIGTERM)
    refused_at(client.port)
    assert not call.done()
    os.kill(node.pids["supervisor"], signal.SIGTERM)
    assert exit_code(node) == 130
    with pytest.raises((OSError, http.client.HTTPException)):
        call.result(5)
    ended(node.folder, within_s=2)
