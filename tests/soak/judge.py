"""The rule by which a soak is judged, and its words. Pure: samples in, figures and verdicts out.

Flat means: between the first and the last quarter of the time after a warm-up, the median of the worker's memory grew by no more
than 5 % or 8 MB, and that of its descriptors, those of clients apart, by no more than 10; and when everybody has left, nothing is
held for them. Besides, no call failed, no stream was lost, and everyone who vanished was noticed in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

WARM_UP_SHARE = 0.2
GROWTH_MB, GROWTH_SHARE = 8.0, 0.05
DESCRIPTORS = 10


@dataclass(frozen=True)
class Sample:
    """The worker at one moment. `sockets` are clients', and are descriptors too; `held_kb`: what waits for them."""

    at_s: float
    rss_mb: float
    descriptors: int
    sockets: int = 0
    streams: int = 0
    in_flight: int = 0
    held_kb: float = 0.0

    @property
    def own_descriptors(self) -> int:
        return self.descriptors - self.sockets


@dataclass(frozen=True)
class Seen:
    """All that a soak saw. `noticed_s`: the longest that those who vanished in one way were held; `allowed_s`: and may be."""

    before: Sample
    during: Sequence[Sample]
    after: Sample
    calls: int
    latencies_ms: Mapping[str, float]
    failures: Sequence[str]
    streams_lost: int
    vanished: Mapping[str, int]
    noticed_s: Mapping[str, float]
    allowed_s: Mapping[str, float]


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    unit: str = ""
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        return self.at_most is None or self.value <= self.at_most


def figures(seen: Seen) -> list[Figure]:
    """What is measured, with its limit where it has one."""
    first, last = quarters(seen.during)
    memory = median(sample.rss_mb for sample in first)
    most = max(sample.rss_mb for sample in seen.during)
    return [
        Figure("calls answered", seen.calls),
        Figure("calls failed", len(seen.failures), at_most=0),
        *(Figure(f"time of a call, {name}", value, "ms") for name, value in seen.latencies_ms.items()),
        Figure("streams open, median", median(sample.streams for sample in last)),
        Figure("calls in flight, median", median(sample.in_flight for sample in last)),
        Figure("streams lost", seen.streams_lost, at_most=0),
        *(Figure(f"streams vanished, {how}", count) for how, count in seen.vanished.items()),
        *(Figure(f"held after {how}", held, "s", seen.allowed_s[how]) for how, held in seen.noticed_s.items()),
        Figure("memory before the load", seen.before.rss_mb, "MB"),
        Figure("memory, first quarter", memory, "MB"),
        Figure("memory, most", most, "MB"),
        Figure(
            "memory, growth to the last quarter",
            median(sample.rss_mb for sample in last) - memory,
            "MB",
            max(GROWTH_MB, GROWTH_SHARE * memory),
        ),
        Figure("memory after the load", seen.after.rss_mb, "MB"),
        Figure("descriptors but for clients, first quarter", median(sample.own_descriptors for sample in first)),
        Figure(
            "descriptors, growth to the last quarter",
            median(sample.own_descriptors for sample in last) - median(sample.own_descriptors for sample in first),
            at_most=DESCRIPTORS,
        ),
        Figure("descriptors, left over", seen.after.descriptors - seen.before.descriptors, at_most=DESCRIPTORS),
        Figure("streams and calls left over", seen.after.streams + seen.after.in_flight, at_most=0),
    ]


def quarters(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The first and the last of the time after the warm-up."""
    steady = samples[int(WARM_UP_SHARE * len(samples)) :]
    size = max(1, len(steady) // 4)
    return steady[:size], steady[-size:]


def text(seen: Seen) -> str:
    line = "{:<44}{:>12} {:<4}{:>12}  {}"
    rows = [
        line.format(
            figure.name,
            f"{figure.value:,.2f}".removesuffix(".00"),
            figure.unit,
            "" if figure.at_most is None else f"<= {figure.at_most:g}",
            "" if figure.at_most is None else ("ok" if figure.holds else "OVER"),
        ).rstrip()
        for figure in figures(seen)
    ]
    return "\n".join([*rows, *(f"  failed: {words}" for words in seen.failures[:10])])


def document(seen: Seen) -> dict[str, Any]:
    found = figures(seen)
    return {
        "ok": all(figure.holds for figure in found),
        "figures": [asdict(figure) | {"holds": figure.holds} for figure in found],
        "failures": list(seen.failures[:100]),
        "samples": [asdict(sample) for sample in seen.during],
    }
