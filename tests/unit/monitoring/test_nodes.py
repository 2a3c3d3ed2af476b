from typing import Any

from mcpserver.lib.limits import Limits
from monitoring import nodes, status


def worker(address: str = "http://10.0.0.1:3000", workers: int = 1, **said: Any) -> dict[str, Any]:
    return {
        "version": "0.1.0",
        "uptime_s": 60.0,
        "connections": {"active": 2, "max": 100, "per_key": [{"key": "main", "name": "ci", "active": 2}], "refused": 1},
        "in_flight": 1,
        "waiting": 0,
        "mcps": {"demo": {"status": "healthy", "calls": 5, "circuit": {"state": "closed"}}},
        "config": {"revision": 2, "sha256": "ab"},
        "errors": {"rate": 0.5},
        "latency": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
        "process": {"rss_mb": 80.0},
        "cluster": {"address": address, "host": "one", "of_workers": workers, "redis": "ok"},
        **said,
    }


def heard(*said: tuple[str, float, dict[str, Any]]) -> list[nodes.Node]:
    return nodes.elsewhere(said, "here", 4)


def test_what_adds_up_is_added_up_and_the_worst_word_counts_while_the_rest_stays_this_machines() -> None:
    ill = {"demo": {"status": "degraded", "calls": 7, "circuit": {"state": "open"}}}
    others = heard(("farr1", 1.0, worker(mcps=ill, uptime_s=999.0, process={"rss_mb": 400.0})))
    together = nodes.across(status.merged([worker()]), others)
    assert together is not None
    assert together["connections"]["active"] == 4
    assert together["connections"]["per_key"] == [{"key": "main", "name": "ci", "active": 4}]
    assert (together["in_flight"], together["errors"]["rate"]) == (2, 1.0)
    assert together["mcps"]["demo"] == {"status": "degraded", "calls": 12, "circuit": {"state": "open"}}
    assert (together["uptime_s"], together["process"]["rss_mb"], together["workers"]) == (60.0, 80.0, 1)


def test_a_machine_without_a_word_counts_for_nothing_and_is_named_with_the_time_since() -> None:
    others = heard(("farr1", 43.4, worker("http://10.0.0.7:3000")))
    here = status.merged([worker()])
    assert nodes.across(here, others) == here
    shown = nodes.documents(others, Limits())["farr"]
    assert (shown["status"], shown["reachable"], shown["age_s"]) == ("unreachable", False, 43.4)
    assert [(one.code, one.message) for one in nodes.warnings(others)] == [
        ("node_unreachable", "the machine farr (http://10.0.0.7:3000) was last heard of 43 s ago")
    ]


def test_a_machine_that_came_back_under_another_name_is_not_missed() -> None:
    again = heard(("newn1", 0.5, worker()), ("oldn1", 300.0, worker()), ("farr1", 20.0, worker("http://10.0.0.9:3000")))
    assert [one.name for one in again] == ["newn", "farr"]


def test_a_worker_that_was_replaced_is_forgotten_and_one_that_hangs_is_counted() -> None:
    replaced = heard(("farr2", 1.0, worker()), ("farr1", 30.0, worker()))
    assert [(len(one.workers), one.silent) for one in replaced] == [(1, 0)]
    hung = heard(("farr2", 1.0, worker(workers=2)), ("farr1", 30.0, worker(workers=2)))
    assert [(len(one.workers), one.silent) for one in hung] == [(1, 1)]
    assert [one.code for one in nodes.warnings(hung)] == ["silent_worker"]


def test_this_machine_stands_first_whatever_it_is_like() -> None:
    stopped = nodes.Node("here", 0.0, (), is_local=True)
    shown = nodes.documents([*heard(("farr1", 1.0, worker())), stopped], Limits())
    assert [(name, one["status"], one["local"]) for name, one in shown.items()] == [
        ("here", "stopped", True),
        ("farr", "healthy", False),
    ]
    assert nodes.across(None, heard(("farr1", 1.0, worker()))) is None, "others do not speak for one that is down"
