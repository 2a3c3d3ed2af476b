"""One page of a terminal out of one status document: what `mcpstatus --watch` and `-o table` show. Pure.

Words first, colour second: nothing is said by colour alone. No line is longer than the terminal is wide, and what does not fit
its height is counted. Texts that remotes and configurations brought along are made printable before they are cut.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcpserver.lib.log import printable

_GOOD, _DOUBTFUL, _BAD, _FAINT, _BOLD = "32", "33", "31", "2", "1"
_COLOUR_OF = {
    "healthy": _GOOD, "closed": _GOOD, "ok": _GOOD,
    "degraded": _DOUBTFUL, "draining": _DOUBTFUL, "half_open": _DOUBTFUL, "unknown": _DOUBTFUL, "late": _DOUBTFUL,
    "unhealthy": _BAD, "stopped": _BAD, "open": _BAD, "auth_expired": _BAD, "misconfigured": _BAD, "down": _BAD,
    "unreachable": _BAD, "disabled": _FAINT, "not_configured": _FAINT,
}  # fmt: skip
_BAR = 20
_KEYS_SHOWN = 5
_WARNINGS_SHOWN = 4
_COLUMNS = ("REMOTE", "STATE", "LATENCY", "BREAKER", "CALLS/MIN", "TOOLS", "LAST ERROR")
_WIDTHS = (24, 15, 9, 11, 11, 7)
_NODES_SHOWN = 8
_NODE_COLUMNS = ("MACHINE", "STATE", "WORKERS", "STREAMS", "IN FLIGHT", "MEMORY", "SPOKE")
_NODE_WIDTHS = (24, 15, 9, 11, 11, 9)

Text = tuple[str, str]
"""A piece of a line and its colour, or nothing."""


def frame(
    document: Mapping[str, Any], *, calls_per_minute: Mapping[str, float | None], width: int, height: int, colour: bool
) -> list[str]:
    """The page, at most `height` lines of at most `width` characters."""
    head = [*_head(document), [], *_gauges(document), [], *_nodes(document.get("nodes") or {})]
    remotes = _remotes(document.get("mcps") or {}, calls_per_minute)
    foot = [*_keys(document.get("connections") or {}), *_warnings(document.get("warnings") or ())]
    room = max(1, height - len(head) - len(foot))
    if len(remotes) > room:
        hidden = len(remotes) - room + 1
        remotes = [*remotes[: room - 1], [(f"… and {hidden} more: a taller terminal shows them", _FAINT)]]
    return [_line(pieces, width, colour) for pieces in [*head, *remotes, *foot][:height]]


def calls_per_minute(
    before: Mapping[str, Any] | None, now: Mapping[str, Any], passed_s: float
) -> dict[str, float | None]:
    """From two documents; None for what cannot be told, as after a worker's end."""
    rates: dict[str, float | None] = {}
    earlier = (before or {}).get("mcps") or {}
    for name, remote in (now.get("mcps") or {}).items():
        then, calls = (earlier.get(name) or {}).get("calls"), remote.get("calls")
        known = then is not None and calls is not None and calls >= then and passed_s > 0
        rates[name] = (calls - then) * 60 / passed_s if known else None
    return rates


def _head(document: Mapping[str, Any]) -> list[list[Text]]:
    server, config = document.get("server") or {}, document.get("config") or {}
    word = str(server.get("status", "unknown"))
    workers = len(server.get("workers") or ())
    facts = [f"version {server.get('version') or '–'}", f"up {_duration(server.get('uptime_s') or 0)}"]
    facts += [f"{workers} worker{'' if workers == 1 else 's'}", f"config revision {config.get('revision') or '–'}"]
    dependencies = document.get("dependencies") or {}
    named: list[Text] = [("dependencies  ", _FAINT)]
    for name, says in dependencies.items():
        named += [(f"{name} ", ""), (str(says), _COLOUR_OF.get(str(says), "")), ("   ", "")]
    return [[("MCP gateway  ", _BOLD), (word, _COLOUR_OF.get(word, "")), (f"   {'   '.join(facts)}", _FAINT)], named]


def _gauges(document: Mapping[str, Any]) -> list[list[Text]]:
    memory, disk = document.get("memory") or {}, document.get("disk") or {}
    connections, latency = document.get("connections") or {}, document.get("latency") or {}
    active, most = connections.get("active") or 0, connections.get("max") or 0
    errors = float((document.get("errors") or {}).get("rate") or 0)
    p99 = latency.get("p99") or 0
    stopped = "   writing has stopped" if disk.get("stopped_writes") else ""
    return [
        _bar("memory", memory.get("percent"), f"{memory.get('rss_mb', 0):.0f} of {memory.get('limit_mb', 0)} MB", 80),
        _bar("disk", disk.get("percent"), f"{(disk.get('free_mb') or 0) / 1024:.1f} GB free{stopped}", 90),
        _bar("streams", 100 * active / most if most else 0, f"{active} of {most}", 80),
        [
            ("calls       ", _FAINT),
            (f"{document.get('in_flight') or 0} in flight   p50 {_ms(latency.get('p50'))}   ", ""),
            (f"p99 {_ms(p99)}   ", _BAD if p99 > 5000 else ""),
            (f"{errors:g} errors/min", _BAD if errors > 10 else _DOUBTFUL if errors else ""),
        ],
    ]


def _bar(name: str, percent: float | None, words: str, alert: float) -> list[Text]:
    if percent is None:
        return [(f"{name:<12}", _FAINT), (words, "")]
    filled = min(_BAR, round(percent * _BAR / 100))
    colour = _BAD if percent > alert else _DOUBTFUL if percent > alert * 0.8 else _GOOD
    return [
        (f"{name:<12}", _FAINT),
        ("█" * filled, colour),
        ("░" * (_BAR - filled), _FAINT),
        (f" {percent:5.1f} %   {words}", ""),
    ]


def _remotes(remotes: Mapping[str, Mapping[str, Any]], rates: Mapping[str, float | None]) -> list[list[Text]]:
    rows = [[(_cells(_COLUMNS, _WIDTHS), _FAINT)]]
    for name, remote in sorted(remotes.items(), key=lambda item: (item[1].get("status") == "healthy", item[0])):
        word, breaker = str(remote.get("status")), str((remote.get("circuit") or {}).get("state") or "–")
        rate = rates.get(name)
        cells = (name, word, _ms(remote.get("latency_ms")), breaker, "–" if rate is None else f"{rate:.0f}")
        tools = "–" if remote.get("tools") is None else str(remote["tools"])
        missing = ", ".join(f"{one} is not set" for one in remote.get("missing_env") or ())
        why = missing or remote.get("last_error") or (remote.get("circuit") or {}).get("reason") or ""
        columns = [_cut(cell, wide) for cell, wide in zip((*cells, tools), _WIDTHS, strict=True)]
        colours = ("", _COLOUR_OF.get(word, ""), "", _COLOUR_OF.get(breaker, ""), "", "")
        rows.append([*zip(columns, colours, strict=True), (printable(str(why)), _FAINT)])
    return rows


def _nodes(nodes: Mapping[str, Mapping[str, Any]]) -> list[list[Text]]:
    """The machines, where there are several: one that is not heard of first."""
    if len(nodes) < 2:
        return []
    rows: list[list[Text]] = [[(_cells(_NODE_COLUMNS, _NODE_WIDTHS), _FAINT)]]
    in_order = sorted(nodes.items(), key=lambda item: (item[1].get("reachable", True), not item[1].get("local")))
    for name, node in in_order[:_NODES_SHOWN]:
        word, memory = str(node.get("status")), (node.get("process") or {}).get("rss_mb")
        streams = (node.get("connections") or {}).get("active")
        counted = (node.get("workers"), streams, node.get("in_flight"))
        cells = (
            str(node.get("host") or name),
            word,
            *map(_number, counted),
            "–" if memory is None else f"{memory:.0f} MB",
        )
        columns = [_cut(cell, wide) for cell, wide in zip(cells, _NODE_WIDTHS, strict=True)]
        spoke = (
            "here" if node.get("local") else f"{_duration(node.get('age_s') or 0)} ago   {node.get('address') or ''}"
        )
        colours = ("", _COLOUR_OF.get(word, ""), "", "", "", "")
        rows.append([*zip(columns, colours, strict=True), (printable(spoke), _FAINT)])
    hidden = len(nodes) - _NODES_SHOWN
    return [*rows, *([[(f"… and {hidden} more machines", _FAINT)]] if hidden > 0 else []), []]


def _keys(connections: Mapping[str, Any]) -> list[list[Text]]:
    held = list(connections.get("per_key") or ())
    if not held:
        return []
    shown = "   ".join(f"{one.get('name') or one.get('key')} {one.get('active')}" for one in held[:_KEYS_SHOWN])
    more = f"   and {len(held) - _KEYS_SHOWN} more keys" if len(held) > _KEYS_SHOWN else ""
    return [[], [("streams per key  ", _FAINT), (printable(shown) + more, "")]]


def _warnings(warnings: Sequence[Mapping[str, Any]]) -> list[list[Text]]:
    lines: list[list[Text]] = [[]] if warnings else []
    lines += [[("! ", _DOUBTFUL), (printable(str(one.get("message"))), "")] for one in warnings[:_WARNINGS_SHOWN]]
    hidden = len(warnings) - _WARNINGS_SHOWN
    return [*lines, [(f"  and {hidden} more: mcpstatus | jq .warnings", _FAINT)]] if hidden > 0 else lines


def _cells(words: Iterable[str], widths: Sequence[int]) -> str:
    *fixed, last = words
    return "".join(_cut(word, wide) for word, wide in zip(fixed, widths, strict=True)) + last


def _cut(text: str, width: int) -> str:
    text = printable(text)
    return f"{text:<{width}}" if len(text) < width else f"{text[: width - 2]}… "


def _line(pieces: Sequence[Text], width: int, colour: bool) -> str:
    line, left = "", width
    for text, shade in pieces:
        shown = text[:left]
        left -= len(shown)
        line += f"\x1b[{shade}m{shown}\x1b[0m" if colour and shade and shown.strip() else shown
    return line


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    for size, unit, rest in ((86400, "d", "h"), (3600, "h", "min"), (60, "min", "s")):
        if whole >= size:
            smaller = {"h": 3600, "min": 60, "s": 1}[rest]
            return f"{whole // size} {unit} {whole % size // smaller} {rest}"
    return f"{whole} s"
