"""The monitoring checklist against a real Prometheus: every row is made to happen in a real gateway, and its alert fires."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system import faulty, prometheus
from tests.system.gateway import ROOT, Gateway, eventually, running
from tests.system.prometheus import Prometheus
from tests.system.tools import require

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
# The disk of the full one: small enough to fill in memory, large enough that a tenth of it is more than the reserve.
DISK_MB = 120
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Watched:
    """`gateway` with remotes that are told how to be; `full` has next to no memory and disk left."""

    gateway: Gateway
    full: Gateway | None
    prometheus: Prometheus
    remotes: dict[str, faulty.Peer]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    require("prometheus")
    with contextlib.ExitStack() as stack:
        background = faulty.Background()
        stack.callback(background.stop)
        remotes = {name: faulty.Peer(background, "modern") for name in ("erring", "tripping", "slow", "dying")}
        for one in remotes.values():
            stack.callback(one.stop)
        entries: dict[str, dict[str, Any]] = {name: one.entry for name, one in remotes.items()}
        for name in ("erring", "slow"):
            entries[name] |= {"breaker": {"enabled": False}}
        entries["slow"] |= {"timeout": 6}
        entries["dying"] |= {"probe_interval": 1}
        gateway = stack.enter_context(running(entries, worker=True, MCP_MAX_CONNECTIONS_PER_KEY="100"))
        eventually(
            gateway.remotes,
            lambda found: {one["status"] for one in found.values()} == {"healthy"},
            within_s=PATIENCE_S,
            what="all healthy",
        )
        full = stack.enter_context(a_full_one(tmp_path_factory.mktemp("disk"), gateway))
        targets = [one.url.removeprefix("http://") for one in (gateway, full) if one is not None]
        folder = tmp_path_factory.mktemp("prometheus")
        yield Watched(gateway, full, stack.enter_context(prometheus.running(folder, targets)), remotes)


@contextlib.contextmanager
def a_full_one(disk: Path, like: Gateway) -> Iterator[Gateway | None]:
    """A gateway whose limit of memory is a little above what it needs, on a disk that is nearly full; None without root."""
    mounted = os.geteuid() == 0 and mount(disk)
    if not mounted:
        yield None
        return
    try:
        (disk / "rest").write_bytes(bytes(int(DISK_MB * 0.915) << 20))
        needed = health(like)["memory"]["rss_mb"]
        with running(
            {},
            MCP_MAX_MEMORY_MB=str(int(needed / 0.87)),
            MCP_DATA_DIR=str(disk),
            DATABASE_URL=f"sqlite:///{disk}/gateway.sqlite3",
        ) as gateway:
            yield gateway
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


def mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def health(gateway: Gateway) -> dict[str, Any]:
    with urllib.request.urlopen(f"{gateway.url}/health", timeout=5) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


def call(gateway: Gateway, remote: str, key: str | None = None) -> int:
    """The HTTP status of one tools/call."""
    version = "2026-07-28"
    meta = {"io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {}}
    name = f"{remote}__echo"
    params: dict[str, Any] = {"name": name, "arguments": {}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {"Authorization": f"Bearer {key or gateway.key}", "Content-Type": "application/json"}
    headers |= {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": version}
    with contextlib.closing(http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("POST", "/mcp", body, headers | {"Mcp-Method": "tools/call", "Mcp-Name": name})
        response = connection.getresponse()
        response.read()
        return response.status


def fires(watched: Watched, *names: str) -> None:
    eventually(watched.prometheus.firing, set(names).__le__, within_s=PATIENCE_S, what=f"{names} fire")


def test_an_idle_remote_that_dies_is_an_alert_with_its_name_and_the_gateway_is_not_healthy(watched: Watched) -> None:
    before = watched.prometheus.firing()
    assert not {name for name in before if "Remote" in name}, before
    watched.remotes["dying"].stop()
    fires(watched, "MCPRemoteNotHealthy dying", "MCPGatewayNotHealthy")
    assert "MCPRemotesNotHealthy" not in watched.prometheus.firing(), "who sees the name needs no second alert"


def test_more_than_ten_failures_a_minute_are_an_alert(watched: Watched) -> None:
    watched.remotes["erring"].be("500")
    failed = 'mcp_requests_total{outcome="failed"}'
    call(watched.gateway, "erring")
    eventually(lambda: watched.prometheus.query(failed), bool, within_s=PATIENCE_S, what="the first failure is counted")
    for _ in range(70):
        call(watched.gateway, "erring")
    fires(watched, "MCPErrorsHigh")


def test_calls_that_take_longer_than_five_seconds_are_an_alert(watched: Watched) -> None:
    watched.remotes["slow"].be("hang")
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: call(watched.gateway, "slow"), range(4)))
    fires(watched, "MCPLatencyHigh")


def test_more_than_eighty_streams_are_an_alert(watched: Watched) -> None:
    address = watched.gateway.url.removeprefix("http://")
    with contextlib.ExitStack() as stack:
        for _ in range(81):
            connection = stack.enter_context(contextlib.closing(http.client.HTTPConnection(address, timeout=10)))
            connection.request("GET", "/sse", headers={"Authorization": f"Bearer {watched.gateway.key}"})
            assert connection.getresponse().status == 200
        fires(watched, "MCPConnectionsHigh")


def test_a_full_disk_and_little_memory_are_alerts(watched: Watched) -> None:
    if watched.full is None:
        pytest.skip("filling a disk needs root")
    fires(watched, "MCPDiskFull", "MCPMemoryHigh")


def test_every_query_of_the_dashboard_has_an_answer(watched: Watched) -> None:
    """After a breaker has opened and a key was refused: nothing else of what it shows is missing from a quiet gateway."""
    watched.remotes["tripping"].be("500")
    for _ in range(10):
        call(watched.gateway, "tripping")
    assert call(watched.gateway, "tripping", key="mcp_no_key") == 401
    queries = list(dashboard_queries())
    assert len(queries) > 20

    def unanswered() -> list[str]:
        return [query for query in queries if not watched.prometheus.query(query)]

    eventually(unanswered, lambda left: not left, within_s=PATIENCE_S, what="every query has an answer")


def dashboard_queries() -> Iterator[str]:
    """As Grafana would send them, of all gateways."""
    filled = {"$job": "mcp-server", "$instance": ".*", "$__rate_interval": "1m"}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            query: str = target["expr"]
            for variable, value in filled.items():
                query = query.replace(variable, value)
            assert "$" not in query, query
            yield query


def test_what_is_exposed_is_as_prometheus_wants_it(watched: Watched) -> None:
    require("promtool")
    with urllib.request.urlopen(f"{watched.gateway.url}/metrics", timeout=5) as answer:
        page = answer.read()
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
