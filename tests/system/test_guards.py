"""A worker that really grows, that is really busy, that really has no files left: what goes on, and what is refused meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.component.real_gateway import Client, Reply, until
from tests.system import gateway
from tests.system.load import load, modern, session
from tests.system.nodes import DEMO, Node, installed

pytestmark = pytest.mark.edge(23)

MIB = 1024 * 1024
FILES = 400
REMOTES = {"demo": DEMO, "heavy": DEMO}


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Node, Client]]:
    with installed(REMOTES, MCP_MAX_OPEN_FILES=str(FILES)) as (node, client):
        node.start("--no-worker")
        yield node, client


def limit(node: Node, **limits: int) -> None:
    """As an operator does while it runs: what the file says holds for the worker and for who watches it."""
    text = json.dumps({"version": 1, "mcpServers": REMOTES, "gateway": limits})
    fresh = node.folder / "mcp-config.new"
    fresh.write_text(text)
    fresh.replace(node.folder / "mcp-config.yaml")
    before = node.status()["config"]["revision"]
    until(lambda: node.status()["config"]["revision"] > before)


def used(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = node.status()["process"]
    return found


def warned(node: Node) -> set[str]:
    return {one["code"] for one in gateway.manage(node.environment, "mcpstatus")["warnings"]}


def stream(client: Client) -> Reply | None:
    """The refusal of a new stream; None where it is opened."""
    listen = client.modern_request("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    connection, response = client.send("POST", "/mcp", *listen)
    with contextlib.closing(connection):
        return None if response.status == 200 else Reply(response)


def is_shed(reply: Reply | None, of: str) -> bool:
    if reply is None:
        return False
    assert reply.error[:2] == (503, -32603)
    assert reply.headers["retry-after"] == "10"
    return of in reply.json["error"]["message"]


class Unread:
    """A call whose large answer its client does not read for now: the worker holds what the sockets do not."""

    def __init__(self, client: Client) -> None:
        body, headers = client.modern_request("tools/call", {"name": "heavy__big", "arguments": {"n": 9 * MIB}})
        self._connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
        self._connection.sock = socket.socket()
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self._connection.sock.connect(("127.0.0.1", client.port))
        self._connection.request("POST", "/mcp", body, dict(headers))

    def read(self) -> int:
        with contextlib.closing(self._connection):
            return len(json.loads(self._connection.getresponse().read())["result"]["content"][0]["text"])


@contextlib.contextmanager
def hammered(client: Client, together: int = 20) -> Iterator[None]:
    """Calls without a pause, many at once in one write: they cost this process next to nothing."""
    body, headers = client.modern_request("tools/list")
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    length = f"Host: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    calls = (f"POST /mcp HTTP/1.1\r\n{head}{length}\r\n".encode() + body) * together
    over = threading.Event()

    def hammer() -> None:
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as peer:
            while not over.is_set():
                peer.sendall(calls)
                answered = b""
                while answered.count(b"HTTP/1.1 200") < together:
                    answered += peer.recv(1 << 20)

    thread = threading.Thread(target=hammer, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(20)


def test_a_worker_that_outgrows_its_memory_is_replaced_and_no_call_is_lost(started: tuple[Node, Client]) -> None:
    node, client = started
    first = node.pids["gateway-0"]
    limit(node, max_memory_mb=round(used(node)["rss_mb"]) + 35)
    callers = [lambda: modern(client), lambda: modern(client), lambda: session(client), lambda: session(client)]
    with ThreadPoolExecutor(8) as pool, load(*callers, pause_s=0.18) as calls:  # 20 a second
        calls.goes_on()
        unread = [Unread(client) for _ in range(6)]
        until(lambda: is_shed(stream(client), "memory"))
        assert {"high_memory", "shedding_memory"} <= warned(node)
        until(lambda: node.supervision()["pids"]["gateway-0"] != first)
        answers = list(pool.map(Unread.read, unread))
        until(lambda: stream(client) is None)
        calls.goes_on(40)
    assert answers == [9 * MIB] * 6
    assert calls.failures == []
    assert "last_exit" not in node.supervision()["children"]["gateway-0"], "it drained: nothing crashed"
    assert "outgrown" in warned(node)
    assert node.status()["uptime_s"] < node.supervision()["uptime_s"]


def test_a_busy_worker_takes_no_new_streams_until_it_is_well_below_its_limit(started: tuple[Node, Client]) -> None:
    node, client = started
    limit(node, max_cpu_percent=20)
    seen = []
    with hammered(client), hammered(client), load(lambda: modern(client)) as calls:
        until(lambda: is_shed(stream(client), "cpu"))
        assert {"high_cpu", "shedding_cpu"} <= warned(node)
        calls.goes_on(20)
    while (status := node.status())["shedding"]:
        seen.append(status["process"]["cpu_percent"])
        assert len(seen) < 60, seen
        time.sleep(0.3)
    assert calls.failures == []
    assert status["process"]["cpu_percent"] < 15, seen  # ten points below the limit, and what asking costs
    assert stream(client) is None


def test_connections_leave_sixty_four_files_to_everything_else(started: tuple[Node, Client]) -> None:
    node, client = started
    limit(node, max_cpu_percent=100)
    assert resource.prlimit(node.supervision()["pids"]["gateway-0"], resource.RLIMIT_NOFILE)[0] == FILES
    session = client.session()
    with contextlib.ExitStack() as stack:
        for _ in range(FILES):
            stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", client.port))))
        until(lambda: used(node)["open_files"] >= FILES - 64)
        assert used(node)["open_files"] < FILES - 20
        assert {"high_files", "shedding_files"} <= warned(node)
        refused = until(lambda: stream(client))
        assert (refused.status, refused.headers["retry-after"]) == (503, "10")
        assert gateway.manage(node.environment, "mcp", "tools", "call", "demo__echo", "text=x")["ok"], "by its own door"
    until(lambda: used(node)["open_files"] < FILES / 2)
    assert session.call("tools/call", {"name": "demo__echo", "arguments": {"text": "x"}}).status == 200
