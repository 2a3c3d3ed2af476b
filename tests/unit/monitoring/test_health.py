from dataclasses import replace
from typing import Any

import pytest

from mcpserver.lib.limits import Limits
from mcpserver.lib.usage import Process
from monitoring import health
from monitoring.health import Config, Disk, Facts

WELL = Facts(
    limits=Limits(),
    started=True,
    uptime_s=12.34,
    connections=3,
    sockets=5,
    connections_memory_bytes=4096,
    in_flight=1,
    remotes={"demo": "healthy", "off": "disabled", "new": "unknown"},
    process=Process(rss_mb=128.04, cpu_percent=5.06, open_files=40),
    disk=Disk(percent=50.0, free_mb=1000.0),
    errors_per_minute=0.204,
    latency_ms={"p50": 1.0, "p95": 2.0, "p99": 3.0},
    dependencies={"database": "ok", "redis": "not_configured", "worker": "ok"},
    config=Config(revision=4, sha256="ab"),
    now="2026-11-22T12:00:00.000Z",
    clock_synchronised=True,
)
PENDING = Config(revision=4, sha256="ab", pending=({"path": "mcpServers.secret-name", "message": "no"},))


@pytest.mark.edge(18)
def test_the_whole_document_of_a_healthy_gateway() -> None:
    assert health.document(WELL, names=True, edits=True) == {
        "status": "healthy",
        "uptime": 12.3,
        "connections": {
            "active": 3,
            "max": 100,
            "in_flight": 1,
            "sockets": 5,
            "memory_bytes": 4096,
            "lifetime_limit_s": 3600,
        },
        "mcps_health": {
            "total": 3,
            "by_status": {"disabled": 1, "healthy": 1, "unknown": 1},
            "mcps": {"demo": "healthy", "off": "disabled", "new": "unknown"},
            "circuits": {},
        },
        "memory": {"rss_mb": 128.0, "limit_mb": 512, "percent": 25.0},
        "cpu": {"percent": 5.1, "limit_percent": 80},
        "disk": {
            "percent": 50.0,
            "free_mb": 1000.0,
            "free_inodes": None,
            "stopped_writes": False,
            "log_lines_dropped": 0,
            "uses_dropped": 0,
            "calls_dropped": 0,
        },
        "errors": {"rate": 0.2},
        "latency": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
        "time": {"utc": "2026-11-22T12:00:00.000Z", "synchronised": True},
        "dependencies": {"database": "ok", "redis": "not_configured", "worker": "ok"},
        "config": {"revision": 4, "sha256": "ab", "pending_error": None},
        "warnings": [],
    }


@pytest.mark.edge(18)
@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"draining": True}, "draining", 503),
        ({"started": False}, "unhealthy", 503),
        ({"authenticates": False}, "unhealthy", 503),
        ({"started": False, "draining": True}, "draining", 503),
        ({"remotes": {"a": "degraded"}}, "degraded", 200),
        ({"remotes": {"a": "unhealthy"}}, "degraded", 200),
        ({"remotes": {"a": "auth_expired"}}, "degraded", 200),
        ({"remotes": {"a": "misconfigured"}}, "degraded", 200),
        ({"remotes": {}}, "healthy", 200),
        ({"dependencies": {"redis": "down"}}, "degraded", 200),
        ({"dependencies": {"database": "down"}}, "degraded", 200),
        ({"dependencies": {"worker": "late"}}, "degraded", 200),
        ({"dependencies": {"worker": "unknown"}}, "healthy", 200),
        ({"shedding": ("cpu",)}, "degraded", 200),
        ({"config": PENDING}, "degraded", 200),
        ({"disk": Disk(stopped_writes=True)}, "degraded", 200),
        ({"process": Process(rss_mb=500)}, "healthy", 200),
    ],
)
def test_the_word_and_its_http_status(change: dict[str, Any], status: str, code: int) -> None:
    word = health.judge(replace(WELL, **change))
    assert (word, health.http_status(word)) == (status, code)


@pytest.mark.edge(18)
def test_without_names_nothing_tells_what_a_remote_is_called() -> None:
    facts = replace(WELL, remotes={"secret-name": "unhealthy"}, config=PENDING)
    assert "secret-name" not in str(health.document(facts, names=False, edits=False))
    assert "secret-name" in str(health.document(facts, names=True, edits=True))


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({"connections": 81}, ["high_connections"]),
        ({"connections": 80}, []),
        ({"process": Process(rss_mb=410)}, ["high_memory"]),
        ({"process": Process(open_files=820)}, ["high_files"]),
        ({"process": Process(cpu_percent=65)}, ["high_cpu"]),
        ({"disk": Disk(percent=90.1)}, ["high_disk"]),
        ({"errors_per_minute": 10.1}, ["high_errors"]),
        ({"latency_ms": {"p99": 5001}}, ["high_latency"]),
        ({"clock_synchronised": False}, ["clock"]),
        ({"clock_synchronised": None}, []),
        ({"started": False}, ["starting"]),
        ({"authenticates": False}, ["no_keys"]),
        ({"remotes": {"a": "degraded"}}, ["remotes"]),
        ({"dependencies": {"database": "down", "redis": "down"}}, ["database_down", "redis_down"]),
        ({"shedding": ("memory",), "config": PENDING}, ["shedding_memory", "config_pending"]),
    ],
)
def test_what_is_warned_about(change: dict[str, Any], codes: list[str]) -> None:
    assert [warning.code for warning in health.warnings(replace(WELL, **change))] == codes


@pytest.mark.edge(18)
def test_circuits_that_are_not_closed_are_shown_to_whom_names_are() -> None:
    open_one = {
        "state": "open",
        "next_try_s": 12.0,
        "failures": 5,
        "reason": "demo broke",
        "since": "now",
        "tools": None,
    }
    facts = replace(WELL, circuits={"demo": open_one, "new": {"state": "closed"}})
    assert health.document(facts, names=True, edits=True)["mcps_health"]["circuits"] == {"demo": open_one}
    assert "demo" not in str(health.document(facts, names=False, edits=False))
