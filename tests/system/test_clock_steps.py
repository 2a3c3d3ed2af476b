"""The wall clock is set two hours ahead, then back, under a whole gateway at work: nothing fails, waits or ends because of it.

Supervisor, two workers, Celery and Redis all see the step; what they tell each other was written before it.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet
from mcp.server.mcpserver import MCPServer

from tests.component import asking
from tests.component.real_gateway import Client, Session, Stream, until
from tests.peers.authorization import Desk, authorization_server, resource_server
from tests.system import gateway, servers
from tests.system.faulty import Background, Peer
from tests.system.stepped import Clock

pytestmark = pytest.mark.edge(22)

AHEAD, BACK, RIGHT = 2, -2, 0
# Longer than everything that is waited for here takes by itself, and far below what a step would make of it.
SOON_S = 25.0
SECRETS = {"SHOP_SECRET": "its-secret", "MCP_ENCRYPTION_KEYS": Fernet.generate_key().decode()}


class World:
    """A gateway at work, seen by its clients, its operator and its database."""

    def __init__(self, running: gateway.Gateway, clock: Clock, ill: Peer, desk: Desk) -> None:
        self.gateway = running
        self.clock = clock
        self.ill = ill
        self.desk = desk
        self.client = Client(urlsplit(running.url).port or 0, running.key)
        self.session = self.client.session()
        self.streams = [self.client.relay().stream, self.session.stream()]
        self.streams.append(self.client.modern_stream("subscriptions/listen", {"notifications": {}}))
        self.threads = ThreadPoolExecutor(8)

    def begin_calls(self) -> list[Future[Any]]:
        """Two seconds each, over both eras."""
        params = {"name": "demo__slow", "arguments": {"steps": 4, "seconds": 2}}
        modern = [self.threads.submit(self.client.modern, "tools/call", params) for _ in range(2)]
        sessions = [self.threads.submit(Session.call, self.session, "tools/call", params, id=n) for n in (7, 8)]
        return modern + sessions

    def serves(self, *, key: str = "") -> None:
        """New calls, of an old session and a new one, with an old key or a new one, to remotes with and without a token."""
        add = {"name": "demo__add", "arguments": {"a": 1, "b": 2}}
        for client in (self.client, Client(self.client.port, key) if key else self.client):
            assert client.modern("tools/call", add).result["content"][0]["text"] == "3.0"
            assert client.session().call("tools/call", add).result["content"][0]["text"] == "3.0"
        assert self.session.call("tools/call", add).result["content"][0]["text"] == "3.0"
        shop = self.client.modern("tools/call", {"name": "shop__echo", "arguments": {"text": "hello"}})
        assert shop.result["content"][0]["text"] == "hello"

    def health(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.gateway.url}/health", timeout=10) as answer:
            document: dict[str, Any] = json.load(answer)
            return document

    def written(self) -> tuple[Any, ...]:
        """The stamps of the last beat and of the last probe of a program."""
        with closing(sqlite3.connect(self.gateway.folder / "data" / "gateway.sqlite3", timeout=10)) as connection:
            beat = connection.execute("SELECT at FROM monitoring_heartbeat WHERE process='worker'").fetchone()
            probe = connection.execute("SELECT checked_at FROM remotes_remotehealth WHERE name='demo'").fetchone()
        return (*(beat or (None,)), *(probe or (None,)))

    def logged(self) -> float:
        """The stamp of the last line, which is in UTC."""
        lines = (self.gateway.folder / "logs" / "combined.log").read_text().splitlines()
        stamp = json.loads(lines[-1])["time"]
        assert stamp.endswith("Z")
        return datetime.fromisoformat(stamp).astimezone(UTC).timestamp()

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        self.threads.shutdown()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("clock")
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    clock, background = Clock(folder), Background()
    shop = MCPServer("shop")

    @shop.tool()
    def echo(text: str) -> str:
        return text

    with ExitStack() as stack:
        desk = stack.enter_context(authorization_server(lifetime_s=3600))
        desk.client()
        url = stack.enter_context(resource_server(desk, shop.streamable_http_app()))
        redis = stack.enter_context(servers.redis())
        ill = Peer(background, "modern")
        stack.callback(ill.stop)
        auth = {"token_url": f"{desk.url}/token", "client_id": "known", "client_secret": "${SHOP_SECRET}"}
        demo = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(gateway.ROOT)}
        remotes = {
            "demo": demo | {"probe_interval": 5},
            "ill": ill.entry | {"timeout": 2, "breaker": {"open": 2}},
            "shop": {"url": url, "auth": auth},
        }
        chosen = {"MCP_WORKERS": "2", "REDIS_URL": redis.url, "MCP_HEARTBEAT_S": "1"} | SECRETS
        running = stack.enter_context(gateway.running(remotes, worker=True, **chosen, **clock.environment))
        world = World(running, clock, ill, desk)
        stack.callback(world.close)
        until(lambda: None not in world.written(), "the schedule runs", within_s=SOON_S)
        until(lambda: running.remotes()["shop"]["status"] == "healthy", "the shop is reached", within_s=SOON_S)
        world.serves()
        yield world


@pytest.mark.parametrize("hours", [AHEAD, BACK, RIGHT], ids=["ahead", "back", "right"])
def test_a_step_of_the_clock_disturbs_nothing(world: World, hours: int) -> None:
    calls = world.begin_calls()
    broken(world)
    before = world.written()
    world.clock.set(hours)
    world.ill.be("")
    words = {world.health()["status"] for _ in range(10)}
    for call in calls:
        assert "4 steps" in call.result(SOON_S).result["content"][0]["text"]
    fresh = world.gateway.command("mcpkey", "generate", f"at{hours}", "--expires", "1h")
    newcomer = Client(world.client.port, fresh["key"])
    until(lambda: all(newcomer.modern("tools/list").status == 200 for _ in range(16)), "both workers know the key")
    world.serves(key=fresh["key"])
    for stream in world.streams:
        assert stream.line(SOON_S), "a stream ended"
        beats(stream)
    until(lambda: both_new(world.written(), before), "beats and probes go on", within_s=SOON_S)
    until(lambda: mended(world), "the breaker lets the next try through", within_s=SOON_S)
    assert abs(world.logged() - world.clock.now()) < 60
    words |= {world.health()["status"] for _ in range(10)}
    assert words <= {"healthy", "degraded"}  # degraded by the remote that was ill
    assert world.health()["dependencies"] == {"database": "ok", "worker": "ok", "redis": "ok"}
    assert world.health()["time"]["synchronised"] in (True, False, None)


def broken(world: World) -> None:
    """Its circuit is open when the clock is set."""
    world.ill.be("reset")
    call = {"name": "ill__echo", "arguments": {}}
    until(lambda: "degraded" in str(world.client.modern("tools/call", call).messages), "its circuit opens")


def mended(world: World) -> bool:
    return "isError" not in str(world.client.modern("tools/call", {"name": "ill__echo", "arguments": {}}).messages)


def beats(stream: Stream) -> None:
    """The next ones come in time; what was in its buffer does not count."""
    for _ in range(4):
        began = time.monotonic()
        assert stream.line(10.0)
        assert time.monotonic() - began < 10


def both_new(written: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    return all(new != old for new, old in zip(written, before, strict=True))


@pytest.mark.parametrize("hours", [AHEAD, BACK], ids=["ahead", "back"])
@pytest.mark.parametrize("remote", ["io", "new"])
def test_a_question_may_be_answered_after_a_step(asked: tuple[asking.Modern, Clock], remote: str, hours: int) -> None:
    client, clock = asked
    clock.set(RIGHT)
    params = asking.params_for("tools/call", remote, asking.plan_of([asking.form()]))
    ended = client.run("tools/call", params, pause=lambda: clock.set(hours))
    assert len(ended.asked) == 1
    assert ended.replies


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asking.Modern, Clock]]:
    clock = Clock(tmp_path_factory.mktemp("clock"))
    with asking.asking_gateway(**clock.environment) as running:
        yield asking.Modern(running.client()), clock
