"""What is counted: five minutes in detail, series that stay bounded."""

import pytest
from prometheus_client import REGISTRY

from gateway.metrics import Recent


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_nothing_yet() -> None:
    recent = Recent(Clock())
    assert recent.errors_per_minute() == 0
    assert recent.percentiles_ms() == {"p50": 0.0, "p95": 0.0, "p99": 0.0}


def test_only_failures_of_remotes_are_errors() -> None:
    recent = Recent(Clock())
    for outcome in ("ok", "tool_error", "refused", "cancelled", "failed"):
        recent.note("tools/call", "test-metrics", outcome, 0.01)
    assert recent.errors_per_minute() == 0.2


@pytest.mark.edge(18)
def test_percentiles_of_known_times() -> None:
    recent = Recent(Clock())
    for number in range(100):
        recent.note("ping", "", "ok", number / 1000)
    assert recent.percentiles_ms() == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_one_request_is_every_percentile() -> None:
    recent = Recent(Clock())
    recent.note("ping", "", "ok", 0.5)
    assert set(recent.percentiles_ms().values()) == {500.0}


def test_what_is_older_than_five_minutes_is_forgotten() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.note("ping", "", "failed", 9)
    clock.now += 301
    recent.note("ping", "", "ok", 0.001)
    assert recent.errors_per_minute() == 0
    assert recent.percentiles_ms()["p99"] == 1.0


@pytest.mark.edge(18)
def test_series_are_bounded_by_methods_remotes_and_outcomes() -> None:
    recent = Recent(Clock())
    for _ in range(50):
        recent.note("tools/call", "test-metrics-2", "ok", 0.01)
    labels = {"remote": "test-metrics-2", "outcome": "ok"}
    assert REGISTRY.get_sample_value("mcp_call_seconds_count", labels) == 50
