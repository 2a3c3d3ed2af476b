"""What is counted on the MCP path, in series that stay bounded: labels are remotes, methods and outcomes, never raw names.

Also the last five minutes in detail, for health: error rate and latency percentiles.
"""

import contextlib
from collections import deque
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("mcp_requests_total", "MCP requests by method and outcome", ["method", "outcome"])
CALLS = Histogram(
    "mcp_call_seconds",
    "Time of requests that went to a remote",
    ["remote", "outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
STREAMS = Gauge("mcp_open_streams", "Open event streams", multiprocess_mode="livesum")
RELAYED = Counter("mcp_relayed_total", "Requests sent on to the worker that they belong to", ["to"])
REFUSED = Counter("mcp_refused_total", "Requests refused before they were served", ["reason"])
TOOL_CHANGES = Counter("mcp_tool_changes_total", "Tools that are not as they were approved", ["remote", "change"])
TOOLS_WITHHELD = Gauge("mcp_tools_withheld", "Tools held back until approved", ["remote"], multiprocess_mode="livemax")
HIDDEN_CHARACTERS = Gauge(
    "mcp_hidden_characters", "Taken out of a remote's descriptions", ["remote"], multiprocess_mode="livemax"
)

RETRIES = Counter("mcp_retries_total", "Further attempts of calls that had failed", ["remote"])
CIRCUIT = Gauge(
    "mcp_circuit_state", "Circuit breaker: 0 closed, 1 half open, 2 open", ["remote"], multiprocess_mode="livemax"
)
CIRCUIT_OPENED = Counter("mcp_circuit_opened_total", "Times that a circuit breaker opened", ["remote"])
CIRCUIT_REFUSED = Counter("mcp_circuit_refused_total", "Calls refused by an open circuit breaker", ["remote"])
CIRCUIT_UNSHARED = Counter("mcp_circuit_unshared_total", "Changes of circuits that the database did not take at once")
BUSY = Counter("mcp_busy_total", "Calls refused because a remote had too many open", ["remote"])

_STATES = {"closed": 0, "half_open": 1, "open": 2}
_OF_A_REMOTE = (CIRCUIT, CIRCUIT_OPENED, CIRCUIT_REFUSED, RETRIES, BUSY)

_WINDOW_S = 300.0
_KEPT = 20_000


def show_circuit(remote: str, state: str) -> None:
    CIRCUIT.labels(remote).set(_STATES[state])


def forget_circuit(remote: str) -> None:
    """The remote is configured no longer: its series end."""
    for family in _OF_A_REMOTE:
        with contextlib.suppress(KeyError):
            family.remove(remote)


class Recent:
    """Requests of the last five minutes, at most 20,000 of them."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: deque[tuple[float, float, bool]] = deque(maxlen=_KEPT)
        self._requests: dict[tuple[str, str], Counter] = {}
        self._calls: dict[tuple[str, str], Histogram] = {}

    def note(self, method: str, remote: str, outcome: str, seconds: float) -> None:
        """Count one finished request; `remote` is empty when none was asked."""
        child = self._requests.get((method, outcome))
        if child is None:
            child = self._requests[method, outcome] = REQUESTS.labels(method, outcome)
        child.inc()
        if remote:
            timer = self._calls.get((remote, outcome))
            if timer is None:
                timer = self._calls[remote, outcome] = CALLS.labels(remote, outcome)
            timer.observe(seconds)
        self._seen.append((self._monotonic(), seconds, outcome == "failed"))

    def errors_per_minute(self) -> float:
        recent = self._recent()
        return round(sum(1 for _, _, failed in recent if failed) / (_WINDOW_S / 60), 2)

    def percentiles_ms(self) -> dict[str, float]:
        times = sorted(seconds for _, seconds, _ in self._recent())
        if not times:
            return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
        return {f"p{q}": round(times[min(len(times) - 1, len(times) * q // 100)] * 1000, 2) for q in (50, 95, 99)}

    def _recent(self) -> list[tuple[float, float, bool]]:
        since = self._monotonic() - _WINDOW_S
        return [one for one in self._seen if one[0] >= since]
