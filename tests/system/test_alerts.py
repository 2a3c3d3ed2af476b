"""The monitoring checklist against a real Prometheus: every row is made to happen in a real gateway, and its alert fires."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system import faulty, prometheus
from tests.system.gateway import Gateway, eventually, running
from tests.system.prometheus import Prometheus
from tests.system.tools import require

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
        remotes = {name: faulty.Peer(background, "modern") for name in ("erring", "slow", "dying")}
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
        needed = health(like.url)["memory"]["rss_mb"]
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


def health(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


# The rows of the checklist: what makes each happen.


@contextlib.contextmanager
def a_remote_is_killed(watched: Watched) -> Iterator[None]:
    before = watched.prometheus.firing()
    assert not {name for name in before if "Remote" in name}, before
    watched.remotes["dying"].stop()
    yield
    assert "MCPRemotesNotHealthy" not in watched.prometheus.firing(), "who sees the name needs no second alert"


@contextlib.contextmanager
def seventy_calls_fail(watched: Watched) -> Iterator[None]:
    watched.remotes["erring"].be("500")
    failed = 'mcp_requests_total{outcome="failed"}'
    call(watched.gateway, "erring")
    eventually(lambda: watched.prometheus.query(failed), bool, within_s=PATIENCE_S, what="the first failure is counted")
    for _ in range(70):
        call(watched.gateway, "erring")
    yield


@contextlib.contextmanager
def calls_take_six_seconds(watched: Watched) -> Iterator[None]:
    watched.remotes["slow"].be("hang")
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: call(watched.gateway, "slow"), range(4)))
    yield


@contextlib.contextmanager
def many_streams_are_open(watched: Watched) -> Iterator[None]:
    address = watched.gateway.url.removeprefix("http://")
    with contextlib.ExitStack() as stack:
        for _ in range(81):
            connection = stack.enter_context(contextlib.closing(http.client.HTTPConnection(address, timeout=10)))
            connection.request("GET", "/sse", headers={"Authorization": f"Bearer {watched.gateway.key}"})
            assert connection.getresponse().status == 200
        yield


@contextlib.contextmanager
def it_was_so_from_the_start(watched: Watched) -> Iterator[None]:
    if watched.full is None:
        pytest.skip("filling a disk needs root")
    yield


@dataclass(frozen=True)
class Row:
    """`alerts` fire; `query` has an answer; `sees` holds of what `mcpstatus` and /health say alike, `warning` is in both."""

    made: Callable[[Watched], contextlib.AbstractContextManager[None]]
    alerts: set[str]
    query: str
    sees: Callable[[dict[str, Any]], bool]
    warning: str
    in_full: bool = False


CHECKLIST = {
    "health.status, mcps.*.status": Row(
        a_remote_is_killed,
        {"MCPRemoteNotHealthy dying", "MCPGatewayNotHealthy"},
        'mcp_remote_status{remote="dying",status!="healthy"} == 1 and on() mcp_health{status="degraded"} == 1',
        lambda said: word_of(said) == "degraded" and words_of(said)["dying"] == "unhealthy",
        "remotes",
    ),
    "errors.rate": Row(
        seventy_calls_fail,
        {"MCPErrorsHigh"},
        "mcp_errors_per_minute > 10",
        lambda said: said["errors"]["rate"] > 10,
        "high_errors",
    ),
    "latency.p99": Row(
        calls_take_six_seconds,
        {"MCPLatencyHigh"},
        'mcp_latency_seconds{percentile="99"} > 5',
        lambda said: said["latency"]["p99"] > 5000,
        "high_latency",
    ),
    "connections.active": Row(
        many_streams_are_open,
        {"MCPConnectionsHigh"},
        "mcp_connections > 80",
        lambda said: said["connections"]["active"] > 80,
        "high_connections",
    ),
    "disk.percent": Row(
        it_was_so_from_the_start,
        {"MCPDiskFull"},
        "mcp_disk_used_ratio > 0.9",
        lambda said: said["disk"]["percent"] > 90,
        "high_disk",
        in_full=True,
    ),
    "memory.percent": Row(
        it_was_so_from_the_start,
        {"MCPMemoryHigh"},
        "mcp_memory_used_ratio > 0.8",
        lambda said: said["memory"]["percent"] > 80,
        "high_memory",
        in_full=True,
    ),
}


def word_of(said: dict[str, Any]) -> str:
    return str(said["server"]["status"] if "server" in said else said["status"])


def words_of(said: dict[str, Any]) -> dict[str, str]:
    """The word of each remote."""
    if "mcps_health" in said:
        return dict(said["mcps_health"]["mcps"])
    return {name: one["status"] for name, one in said["mcps"].items()}


@pytest.mark.edge(18)
@pytest.mark.parametrize("metric", CHECKLIST)
def test_each_row_of_the_checklist_is_seen_in_status_health_and_metrics_and_is_an_alert(
    watched: Watched, metric: str
) -> None:
    row = CHECKLIST[metric]
    with row.made(watched):
        eventually(watched.prometheus.firing, row.alerts.__le__, within_s=PATIENCE_S, what=f"{row.alerts} fire")
        assert watched.prometheus.query(row.query), row.query
        gateway = watched.full if row.in_full else watched.gateway
        assert gateway is not None
        for said in (health(gateway.url), gateway.command("mcpstatus")):
            assert row.sees(said), said
            assert row.warning in [one["code"] for one in said["warnings"]], said["warnings"]
