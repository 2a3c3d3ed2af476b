"""What several workers count, as one."""

import json
from typing import Any

from prometheus_client.metrics_core import Metric

from monitoring import exposition


def samples(metrics: list[Metric]) -> dict[tuple[str, ...], float]:
    return {(one.name, *one.labels.values()): one.value for metric in metrics for one in metric.samples}


def worker(calls: float, *, circuit: float = 0, streams: float = 0) -> list[list[Any]]:
    return [
        ["mcp_calls", "counter", "Calls", [["mcp_calls_total", {"remote": "a"}, calls]]],
        [
            "mcp_seconds",
            "histogram",
            "Time",
            [["mcp_seconds_bucket", {"le": "1.0"}, calls], ["mcp_seconds_count", {}, calls]],
        ],
        ["mcp_circuit_state", "gauge", "State", [["mcp_circuit_state", {"remote": "a"}, circuit]]],
        ["mcp_open_streams", "gauge", "Streams", [["mcp_open_streams", {}, streams]]],
    ]


def test_counters_histograms_and_streams_are_summed_and_of_other_gauges_the_highest_stands() -> None:
    found = samples(exposition.merged([worker(3, circuit=2, streams=1), worker(4, streams=5)], {}))
    assert found == {
        ("mcp_calls_total", "a"): 7,
        ("mcp_seconds_bucket", "1.0"): 7,
        ("mcp_seconds_count",): 7,
        ("mcp_circuit_state", "a"): 2,
        ("mcp_open_streams",): 6,
    }


def test_what_others_had_counted_is_added_series_that_only_they_had_too() -> None:
    elsewhere = {
        json.dumps(["mcp_calls", "mcp_calls_total", [["remote", "a"]]]): 10.0,
        json.dumps(["mcp_calls", "mcp_calls_total", [["remote", "gone"]]]): 5.0,
        json.dumps(["of_another_version", "of_another_version_total", []]): 1.0,
    }
    found = samples(exposition.merged([worker(3)], elsewhere))
    assert found["mcp_calls_total", "a"] == 13
    assert found["mcp_calls_total", "gone"] == 5
    assert ("of_another_version_total",) not in found


def test_what_is_told_to_the_supervisor_is_what_only_grows() -> None:
    assert set(exposition.counts(worker(3))) == {
        '["mcp_calls", "mcp_calls_total", [["remote", "a"]]]',
        '["mcp_seconds", "mcp_seconds_bucket", [["le", "1.0"]]]',
        '["mcp_seconds", "mcp_seconds_count", []]',
    }
