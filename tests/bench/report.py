"""A run in words and as JSON: medians with the smallest and largest round, and the budgets beside what they limit.

A budget is printed with ok, over or under and never asserted: figures are of one machine at one moment, ratios travel better.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isnan, nan
from statistics import median
from typing import Any

from tests.bench.load import Sample
from tests.bench.scenarios import DIRECT, FLOOR, MCP_PROXY, MODERN, NGINX, SCENARIOS, SESSION, SSE, STOCK, Lane, Results

_COLUMNS = "{:<26}{:>8}{:>10}{:>19}{:>9}{:>9}{:>9}{:>9}{:>21}{:>9}"

_TITLES = ("clients", "calls/s", "", "x direct", "p50 ms", "p99 ms", "p999 ms", "CPU us/call", "x floor")


@dataclass(frozen=True)
class Figure:
    """One number with its budget; `at_least` turns the comparison round. `value` is not a number when it was not measured."""

    name: str
    unit: str
    value: float
    budget: float | None = None
    aim: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        if isnan(self.value):
            return "not measured"
        if self.budget is None:
            return ""
        if self.at_least:
            return "ok" if self.value >= self.budget else "under"
        return "ok" if self.value <= self.budget else "over"


def figures(results: Results) -> list[Figure]:
    """What has a budget, and what explains it; calls first, then memory and starting."""
    r = results
    cpu = _median(sample.cpu_us for sample in _rounds(r, "call", MODERN, 16))
    over_floor = _paired(r, "call", 16, MODERN, FLOOR, "cpu_us")
    over_stock = _paired(r, "call", 16, FLOOR, STOCK, "cpu_us")
    p50, p99, p999 = (_of(r, "call", MODERN, 16, name) for name in ("p50_ms", "p99_ms", "p999_ms"))
    legacy = _paired(r, "call", 16, SSE, SESSION, "rate")
    proxied = _paired(r, "call", 16, SESSION, MCP_PROXY, "rate")
    plain = _paired(r, "call", 64, MODERN, NGINX, "rate")
    slow = _paired(r, "slow", 256, MODERN, DIRECT, "rate")
    connects = _of(r, "connect", MODERN, 16, "rate")
    return [
        Figure("CPU per tools/call at 16 clients", "us", cpu, 320, 250),
        Figure("the same, against the floor", "x", over_floor, 2.6, 2.0),
        Figure("the floor (our server), against stock Daphne", "x", over_stock, 1.05, 0.9),
        Figure("p99 / p50 at 16 clients", "x", p99 / p50, 3, 2),
        Figure("p999 at 16 clients", "ms", p999, 20, 8),
        Figure("/sse throughput against /mcp sessions, 16", "x", legacy, 0.65, 0.8, at_least=True),
        Figure("throughput against direct, 64 clients", "x", _paired(r, "call", 64, MODERN, DIRECT, "rate")),
        Figure("against mcp-proxy, 16 clients", "x", proxied, 3, 5, at_least=True),
        Figure("against nginx as a plain proxy, 64 clients", "x", plain, 0.045, 0.075, at_least=True),
        Figure("256 callers of a 50 ms tool, against direct", "x", slow, 0.6, 0.9, at_least=True),
        Figure("their p50", "ms", _of(r, "slow", MODERN, 256, "p50_ms"), 85, 58),
        Figure("CPU per answer of 1 MB", "ms", _of(r, "big", MODERN, 4, "cpu_us") / 1000, 4, 2.5),
        Figure("CPU per tools/list of 1,000 tools", "ms", _of(r, "list", MODERN, 4, "cpu_us") / 1000, 1.2, 0.8),
        Figure("lists asked of remotes for it while fresh", "", _fact(r, "upstream_lists"), 0),
        Figure("new connections with a call each", "/s", connects, 2000, 4000, at_least=True),
        Figure("memory (PSS) of the worker after start", "MB", _fact(r, "start_pss_mb"), 100, 75),
        Figure("memory of one idle stream", "KB", _fact(r, "stream_kb"), 25, 18),
        Figure("growth by as many streams again", "KB", _fact(r, "stream_again_kb"), 2),
        Figure("cold start to the first correct call", "s", _fact(r, "cold_start_s"), 2, 1),
        Figure("memory (PSS) at the end", "MB", _fact(r, "end_pss_mb")),
        Figure("calls made until then", "", _fact(r, "gateway_calls")),
        Figure("log written by then", "KB", _fact(r, "logged_kb")),
        Figure("memory (PSS) of the floor after start", "MB", _fact(r, "floor_pss_mb")),
    ]


def text(results: Results, machine: dict[str, Any]) -> str:
    """The report for people."""
    return "\n".join([_machine_line(machine), "", *_tables(results), *_budgets(results), *_problems(results)])


def document(results: Results, machine: dict[str, Any]) -> dict[str, Any]:
    """The report for programs; a figure that was not measured is null."""
    rounds = [
        {"scenario": scenario, **asdict(lane), "clients": clients, "rounds": [_plain(sample) for sample in samples]}
        for (scenario, lane, clients), samples in results.rounds.items()
    ]
    judged = [_plain(figure) | {"verdict": figure.verdict} for figure in figures(results)]
    told = {"machine": machine, "figures": judged, "rounds": rounds, "problems": results.problems}
    return {"ok": not results.problems, **told}


def _machine_line(machine: dict[str, Any]) -> str:
    apart = "measured processes on one core, load and upstream on another"
    placed = "everything shares one core" if machine["shared"] else apart
    return f"{placed}; Python {machine['python']}; median (smallest-largest) of {machine['rounds']} rounds"


def _tables(results: Results) -> Iterable[str]:
    for scenario in SCENARIOS:
        rows = [(lane, clients) for clients in scenario.clients for lane in scenario.lanes]
        rows = [(lane, clients) for lane, clients in rows if (scenario.name, lane, clients) in results.rounds]
        if not rows:
            continue
        yield scenario.title
        yield _COLUMNS.format("", *_TITLES)
        for lane, clients in rows:
            yield _row(results, scenario.name, lane, clients)
        yield ""


def _row(results: Results, scenario: str, lane: Lane, clients: int) -> str:
    samples = _rounds(results, scenario, lane, clients)
    rates = [sample.rate for sample in samples]
    cpus = [sample.cpu_us for sample in samples if not isnan(sample.cpu_us)]
    same_dialect = Lane("direct", lane.dialect)
    return _COLUMNS.format(
        lane.label,
        clients,
        f"{median(rates):,.0f}",
        f"({min(rates):,.0f}-{max(rates):,.0f})",
        _short(_paired(results, scenario, clients, lane, same_dialect, "rate"), 3),
        *(_short(_of(results, scenario, lane, clients, name), 2) for name in ("p50_ms", "p99_ms", "p999_ms")),
        # The process behind the direct connection is the upstream, which is not what is measured here.
        f"{median(cpus):,.0f} ({min(cpus):,.0f}-{max(cpus):,.0f})" if cpus and lane.candidate != "direct" else "",
        _short(_paired(results, scenario, clients, lane, FLOOR, "cpu_us"), 2) if lane.candidate != "direct" else "",
    )


def _budgets(results: Results) -> Iterable[str]:
    line = "{:<46}{:>12} {:<4}{:>10}{:>10}  {}"
    yield line.format("budgets", "", "", "budget", "aim", "")
    for figure in figures(results):
        sign = ">=" if figure.at_least else "<="
        limit, aim = (f"{sign} {bound:g}" if bound is not None else "" for bound in (figure.budget, figure.aim))
        yield line.format(figure.name, _short(figure.value, 2), figure.unit, limit, aim, figure.verdict).rstrip()


def _problems(results: Results) -> Iterable[str]:
    if results.problems:
        yield ""
        yield "WRONG ANSWERS: the figures above are not to be trusted"
        yield from (f"  {problem}" for problem in results.problems[:20])


def _rounds(results: Results, scenario: str, lane: Lane, clients: int) -> list[Sample]:
    return results.rounds.get((scenario, lane, clients), [])


def _of(results: Results, scenario: str, lane: Lane, clients: int, name: str) -> float:
    return _median(getattr(sample, name) for sample in _rounds(results, scenario, lane, clients))


def _paired(results: Results, scenario: str, clients: int, lane: Lane, other: Lane, name: str) -> float:
    """The median of the ratios of rounds that ran next to each other: what the machine did meanwhile hits both."""
    pairs = zip(_rounds(results, scenario, lane, clients), _rounds(results, scenario, other, clients), strict=False)
    return _median(getattr(a, name) / getattr(b, name) for a, b in pairs if a.calls and b.calls and getattr(b, name))


def _fact(results: Results, name: str) -> float:
    return _median(results.facts.get(name, []))


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return median(known) if known else nan


def _short(value: float, digits: int) -> str:
    if isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.{digits}f}"


def _plain(value: Sample | Figure) -> dict[str, Any]:
    """Its fields; JSON has no word for what is not a number but null."""
    fields = asdict(value).items()
    return {name: None if isinstance(content, float) and isnan(content) else content for name, content in fields}
