"""The page of a terminal, whatever the document holds and however small the terminal is."""

import re
from typing import Any

import pytest

from monitoring import screen

DOCUMENT: dict[str, Any] = {
    "server": {"status": "degraded", "version": "0.1.0", "uptime_s": 7384.0, "workers": [{"pid": 1}]},
    "connections": {
        "active": 3,
        "max": 100,
        "per_key": [{"key": "abc", "name": "ci", "active": 2}, {"key": "def", "active": 1}],
    },
    "in_flight": 2,
    "mcps": {
        "docs": {"status": "healthy", "latency_ms": 12.0, "circuit": {"state": "closed"}, "tools": 6, "calls": 90},
        "shop": {"status": "misconfigured", "missing_env": ["SHOP_TOKEN"], "calls": 0},
        "tripped": {"status": "degraded", "circuit": {"state": "open", "reason": "HTTP 500"}},
        "evil": {"status": "unhealthy", "last_error": "no\x1b[2J\nhealthy", "calls": 1},
    },
    "memory": {"rss_mb": 450.0, "limit_mb": 512, "percent": 87.9},
    "disk": {"percent": 50.0, "free_mb": 2048.0, "stopped_writes": False},
    "errors": {"rate": 12.0},
    "latency": {"p50": 1.0, "p95": 2.0, "p99": 6200.0},
    "dependencies": {"db": "ok", "redis": "not_configured", "worker": "late"},
    "config": {"revision": 4},
    "warnings": [{"code": "x", "message": f"warning {number}"} for number in range(6)],
}


def page(document: dict[str, Any] = DOCUMENT, width: int = 120, height: int = 40, colour: bool = False) -> list[str]:
    return screen.frame(document, calls_per_minute={"docs": 30.0}, width=width, height=height, colour=colour)


def test_the_whole_page() -> None:
    assert [line.rstrip() for line in page()] == [
        "MCP gateway  degraded   version 0.1.0   up 2 h 3 min   1 worker   config revision 4",
        "dependencies  db ok   redis not_configured   worker late",
        "",
        "memory      ██████████████████░░  87.9 %   450 of 512 MB",
        "disk        ██████████░░░░░░░░░░  50.0 %   2.0 GB free",
        "streams     █░░░░░░░░░░░░░░░░░░░   3.0 %   3 of 100",
        "calls       2 in flight   p50 1 ms   p99 6.2 s   12 errors/min",
        "",
        "REMOTE                  STATE          LATENCY  BREAKER    CALLS/MIN  TOOLS  LAST ERROR",
        "evil                    unhealthy      –        –          –          –      no\\u001b[2J\\u000ahealthy",
        "shop                    misconfigured  –        –          –          –      SHOP_TOKEN is not set",
        "tripped                 degraded       –        open       –          –      HTTP 500",
        "docs                    healthy        12 ms    closed     30         6",
        "",
        "streams per key  ci 2   def 1",
        "",
        "! warning 0",
        "! warning 1",
        "! warning 2",
        "! warning 3",
        "  and 2 more: mcpstatus | jq .warnings",
    ]


def test_machines_are_shown_where_there_are_several_and_a_missing_one_first() -> None:
    node = {"status": "healthy", "reachable": True, "workers": 2, "connections": {"active": 7}, "in_flight": 1}
    here = node | {"local": True, "host": "web-1", "process": {"rss_mb": 101.4}}
    gone = node | {"status": "unreachable", "reachable": False, "age_s": 130.0, "address": "http://10.0.0.7:3000"}
    shown = [line.rstrip() for line in page(DOCUMENT | {"nodes": {"abc": here, "def": gone}})]
    assert shown[8:12] == [
        "MACHINE                 STATE          WORKERS  STREAMS    IN FLIGHT  MEMORY   SPOKE",
        "def                     unreachable    2        7          1          –        2 min 10 s ago   http://10.0.0.7:3000",
        "web-1                   healthy        2        7          1          101 MB   here",
        "",
    ]
    assert not any("MACHINE" in line for line in page(DOCUMENT | {"nodes": {"abc": here}}))


@pytest.mark.parametrize(("width", "height"), [(20, 5), (1, 1), (80, 12), (300, 100)])
def test_no_line_is_wider_than_the_terminal_and_no_page_higher(width: int, height: int) -> None:
    many = DOCUMENT | {"mcps": {f"remote-{number}": {"status": "healthy"} for number in range(200)}}
    for colour in (False, True):
        lines = page(many, width, height, colour)
        assert len(lines) <= height
        assert all(len(re.sub("\x1b\\[[0-9]+m", "", line)) <= width for line in lines)


def test_remotes_that_do_not_fit_are_counted_and_the_ill_ones_come_first() -> None:
    many = DOCUMENT | {
        "mcps": {f"a{number}": {"status": "healthy"} for number in range(50)} | {"z": {"status": "unhealthy"}}
    }
    lines = page(many, height=30)
    assert any(line.startswith("z ") for line in lines)
    assert any("more: a taller terminal shows them" in line for line in lines)


def test_a_page_can_be_made_of_nothing() -> None:
    assert page({})[0].startswith("MCP gateway  unknown")


def test_calls_a_minute_are_those_between_two_looks() -> None:
    before = {"mcps": {"a": {"calls": 10}, "restarted": {"calls": 50}}}
    now = {"mcps": {"a": {"calls": 13}, "restarted": {"calls": 2}, "new": {"calls": 5}, "asleep": {}}}
    assert screen.calls_per_minute(before, now, 2.0) == {"a": 90.0, "restarted": None, "new": None, "asleep": None}
    assert screen.calls_per_minute(None, now, 2.0)["a"] is None
