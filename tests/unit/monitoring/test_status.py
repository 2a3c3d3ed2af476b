from dataclasses import replace
from typing import Any

from mcpserver.lib.limits import Limits
from mcpserver.lib.usage import Process
from monitoring import status
from monitoring.health import Config, Facts
from monitoring.status import Gathered

FACTS = Facts(
    limits=Limits(), started=True, process=Process(rss_mb=64), dependencies={"database": "ok", "worker": "ok"}
)


def worker(**said: Any) -> dict[str, Any]:
    return {
        "ok": True,
        "pid": 7,
        "version": "0.1.0",
        "started_at": "2026-11-22T12:00:00Z",
        "uptime_s": 60,
        "draining": False,
        "connections": {"active": 2, "max": 100, "per_key": [{"key": "main", "name": "ci", "active": 2}]},
        "in_flight": 1,
        "waiting": 1,
        "payloads": {"bytes": 3, "kept_bytes": 1, "max_bytes": 10, "waiting": 0, "waited": 5},
        "mcps": {"demo": {"status": "healthy", "tools": 3}},
        "config": {"revision": 2, "sha256": "ab"},
        "errors": {"rate": 0.5},
        "latency": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
        **said,
    }


def test_workers_are_added_up_and_the_worst_one_counts_for_the_rest() -> None:
    other = worker(
        pid=8,
        started_at="2026-11-22T11:00:00Z",
        uptime_s=3660,
        draining=True,
        connections={
            "active": 1,
            "max": 100,
            "per_key": [{"key": "main", "name": "ci", "active": 1}],
            "refused": 4,
            "sockets": 9,
            "memory_bytes": 500,
        },
        mcps={"demo": {"status": "degraded", "tools": 3}},
        errors={"rate": 1},
        process={"rss_mb": 90.0, "cpu_percent": 1.0, "open_files": 40},
        keys={"held": 2, "remembered": 1, "stale": True, "uses_dropped": 2},
        calls={"mode": "calls", "waiting": 2, "dropped": 0, "stopped": ""},
        log={"dropped": 3, "stopped": True},
        warnings=["demo: a tool changed", "demo: another"],
        latency={"p50": None, "p95": 1.0, "p99": 30.0},
    )
    first = worker(
        warnings=["demo: a tool changed"],
        process={"rss_mb": 80.0, "cpu_percent": 5.0, "open_files": 30},
        keys={"held": 2, "remembered": 0, "stale": False, "uses_dropped": 1},
        calls={"mode": "calls", "waiting": 3, "dropped": 1, "stopped": "disk_full"},
    )
    assert status.merged([first, other]) == {
        "pid": 7,
        "version": "0.1.0",
        "started_at": "2026-11-22T11:00:00Z",
        "uptime_s": 3660,
        "draining": False,
        "authenticates": True,
        "shedding": [],
        "connections": {
            "active": 3,
            "max": 100,
            "per_key": [{"key": "main", "name": "ci", "active": 3}],
            "refused": 4,
            "sockets": 9,
            "memory_bytes": 500,
        },
        "in_flight": 2,
        "waiting": 2,
        "payloads": {"bytes": 6, "kept_bytes": 2, "max_bytes": 20, "waiting": 0, "waited": 10},
        "mcps": {"demo": {"status": "degraded", "tools": 3}},
        "config": {"revision": 2, "sha256": "ab"},
        "warnings": ["demo: a tool changed", "demo: another"],
        "workers": 2,
        "limits": {},
        "process": {"rss_mb": 90.0, "cpu_percent": 5.0, "open_files": 40},
        "keys": {"held": 2, "remembered": 1, "stale": True, "uses_dropped": 3},
        "calls": {"audit": "calls", "waiting": 5, "dropped": 1, "stopped": "disk_full"},
        "log": {"dropped": 3, "stopped": True},
        "errors": {"rate": 1.5},
        "latency": {"p50": 1.0, "p95": 2.0, "p99": 30.0},
    }
    assert status.merged([]) is None


def test_a_remote_is_described_by_its_worker_over_what_probes_wrote_down() -> None:
    stored: dict[str, dict[str, Any]] = {
        "demo": {"status": "unhealthy", "latency_ms": 4, "last_ok_at": "then", "error": "refused"},
        "gone": {"status": "healthy"},
    }
    assert status.described({"demo": {"status": "degraded", "last_error": None, "circuit": "open"}}, stored) == {
        "demo": {
            "status": "degraded",
            "circuit": "open",
            "transport": None,
            "era": None,
            "tools": None,
            "remembered": None,
            "calls": None,
            "latency_ms": 4,
            "last_ok": "then",
            "last_error": "refused",
            "missing_env": [],
        }
    }


def test_the_latency_of_a_remote_is_that_of_its_last_contact_not_of_its_start() -> None:
    found = status.described({"demo": {"latency_ms": 2500.0}}, {"demo": {"latency_ms": 4.0}})
    assert found["demo"]["latency_ms"] == 4.0
    assert status.described({"demo": {"latency_ms": 2500.0}}, {})["demo"]["latency_ms"] == 2500.0


def test_the_document_has_every_section_whoever_answered() -> None:
    sections = [
        "server", "connections", "in_flight", "waiting", "payloads", "mcps", "memory", "cpu", "fds", "disk", "errors", "latency",
        "calls", "worker", "dependencies", "clock", "config", "warnings", "limits", "nodes",
    ]  # fmt: skip
    running = status.document(Gathered(FACTS, workers=[worker()], live=worker(), supervisor={"pid": 6}))
    down = status.document(Gathered(replace(FACTS, started=False)))
    assert list(running) == list(down) == sections
    assert running["server"]["status"] == "healthy"
    assert running["server"]["pid"] == 6
    assert down["server"]["status"] == "stopped"
    assert down["warnings"] == []


def test_a_worker_that_is_there_and_says_nothing_is_unhealthy_and_named() -> None:
    document = status.document(Gathered(replace(FACTS, started=False), silent=["gateway-0"]))
    assert document["server"]["status"] == "unhealthy"
    assert document["warnings"][0] == {"code": "silent_worker", "message": "gateway-0 does not answer"}


def test_a_gateway_whose_workers_are_being_started_is_not_stopped() -> None:
    children = {"gateway-0": {"state": "starting", "last_exit": "signal KILL"}}
    gathered = Gathered(replace(FACTS, started=False), supervisor={"pid": 6, "children": children})
    document = status.document(gathered)
    assert document["server"]["status"] == "unhealthy"
    assert {"code": "starting", "message": "the gateway is not ready yet"} in document["warnings"]
    assert document["warnings"][0]["message"] == "gateway-0 ended with signal KILL and is started again"


def test_a_worker_that_hangs_is_named_although_another_serves() -> None:
    children = {"gateway-0": {"state": "ready"}, "gateway-1": {"state": "ready", "stalled": True}}
    document = status.document(Gathered(FACTS, workers=[worker()], live=worker(), supervisor={"children": children}))
    assert document["warnings"][0]["code"] == "stalled_worker"
    assert document["warnings"][0]["message"].startswith("gateway-1 hangs")


def test_a_worker_that_was_replaced_for_its_memory_is_told_of_for_an_hour() -> None:
    children = {
        "gateway-0": {"state": "ready", "outgrown_ago_s": 130.0},
        "gateway-1": {"state": "ready", "outgrown_ago_s": 4000.0},
    }
    document = status.document(Gathered(FACTS, workers=[worker()], live=worker(), supervisor={"children": children}))
    told = {"code": "outgrown", "message": "gateway-0 was replaced 2 min ago: it held too much memory"}
    assert document["warnings"] == [told]


def test_a_pending_edit_is_shown_whole() -> None:
    problem = {"path": "mcpServers.x", "line": 3, "message": "no"}
    document = status.document(
        Gathered(replace(FACTS, config=Config(2, "ab", (problem,))), workers=[worker()], live=worker())
    )
    told = {"version": 2, "revision": 2, "sha256": "ab", "loaded_at": None, "pending_error": [problem]}
    assert document["config"] == told
    assert document["server"]["status"] == "degraded"
