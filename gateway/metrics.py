"""What is counted on the MCP path, in series that stay bounded: labels are remotes, methods and outcomes, never raw names.

Of each remote the twelve tools that are called first have series of their own, and one more is for all others. Also the last
five minutes in detail, for health: error rate and latency percentiles. What merely is (memory, the word of a remote) is not
counted here: `monitoring.gauges` reads it off when somebody asks.
"""

import contextlib
import math
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import prometheus_client
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from mcpserver.lib import log

# One series more for each that there is, to say what a counter that starts at zero says anyway.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

REQUESTS = Counter("mcp_requests_total", "MCP requests by method and outcome", ["method", "outcome"])
CALLS = Histogram(
    "mcp_call_seconds",
    "Time of requests that went to a remote",
    ["remote", "outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
STREAMS = Gauge("mcp_open_streams", "Open event streams")
RELAYED = Counter("mcp_relayed_total", "Requests sent on to the worker that they belong to", ["to"])
REFUSED = Counter("mcp_refused_total", "Requests refused before they were served", ["reason"])
RATE_UNSHARED = Counter(
    "mcp_rate_unshared_total", "Requests of keys with a rate that their worker counted alone: Redis was away"
)
TOOL_CHANGES = Counter("mcp_tool_changes_total", "Tools that are not as they were approved", ["remote", "change"])
TOOLS_WITHHELD = Gauge("mcp_tools_withheld", "Tools held back until approved", ["remote"])
HIDDEN_CHARACTERS = Gauge("mcp_hidden_characters", "Taken out of a remote's descriptions", ["remote"])

RETRIES = Counter("mcp_retries_total", "Further attempts of calls that had failed", ["remote"])
CIRCUIT = Gauge("mcp_circuit_state", "Circuit breaker: 0 closed, 1 half open, 2 open", ["remote"])
CIRCUIT_OPENED = Counter("mcp_circuit_opened_total", "Times that a circuit breaker opened", ["remote"])
CIRCUIT_REFUSED = Counter("mcp_circuit_refused_total", "Calls refused by an open circuit breaker", ["remote"])
CIRCUIT_UNSHARED = Counter("mcp_circuit_unshared_total", "Changes of circuits that the database did not take at once")
BUSY = Counter("mcp_busy_total", "Calls refused because a remote had too many open", ["remote"])
QUEUED = Histogram(
    "mcp_queue_seconds",
    "Time that calls waited for their turn at a remote; those that need not wait are not in it",
    ["remote"],
    buckets=(0.01, 0.1, 0.5, 1, 5, 15, 60),
)
CUT = Counter("mcp_cut_answers_total", "Answers that were too large: cut, or refused where nothing could be", ["how"])
UNRECORDED = Counter("mcp_calls_unrecorded_total", "Calls that were served and are not in their record")

SPANS = Counter("mcp_spans_total", "Spans of traces by what became of them: sent, failed, dropped", ["outcome"])

_STATES = {"closed": 0, "half_open": 1, "open": 2}
_OF_A_REMOTE = (CIRCUIT, CIRCUIT_OPENED, CIRCUIT_REFUSED, RETRIES, BUSY, QUEUED, TOOLS_WITHHELD, HIDDEN_CHARACTERS)

_WINDOW_S = 300.0
_KEPT = 20_000

TOOLS_PER_REMOTE = 12
OTHER_TOOLS = "other"
_ANSWERED = frozenset({"ok", "tool_error"})


def show_circuit(remote: str, state: str) -> None:
    CIRCUIT.labels(remote).set(_STATES[state])


def forget_circuit(remote: str) -> None:
    """The remote is configured no longer: its series end."""
    for family in _OF_A_REMOTE:
        with contextlib.suppress(KeyError):
            family.remove(remote)
    TOOLS.forget(remote)


class Tools(Collector):
    """Calls of tools and the time they took, by remote, tool and outcome.

    On the path of every call: two additions. They become series when somebody asks for them.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str, str], list[float]] = {}
        self._named: dict[str, set[str]] = {}

    def count(self, remote: str, tool: str, outcome: str, seconds: float) -> None:
        cell = self._cells.get((remote, tool, outcome)) or self._cell(remote, tool, outcome)
        cell[0] += 1
        cell[1] += seconds

    def calls(self, remote: str) -> int:
        return int(sum(cell[0] for key, cell in list(self._cells.items()) if key[0] == remote))

    def forget(self, remote: str) -> None:
        self._named.pop(remote, None)
        for key in [key for key in list(self._cells) if key[0] == remote]:
            del self._cells[key]

    def collect(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "mcp_tool_calls", "Calls of tools; of each remote twelve by name", labels=["remote", "tool", "outcome"]
        )
        times = CounterMetricFamily("mcp_tool_seconds", "Time that calls of tools took", labels=["remote", "tool"])
        spent: dict[tuple[str, str], float] = {}
        for (remote, tool, outcome), (count, seconds) in list(self._cells.items()):
            calls.add_metric([remote, tool, outcome], count)
            spent[remote, tool] = spent.get((remote, tool), 0.0) + seconds
        for labels, seconds in spent.items():
            times.add_metric(labels, seconds)
        yield calls
        yield times

    def _cell(self, remote: str, tool: str, outcome: str) -> list[float]:
        named = self._named.setdefault(remote, set())
        if tool not in named:
            # Names become labels once their remote has answered to them: until then they may be anything.
            if len(named) < TOOLS_PER_REMOTE and outcome in _ANSWERED:
                named.add(tool)
            else:
                tool = OTHER_TOOLS
        return self._cells.setdefault((remote, tool, outcome), [0.0, 0.0])


class _LostLines(Collector):
    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("mcp_log_lines_dropped", "Log lines that were lost", value=log.state().dropped)


TOOLS = Tools()
REGISTRY.register(TOOLS)
REGISTRY.register(_LostLines())


def families() -> list[list[Any]]:
    """Everything that this process counts, as plain values: name, kind, words, and (name, labels, value) of each sample."""
    return [
        [family.name, family.type, family.documentation, [[one.name, one.labels, one.value] for one in family.samples]]
        for family in REGISTRY.collect()
    ]


class Recent:
    """Requests of the last five minutes, at most 20,000 of them.

    In arrays that never grow: an object for each would pin the pages of what came and went beside it, megabytes in minutes.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ended_at = array("d", [-math.inf]) * _KEPT
        self._seconds = array("d", [0.0]) * _KEPT  # below zero: it failed
        self._next = 0
        self._requests: dict[tuple[str, str], Counter] = {}
        self._calls: dict[tuple[str, str], Histogram] = {}

    def note(self, method: str, remote: str, outcome: str, seconds: float, name: str = "") -> None:
        """Count one finished request; `remote` is empty when none was asked, and `name` what of it was."""
        child = self._requests.get((method, outcome))
        if child is None:
            child = self._requests[method, outcome] = REQUESTS.labels(method, outcome)
        child.inc()
        if remote:
            timer = self._calls.get((remote, outcome))
            if timer is None:
                timer = self._calls[remote, outcome] = CALLS.labels(remote, outcome)
            timer.observe(seconds)
            if method == "tools/call":
                TOOLS.count(remote, name, outcome, seconds)
        at = self._next
        self._ended_at[at] = self._monotonic()
        self._seconds[at] = -max(seconds, 1e-9) if outcome == "failed" else seconds
        self._next = (at + 1) % _KEPT

    def errors_per_minute(self) -> float:
        return round(sum(seconds < 0 for seconds in self._recent()) / (_WINDOW_S / 60), 2)

    def percentiles_ms(self) -> dict[str, float]:
        times = sorted(abs(seconds) for seconds in self._recent())
        if not times:
            return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
        return {f"p{q}": round(times[min(len(times) - 1, len(times) * q // 100)] * 1000, 2) for q in (50, 95, 99)}

    def _recent(self) -> list[float]:
        """Asked from other threads too: what changes meanwhile is of one moment or the other."""
        since = self._monotonic() - _WINDOW_S
        return [seconds for at, seconds in zip(self._ended_at, self._seconds, strict=True) if at >= since]
