from dataclasses import replace

import prometheus_client

from mcpserver.lib.limits import Limits
from mcpserver.lib.usage import Process
from monitoring.gauges import Gauges
from monitoring.health import Disk, Facts

FACTS = Facts(
    limits=Limits(),
    started=True,
    connections=3,
    in_flight=2,
    remotes={"a": "healthy", "b": "healthy", "c": "unhealthy"},
    process=Process(rss_mb=256),
    disk=Disk(percent=91.0),
    latency_ms={"p50": 1.0, "p95": 20.0, "p99": 6000.0},
)


def page(facts: Facts, *, names: bool = True) -> list[str]:
    text = prometheus_client.generate_latest(Gauges(facts, {}, names=names, version="1")).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_every_row_of_the_monitoring_checklist_is_a_series() -> None:
    rows = [
        'mcp_health{status="healthy"} 0.0',
        'mcp_health{status="degraded"} 1.0',
        'mcp_health{status="draining"} 0.0',
        'mcp_health{status="unhealthy"} 0.0',
        'mcp_remotes{status="healthy"} 2.0',
        'mcp_remotes{status="unhealthy"} 1.0',
        'mcp_warnings{code="remotes"} 1.0',
        'mcp_warnings{code="high_disk"} 1.0',
        'mcp_warnings{code="high_latency"} 1.0',
        "mcp_connections 3.0",
        "mcp_connections_limit 100.0",
        "mcp_requests_in_flight 2.0",
        "mcp_memory_used_ratio 0.5",
        "mcp_memory_used_bytes 2.68435456e+08",
        "mcp_disk_used_ratio 0.91",
        'mcp_latency_seconds{percentile="50"} 0.001',
        'mcp_latency_seconds{percentile="95"} 0.02',
        'mcp_latency_seconds{percentile="99"} 6.0',
        'mcp_remote_status{remote="a",status="healthy"} 1.0',
        'mcp_remote_status{remote="b",status="healthy"} 1.0',
        'mcp_remote_status{remote="c",status="unhealthy"} 1.0',
    ]
    assert [line for line in page(FACTS) if line in rows] == rows


def test_what_else_health_and_status_know_is_a_series_too() -> None:
    facts = replace(
        FACTS, dependencies={"database": "down", "redis": "not_configured", "worker": "unknown"}, beat_age_s=4.0,
        tasks={"done": 3, "failed": 1}, clock_synchronised=False,
    )  # fmt: skip
    said = {
        "workers": 2,
        "keys": {"held": 3, "remembered": 1, "stale": True},
        "mcps": {"a": {"tools": 6, "latency_ms": 20}},
    }
    text = prometheus_client.generate_latest(Gauges(facts, said, names=True, version="1")).decode().splitlines()
    assert {
        'mcp_build_info{version="1"} 1.0',
        "mcp_workers 2.0",
        "mcp_keys_stale 1.0",
        "mcp_clock_synchronised 0.0",
        'mcp_dependency_up{dependency="database"} 0.0',
        'mcp_dependency_up{dependency="redis"} 1.0',
        "mcp_worker_beat_age_seconds 4.0",
        'mcp_worker_tasks_total{outcome="failed"} 1.0',
        'mcp_remote_tools{remote="a"} 6.0',
        'mcp_remote_latency_seconds{remote="a"} 0.02',
    } <= set(text)
    assert not [line for line in text if 'dependency="worker"' in line]


def test_a_stranger_learns_how_many_remotes_are_ill_and_not_which() -> None:
    told = page(FACTS, names=False)
    assert 'mcp_remotes{status="unhealthy"} 1.0' in told
    assert not [line for line in told if "remote=" in line]


def test_what_is_not_known_is_left_out_rather_than_called_zero() -> None:
    told = page(replace(FACTS, disk=Disk(), latency_ms={}, remotes={}))
    assert not [line for line in told if line.startswith(("mcp_disk", "mcp_latency", "mcp_remotes{"))]
