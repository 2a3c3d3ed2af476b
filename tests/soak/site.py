"""What is soaked: a real gateway before real remotes of every transport and era, with room for the crowd; and an island, from
which clients vanish without a word, where the kernel gives one."""

import contextlib
import http.client
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from tests import peers
from tests.bench.links import Target
from tests.component.real_gateway import Client
from tests.soak.judge import Sample
from tests.system.gateway import Gateway, eventually, running
from tests.system.island import Island, Unavailable, island
from tests.system.watch import MIB, worker

REMOTES = ("modern", "legacy", "events", "program")


@dataclass(frozen=True)
class Patience:
    """How long the gateway waits for a client that shows no sign of life: an installation's minute would take too long here."""

    stale_s: float = 6
    heartbeat_s: float = 2

    @property
    def allowed_s(self) -> dict[str, float]:
        """Of those who vanish: FIN, RST, silently; with the margin of a busy machine."""
        return {"FIN": 4, "RST": 4, "silence": 2 * (self.stale_s + self.heartbeat_s)}


@dataclass(frozen=True)
class Site:
    gateway: Gateway
    patience: Patience
    far: Island | None
    process: psutil.Process

    @property
    def port(self) -> int:
        return int(self.gateway.url.rsplit(":", 1)[1])

    @property
    def target(self) -> Target:
        return Target("gateway", self.port, key=self.gateway.key)

    @property
    def distant(self) -> Client:
        """A client as it is on the island, or here where there is none."""
        return Client(self.port, self.gateway.keys[1], self.far.shore if self.far else "127.0.0.1")

    def sample(self, at_s: float) -> Sample:
        health = self.health()
        return Sample(
            at_s=round(at_s, 1),
            rss_mb=self.process.memory_info().rss / MIB,
            descriptors=self.process.num_fds(),
            sockets=health["sockets"],
            streams=health["active"],
            in_flight=health["in_flight"],
            held_kb=health["memory_bytes"] / 1024,
        )

    def health(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/health")
            found: dict[str, Any] = json.load(connection.getresponse())["connections"]
        return found


@contextlib.contextmanager
def standing(*, seconds: float, crowd: int) -> Iterator[Site]:
    patience = Patience()
    with contextlib.ExitStack() as stack:
        far = _far(stack)
        modern = stack.enter_context(peers.sdk_server("http", "--era", "modern"))
        legacy = stack.enter_context(peers.sdk_server("http", "--era", "legacy"))
        events = stack.enter_context(peers.sdk_server("sse"))
        remotes: dict[str, dict[str, Any]] = {
            "modern": {"url": modern.url},
            "legacy": {"url": legacy.url},
            "events": {"url": events.url, "type": "sse"},
            "program": peers.sdk_stdio(era="legacy").entry(),
        }
        room = str(crowd)
        gateway = stack.enter_context(
            running(
                remotes,
                HOST="0.0.0.0" if far else "127.0.0.1",
                MCP_STALE_S=str(patience.stale_s),
                MCP_HEARTBEAT_S=str(patience.heartbeat_s),
                MCP_MAX_CONNECTIONS_PER_KEY=room,
                MCP_MAX_TOTAL_CONNECTIONS=room,
                MCP_MAX_REQUESTS_IN_FLIGHT=room,
                MCP_MAX_IN_FLIGHT_PER_KEY=room,
                MCP_MAX_IN_FLIGHT_PER_REMOTE=room,
                MCP_CONNECTION_TIMEOUT_S=str(max(3600, 2 * seconds)),
            )
        )
        eventually(
            gateway.remotes,
            lambda found: all(found.get(name, {}).get("status") == "healthy" for name in remotes),
            within_s=30,
            what="all healthy",
        )
        yield Site(gateway, patience, far, worker(gateway.process.pid))


def _far(stack: contextlib.ExitStack) -> Island | None:
    try:
        return stack.enter_context(island())
    except Unavailable as why:
        print(f"nobody will vanish without a word: {why}", file=sys.stderr)
        return None
