"""What is counted: five minutes in detail, series that stay bounded."""

import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import REGISTRY

from gateway.metrics import TOOLS, Recent


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


@pytest.mark.edge(18)
def test_three_hundred_tools_add_less_than_sixty_series() -> None:
    recent = Recent(Clock())
    before = series()
    for number in range(300):
        for outcome in ("ok", "tool_error", "failed"):
            recent.note("tools/call", "test-many", outcome, 0.5, f"test-many__{number}")
    added = series() - before
    tools = {one for one in added if one[0].startswith("mcp_tool_")}
    assert len(tools) == 3 * 13 + 13
    assert len(tools) < 60
    count = REGISTRY.get_sample_value("mcp_tool_calls_total", {"remote": "test-many", "tool": "other", "outcome": "ok"})
    assert count == 288
    TOOLS.forget("test-many")


@pytest.mark.edge(18)
def test_a_name_that_no_remote_has_answered_to_is_no_label() -> None:
    recent = Recent(Clock())
    recent.note("tools/call", "test-odd", "failed", 0.5, "whatever a client made up")
    assert {labels for name, labels in series() if name == "mcp_tool_calls_total" and "test-odd" in labels} == {
        ("test-odd", "other", "failed")
    }
    TOOLS.forget("test-odd")
    assert not [labels for _, labels in series() if "test-odd" in labels and "other" in labels]


def series() -> set[tuple[str, tuple[str, ...]]]:
    return {(sample.name, tuple(sample.labels.values())) for family in REGISTRY.collect() for sample in family.samples}


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.edge(18)
@pytest.mark.usefixtures("hasty_threads")
def test_health_asks_from_another_thread_while_requests_end() -> None:
    recent = Recent(Clock())
    for _ in range(5_000):
        recent.note("ping", "", "ok", 0.1)
    meanwhile(lambda: recent.note("ping", "", "ok", 0.1), recent.percentiles_ms, times=30)


def meanwhile(work: Callable[[], object], ask: Callable[[], object], *, times: int) -> None:
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            work()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(times):
            ask()
    finally:
        over.set()
        thread.join()
