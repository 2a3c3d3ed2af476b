"""Two workers on one port, while calls go on: replaced, killed, stalled, and connected to evenly."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.component.real_gateway import Client, until
from tests.system import gateway, servers
from tests.system.load import load, modern, relayed, session
from tests.system.nodes import Node


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Node, Client]]:
    with servers.redis() as redis, tempfile.TemporaryDirectory(prefix="workers-", ignore_cleanup_errors=True) as name:
        (Path(name) / "data").mkdir()
        node = Node(Path(name), REDIS_URL=redis.url)
        gateway.manage(node.environment, "migrate")
        key = str(gateway.manage(node.environment, "mcpkey", "generate", "main")["key"])
        node.start("--no-worker")
        try:
            yield node, Client(node.port, key)
        finally:
            node.stop()


@pytest.fixture
def client(cluster: tuple[Node, Client]) -> Client:
    return cluster[1]


@pytest.fixture
def node(cluster: tuple[Node, Client]) -> Node:
    until(lambda: set(states(cluster[0])) == {"ready"}, within_s=40)
    return cluster[0]


def children(node: Node) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = gateway.manage(node.environment, "mcpserver", "status")["children"]
    return found


def states(node: Node) -> list[str]:
    return [child["state"] for child in children(node).values()]


def test_connections_spread_over_the_workers(node: Node, client: Client) -> None:
    """The kernel chooses by a hash of the addresses: of 60, each of two has at least 10, but for one run in millions."""
    wires = [http.client.HTTPConnection("127.0.0.1", client.port) for _ in range(60)]
    with contextlib.ExitStack() as stack:
        for wire in wires:
            wire.connect()
            stack.callback(wire.close)
        workers = [psutil.Process(child["pid"]) for child in children(node).values()]

        def accepted() -> list[int]:
            return [
                sum(c.laddr.port == client.port and c.status == "ESTABLISHED" for c in w.net_connections())
                for w in workers
            ]

        counts = until(lambda: found if sum(found := accepted()) >= 60 else None)
    assert min(counts) >= 10, counts


@pytest.mark.edge(17)
def test_a_rolling_restart_loses_no_call_of_any_transport(node: Node, client: Client) -> None:
    with load(*everyone(client)) as calls:
        calls.goes_on()
        before = {child["pid"] for child in children(node).values()}
        assert gateway.manage(node.environment, "mcpserver", "restart")["ok"]
        assert not before & {child["pid"] for child in children(node).values()}
        calls.goes_on()
    assert calls.failures == []


def everyone(client: Client) -> list[Callable[[], Callable[[], str | None]]]:
    return [lambda: modern(client), lambda: session(client), lambda: listening(client), lambda: relayed(client)]


def listening(client: Client) -> Callable[[], str | None]:
    """A session with a stream beside it, opened again whenever it ends, as clients do."""
    opened = client.session()
    call = session(client)

    def again() -> str | None:
        with opened.stream() as stream:
            return call() if stream.status == 200 else f"stream {stream.status} {stream.response.read()!r}"

    return again


@pytest.mark.edge(17)
def test_a_killed_worker_fails_its_own_calls_alone(node: Node, client: Client) -> None:
    victim = children(node)["gateway-0"]["pid"]
    with load(lambda: modern(client), lambda: modern(client), lambda: modern(client)) as calls:
        calls.goes_on()
        os.kill(victim, signal.SIGKILL)
        calls.goes_on(60)
        until(lambda: children(node)["gateway-0"].get("pid") not in (None, victim), within_s=20)
        calls.goes_on()
    until(lambda: [node.status(number)["in_flight"] for number in (0, 1)] == [0, 0], "nobody holds a slot")
    assert len(calls.failures) <= 3, calls.failures
    assert calls.slowest_s < 10


def test_while_a_worker_is_stalled_its_sibling_serves_its_connections(node: Node, client: Client) -> None:
    victim = children(node)["gateway-1"]["pid"]
    os.kill(victim, signal.SIGSTOP)
    try:
        until(lambda: children(node)["gateway-1"].get("served_by") == "gateway-0", within_s=20)
        for _ in range(20):  # on new connections, of which the stalled one's socket gets half
            assert client.modern("tools/call", {"name": "demo__echo", "arguments": {"text": "x"}}).status == 200
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)
