"""Two machines (own folders, ports, processes; one Redis, one PostgreSQL) behind an nginx that sends to each in turns."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcpserver.lib import control
from tests.component.real_gateway import Client, Relay, Session, until
from tests.system import faulty, gateway, servers
from tests.system.load import load, modern, session
from tests.system.nodes import DEMO, Node, in_turns

NAMES = ("first", "second")


class World:
    def __init__(self, nodes: list[Node], nginx: servers.Server, redis: servers.Redis, key: str) -> None:
        self.nodes = nodes
        self.redis = redis
        self.key = key
        self.client = Client(nginx.port, key)

    def manage(self, *words: str, on: int = 0) -> dict[str, Any]:
        return gateway.manage(self.nodes[on].environment, *words)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(servers.redis())
        database = stack.enter_context(servers.postgres())
        shared = {"REDIS_URL": redis.url, "DATABASE_URL": database.url, "MCP_HEARTBEAT_S": "1"}
        nodes = []
        for name in NAMES:
            folder = Path(tempfile.mkdtemp(prefix=f"node-{name}-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            (folder / "data").mkdir()
            nodes.append(Node(folder, **shared))
        gateway.manage(nodes[0].environment, "migrate")
        key = str(gateway.manage(nodes[0].environment, "mcpkey", "generate", "main")["key"])
        for node in nodes:
            stack.callback(node.stop)
            node.start()
        nginx = stack.enter_context(servers.nginx(lambda _, port: in_turns(port, [node.port for node in nodes])))
        found = World(nodes, nginx, redis, key)
        until(lambda: set(machines(found)) == {2}, "both know each other")
        yield found


def machines(world: World) -> list[int]:
    return [status["cluster"]["nodes"] for status in statuses(world)]


def echoes(opened: Session | Relay) -> None:
    for number in range(8):
        answer = opened.call("tools/call", {"name": "demo__echo", "arguments": {"text": f"n{number}"}}, id=number + 10)
        result = answer["result"] if isinstance(answer, dict) else answer.result
        assert result["content"][0]["text"] == f"n{number}"


def test_sessions_of_every_era_are_served_wherever_their_requests_come(world: World) -> None:
    opened = world.client.session()
    echoes(opened)
    with opened.stream() as stream, world.client.relay() as relay:
        assert stream.status == 200
        echoes(relay.opened())
        echoes(opened)
    for _ in range(8):
        assert world.client.modern("tools/call", {"name": "demo__echo", "arguments": {"text": "x"}}).status == 200
    assert opened.delete().status == 204
    assert {opened.call("tools/list").status for _ in range(4)} == {404}


def test_a_call_is_cancelled_from_the_other_machine(world: World) -> None:
    opened = world.client.session()
    slow = opened.begin("tools/call", {"name": "demo__slow", "arguments": {"seconds": 20, "steps": 20}}, id=7)
    began = time.monotonic()
    until(lambda: any(status["in_flight"] for status in statuses(world)))
    assert opened.tell("notifications/cancelled", {"requestId": 7}).status == 202
    slow.getresponse().read()
    slow.close()
    assert time.monotonic() - began < 10


@pytest.mark.edge(3)
def test_streams_of_a_key_are_counted_among_all_machines(world: World) -> None:
    until(lambda: sum(active(world)) == 0)
    with contextlib.ExitStack() as stack:
        opened, turned_away = list[int](), list[int]()
        for _ in range(40):
            stream = world.client.stream("GET", "/sse", None, [world.client.bearer, ("Accept", "text/event-stream")])
            stack.callback(stream.close)
            (opened if stream.status == 200 else turned_away).append(stream.status)
        assert (len(opened), set(turned_away)) == (10, {429})
        assert min(active(world)) > 0, "spread over all workers of both machines"
    until(lambda: sum(active(world)) == 0)
    again = until(lambda: [s for s in [world.client.relay().stream] if s.status == 200], within_s=10)
    again[0].close()


@pytest.mark.edge(5)
def test_a_key_that_is_revoked_on_one_machine_is_refused_on_the_other(world: World) -> None:
    key = str(world.manage("mcpkey", "generate", "brief", on=0)["key"])
    there = Client(world.nodes[1].port, key)

    def answers() -> set[int]:
        """What the workers of that machine say: so many connections come to each of them."""
        return {there.modern("tools/list").status for _ in range(12)}

    until(lambda: answers() == {200}, within_s=5)
    stream = there.relay().stream
    assert world.manage("mcpkey", "revoke", "brief", on=0)["ok"]
    until(lambda: answers() == {401}, within_s=5)
    stream.rest()
    stream.close()


def test_a_configuration_applied_on_one_machine_reaches_the_other(world: World) -> None:
    fresh = world.nodes[0].folder / "mcp-config.new"
    fresh.write_text(gateway.configuration({"demo": DEMO, "late": DEMO}))
    fresh.replace(world.nodes[0].folder / "mcp-config.yaml")

    def names() -> set[str]:
        listed = Client(world.nodes[1].port, world.key).modern("tools/list").result["tools"]
        return {tool["name"].partition("__")[0] for tool in listed}

    until(lambda: names() == {"demo", "late"}, within_s=15)
    assert "late" in (world.nodes[1].folder / "mcp-config.yaml").read_text()


def test_what_happens_on_one_machine_is_shown_on_each(world: World) -> None:
    """A revision, calls, a circuit that opens and is reset, a probe's result."""
    with contextlib.ExitStack() as stack:
        background = faulty.Background()
        stack.callback(background.stop)
        odd = faulty.Peer(background, "modern")
        stack.callback(odd.stop)
        entry = odd.entry | {"probe_interval": 1, "breaker": {"open": 300}}
        before = world.manage("mcpstatus", on=1)["config"]["revision"]
        config = world.nodes[0].folder / "mcp-config.yaml"
        config.with_suffix(".new").write_text(gateway.configuration({"demo": DEMO, "odd": entry}))
        config.with_suffix(".new").replace(config)
        until(lambda: {one["config"]["revision"] for one in shown(world).values()} == {before + 1}, within_s=15)
        until(lambda: of_remote(world, "odd", "status") == ["healthy", "healthy"], within_s=15)

        there = Client(world.nodes[1].port, world.key)
        odd.be("500")
        for _ in range(12):
            there.modern("tools/call", {"name": "odd__echo", "arguments": {}})
        until(lambda: circuits(world) == ["open", "open"], within_s=15)
        assert sum(of_remote(world, "odd", "calls")) == world.manage("mcpstatus")["mcps"]["odd"]["calls"] == 12
        odd.be("")
        assert world.manage("mcp", "remote", "reset", "odd", on=0)["ok"]
        until(lambda: circuits(world) == ["closed", "closed"], within_s=15)
        until(lambda: of_remote(world, "odd", "status") == ["healthy", "healthy"], within_s=15)

        odd.stop()  # idle: nothing but a probe finds out
        until(lambda: of_remote(world, "odd", "status") == ["unhealthy", "unhealthy"], within_s=25)


@pytest.mark.edge(19)
def test_redis_goes_and_comes_back_under_load(world: World) -> None:
    with load(lambda: modern(world.client), lambda: modern(world.client)) as calls:
        calls.goes_on()
        world.redis.kill()
        until(lambda: redis(world) == {"down"}, within_s=30)
        calls.goes_on()
        world.redis.start()
        until(lambda: redis(world) == {"ok"}, within_s=60)
        until(lambda: set(machines(world)) == {2}, within_s=30)
        calls.goes_on()
    assert calls.failures == []


def test_one_machine_dies_and_its_sessions_are_taken_over(world: World) -> None:
    """The last of this file: it leaves one machine."""
    opened = [world.client.session() for _ in range(4)]
    for each in opened:
        echoes(each)
    with load(lambda: modern(Client(world.nodes[0].port, world.key)), lambda: session(world.client)) as calls:
        calls.goes_on()
        world.nodes[1].die()
        calls.goes_on(40)
    assert len(calls.failures) <= 4, "what was in flight there, and nothing else"
    for each in opened:
        until(lambda each=each: each.call("ping").status == 200, within_s=20)  # type: ignore[misc]
        echoes(each)
    gone = until(lambda: [one for one in shown(world).values() if not one["reachable"]], within_s=30)
    assert [(one["status"], one["local"]) for one in gone] == [("unreachable", False)]
    assert gone[0]["age_s"] > 10
    assert "node_unreachable" in [one["code"] for one in world.manage("mcpstatus")["warnings"]]


def shown(world: World) -> dict[str, dict[str, Any]]:
    """Each machine, as the first one's `mcpstatus` shows it."""
    nodes: dict[str, dict[str, Any]] = world.manage("mcpstatus")["nodes"]
    assert len(nodes) == 2, nodes
    return nodes


def of_remote(world: World, name: str, what: str) -> list[Any]:
    return [node["mcps"].get(name, {}).get(what) for node in shown(world).values()]


def circuits(world: World) -> list[str]:
    return [(one or {}).get("state", "none") for one in of_remote(world, "odd", "circuit")]


def active(world: World) -> list[int]:
    return [status["connections"]["active"] for status in statuses(world)]


def redis(world: World) -> set[str]:
    return {status["cluster"]["redis"] for status in statuses(world)}


def statuses(world: World) -> list[dict[str, Any]]:
    """What each worker of both machines says of itself."""
    folders = [Path(node.environment["MCP_RUN_DIR"]) for node in world.nodes]
    return [control.ask(folder / f"gateway-{number}.sock", {"op": "status"}) for folder in folders for number in (0, 1)]
