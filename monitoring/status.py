"""The document of `mcpstatus`: what several workers, the database and the system say, put together as one.

Pure. Sums what adds up; of what does not (latency, a remote's word) the worst worker counts, since that is what a client
may meet. Keys are only ever added to this document: scripts read it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcpserver.lib.limits import Limits
from monitoring import health

Document = dict[str, Any]

# Worst first: what one worker has found out about a remote the others will find out too.
# A worker that was replaced for its memory is told of for so long.
_NEWS_S = 3600.0
_WORST_FIRST = ("auth_expired", "misconfigured", "degraded", "unhealthy", "unknown", "healthy", "disabled")
_REMOTE: Document = {
    "status": "unknown",
    "circuit": None,
    "transport": None,
    "era": None,
    "tools": None,
    "remembered": None,
    "calls": None,
    "latency_ms": None,
    "last_ok": None,
    "last_error": None,
    "missing_env": [],
}


@dataclass(frozen=True, slots=True)
class Gathered:
    """Everything that was heard. `workers`: those of this machine; `silent`: of those, whose socket is there but who did not
    answer. `live`: what all say, of other machines too; `nodes`: each machine; `elsewhere`: what is wrong with the others."""

    facts: health.Facts
    workers: Sequence[Mapping[str, Any]] = ()
    silent: Sequence[str] = ()
    live: Mapping[str, Any] | None = None
    nodes: Mapping[str, Document] = field(default_factory=dict)
    elsewhere: Sequence[health.Warning] = ()
    supervisor: Mapping[str, Any] | None = None
    remotes: Mapping[str, Mapping[str, Any]] | None = None
    beat_age_s: float | None = None


def merged(workers: Sequence[Mapping[str, Any]]) -> Document | None:
    """The answers of all workers as if one had given them; None when none has answered."""
    if not workers:
        return None
    first = workers[0]
    return {
        "pid": first.get("pid"),
        "version": first.get("version"),
        "started_at": min((str(one["started_at"]) for one in workers if one.get("started_at")), default=None),
        "uptime_s": max(float(one.get("uptime_s") or 0) for one in workers),
        # One that drains beside one that serves is a rolling restart: the gateway is there.
        "draining": all(one.get("draining") for one in workers),
        "authenticates": any(one.get("authenticates", True) for one in workers),
        "shedding": sorted({guard for one in workers for guard in one.get("shedding") or ()}),
        "connections": _connections(workers),
        "in_flight": sum(int(one.get("in_flight") or 0) for one in workers),
        "waiting": sum(int(one.get("waiting") or 0) for one in workers),
        "payloads": _payloads(workers),
        "mcps": _remotes([one.get("mcps") or {} for one in workers]),
        "config": dict(first.get("config") or {}),
        "warnings": list(dict.fromkeys(line for one in workers for line in one.get("warnings") or ())),
        "workers": len(workers),
        "limits": dict(first.get("limits") or {}),
        "process": _process(workers),
        "keys": _keys([one.get("keys") or {} for one in workers]),
        "log": _log([one.get("log") or {} for one in workers]),
        "calls": _calls([one.get("calls") or {} for one in workers]),
        "errors": {"rate": sum(float((one.get("errors") or {}).get("rate") or 0) for one in workers)},
        "latency": {name: _worst_latency(workers, name) for name in ("p50", "p95", "p99")},
    }


def document(gathered: Gathered) -> Document:
    """What `mcpstatus` prints, besides `ok` and `schema`."""
    facts = gathered.facts
    live = gathered.live or {}
    return {
        "server": _server(gathered, live),
        "connections": live.get("connections") or _no_connections(facts.limits),
        "in_flight": facts.in_flight,
        "waiting": live.get("waiting") or 0,
        "payloads": live.get("payloads") or _payloads(()),
        "mcps": described(live.get("mcps") or {}, gathered.remotes or {}),
        "memory": health.memory(facts),
        "cpu": health.cpu(facts),
        "fds": {"open": facts.process.open_files, "max": facts.limits.max_open_files},
        "disk": health.disk(facts),
        "errors": {"rate": round(facts.errors_per_minute, 2)},
        "latency": dict(facts.latency_ms),
        "calls": live.get("calls") or _calls(()),
        "worker": {"alive": facts.dependencies.get("worker") == "ok", "last_beat_s": _rounded(gathered.beat_age_s)},
        "dependencies": _dependencies(facts),
        "clock": {"synced": facts.clock_synchronised, "skew_s": None},
        "config": _config(facts.config, live),
        "warnings": [{"code": one.code, "message": one.message} for one in _warnings(gathered, live)],
        "limits": _limits(facts.limits),
        "nodes": dict(gathered.nodes),
    }


def word(gathered: Gathered) -> str:
    """The gateway's word, or `stopped` when nothing is there to have one. A supervisor alone is about to start its workers."""
    if gathered.workers:
        return health.judge(gathered.facts)
    return "unhealthy" if gathered.silent or gathered.supervisor is not None else "stopped"


def described(live: Mapping[str, Mapping[str, Any]], stored: Mapping[str, Mapping[str, Any]]) -> Document:
    """Each remote: what probes wrote down, under what the workers know better. A remote that went is not listed."""
    names = list(live) or list(stored)
    return {name: _described(live.get(name, {}), stored.get(name, {})) for name in names}


def _described(live: Mapping[str, Any], stored: Mapping[str, Any]) -> Document:
    row = {name: stored[name] for name in _REMOTE.keys() & stored.keys() if stored[name] not in (None, "")}
    if stored.get("last_ok_at") is not None:
        row["last_ok"] = stored["last_ok_at"]
    if stored.get("error"):
        row["last_error"] = stored["error"]
    known = {**_REMOTE, **row, **{name: value for name, value in live.items() if value is not None}}
    # Probes write theirs down; what a worker knows is how long its first contact took, a program's start included.
    return known | {"latency_ms": row.get("latency_ms", known["latency_ms"])}


def _server(gathered: Gathered, live: Mapping[str, Any]) -> Document:
    return {
        "status": word(gathered),
        "version": live.get("version"),
        "pid": (gathered.supervisor or {}).get("pid") or live.get("pid"),
        "uptime_s": round(float(live.get("uptime_s") or 0), 1),
        "started_at": live.get("started_at"),
        "draining": bool(live.get("draining")),
        "workers": [{"pid": one.get("pid"), "draining": bool(one.get("draining"))} for one in gathered.workers],
        "silent_workers": list(gathered.silent),
        "supervised": gathered.supervisor is not None,
        "children": dict((gathered.supervisor or {}).get("children") or {}),
    }


def _connections(workers: Sequence[Mapping[str, Any]]) -> Document:
    said = [one.get("connections") or {} for one in workers]
    per_key: Counter[str] = Counter()
    names: dict[str, Any] = {}
    for one in said:
        for row in one.get("per_key") or ():
            per_key[str(row.get("key"))] += int(row.get("active") or 0)
            names[str(row.get("key"))] = row.get("name")
    return {
        "active": sum(int(one.get("active") or 0) for one in said),
        "max": max((one.get("max") or 0 for one in said), default=0),
        "per_key": [{"key": key, "name": names[key], "active": active} for key, active in per_key.most_common()],
        "refused": sum(int(one.get("refused") or 0) for one in said),
        "sockets": sum(int(one.get("sockets") or 0) for one in said),
        "memory_bytes": sum(int(one.get("memory_bytes") or 0) for one in said),
    }


def _no_connections(limits: Limits) -> Document:
    return {
        "active": 0,
        "max": limits.max_total_connections,
        "per_key": [],
        "refused": 0,
        "sockets": 0,
        "memory_bytes": 0,
    }


def _remotes(said: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Mapping[str, Any]]:
    """Each remote as the worker sees it that fares worst with it; its process as the one worker knows it that runs it."""
    worst: dict[str, Mapping[str, Any]] = {}
    processes: dict[str, Any] = {}
    calls: Counter[str] = Counter()
    for remotes in said:
        for name, facts in remotes.items():
            if name not in worst or _badness(facts) > _badness(worst[name]):
                worst[name] = facts
            if facts.get("process"):
                processes[name] = facts["process"]
            calls[name] += int(facts.get("calls") or 0)
    merged = {name: {**facts, "calls": calls[name]} if "calls" in facts else facts for name, facts in worst.items()}
    return {
        name: {**facts, "process": processes[name]} if name in processes else facts for name, facts in merged.items()
    }


def _badness(facts: Mapping[str, Any]) -> int:
    status = facts.get("status")
    return len(_WORST_FIRST) - _WORST_FIRST.index(status) if status in _WORST_FIRST else 0


def _payloads(workers: Sequence[Mapping[str, Any]]) -> Document:
    """The memory of large answers: what is held, what is kept for later, of how much; how many wait for it, and had to."""
    names = ("bytes", "kept_bytes", "max_bytes", "waiting", "waited")
    return {name: sum(int((one.get("payloads") or {}).get(name) or 0) for one in workers) for name in names}


def _process(workers: Sequence[Mapping[str, Any]]) -> Document:
    """The hungriest in each respect: limits are per worker."""
    said = [one.get("process") or {} for one in workers]
    return {
        name: max((one.get(name) or 0 for one in said), default=0) for name in ("rss_mb", "cpu_percent", "open_files")
    }


def _keys(said: Sequence[Mapping[str, Any]]) -> Document:
    most = {name: max((int(one.get(name) or 0) for one in said), default=0) for name in ("held", "remembered")}
    dropped = sum(int(one.get("uses_dropped") or 0) for one in said)
    return {**most, "stale": any(one.get("stale") for one in said), "uses_dropped": dropped}


def _log(said: Sequence[Mapping[str, Any]]) -> Document:
    return {
        "dropped": sum(int(one.get("dropped") or 0) for one in said),
        "stopped": any(one.get("stopped") for one in said),
    }


def _calls(said: Sequence[Mapping[str, Any]]) -> Document:
    """The record of calls: those that wait to be written, those that were lost, and why none can be written, if so."""
    return {
        "audit": next((one["mode"] for one in said if one.get("mode")), None),
        "waiting": sum(int(one.get("waiting") or 0) for one in said),
        "dropped": sum(int(one.get("dropped") or 0) for one in said),
        "stopped": next((one["stopped"] for one in said if one.get("stopped")), None),
    }


def _worst_latency(workers: Sequence[Mapping[str, Any]], name: str) -> float | None:
    measured = [(one.get("latency") or {}).get(name) for one in workers]
    return max((value for value in measured if value is not None), default=None)


def _dependencies(facts: health.Facts) -> Document:
    words = dict(facts.dependencies)
    return {"db": words.pop("database", "unknown"), "redis": words.pop("redis", "unknown"), **words}


def _config(config: health.Config, live: Mapping[str, Any]) -> Document:
    """`loaded_at`: since when it is what is served; None while nothing serves."""
    pending = [dict(one) for one in config.pending] or None
    served = {"version": config.revision, "revision": config.revision, "sha256": config.sha256}
    return {**served, "loaded_at": (live.get("config") or {}).get("loaded_at"), "pending_error": pending}


def _warnings(gathered: Gathered, live: Mapping[str, Any]) -> list[health.Warning]:
    crashed = _crashed(gathered.supervisor or {})
    if not gathered.workers and not gathered.silent and gathered.supervisor is None:
        stopped = [one for one in health.warnings(gathered.facts) if one.code != "starting"]
        return [*crashed, *gathered.elsewhere, *stopped]
    silent = [health.Warning("silent_worker", f"{name} does not answer") for name in gathered.silent]
    offers = [health.Warning("catalogue", line) for line in live.get("warnings") or ()]
    return [*silent, *crashed, *gathered.elsewhere, *health.warnings(gathered.facts), *offers]


def _crashed(supervisor: Mapping[str, Any]) -> list[health.Warning]:
    """Processes that are missing at present because they ended by themselves or hang; and those that had grown too large."""
    children = (supervisor.get("children") or {}).items()
    return (
        [
            health.Warning("crashed", f"{name} ended with {one['last_exit']} and is started again")
            for name, one in children
            if one.get("state") in {"waiting", "starting"} and one.get("last_exit")
        ]
        + [
            health.Warning("stalled_worker", f"{name} hangs and is replaced; logs/error.log says where")
            for name, one in children
            if one.get("stalled")
        ]
        + [
            health.Warning(
                "outgrown", f"{name} was replaced {_minutes(one['outgrown_ago_s'])} ago: it held too much memory"
            )
            for name, one in children
            if one.get("outgrown_ago_s", _NEWS_S) < _NEWS_S
        ]
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else "a moment"


def _limits(limits: Limits) -> Document:
    return {name: getattr(limits, name) for name in limits.__dataclass_fields__}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
