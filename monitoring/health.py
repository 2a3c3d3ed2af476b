"""What /health says, and when the gateway may call itself well. One document, decided here alone.

Pure: facts in, values out. Who may read the remotes' names is decided by the view; where facts come from, by `facts`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mcpserver.lib.limits import Limits
from mcpserver.lib.usage import Process

# The words an operator reads. The first two are served with 200, the others with 503.
Status = Literal["healthy", "degraded", "draining", "unhealthy"]
Dependency = Literal["ok", "down", "late", "unknown", "not_configured"]

# A remote in one of these words needs nobody: it works, is switched off, or has not been asked yet.
QUIET_REMOTE_WORDS = frozenset({"healthy", "disabled", "unknown"})
_ILL_DEPENDENCIES = frozenset({"down", "late"})

# Warned about, because an alert of the operator's would follow; none of them alone makes the gateway degraded.
WARN_PERCENT = 80
WARN_DISK_PERCENT = 90
WARN_ERRORS_PER_MINUTE = 10
WARN_P99_MS = 5000
WARN_CLOCK = "the system clock is not synchronised"


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of the data folder. `stopped_writes`: something that should be written is not."""

    percent: float | None = None
    free_mb: float | None = None
    free_inodes: int | None = None
    stopped_writes: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """`pending`: the problems of an edit that could not be applied."""

    revision: int | None = None
    sha256: str | None = None
    pending: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that health knows. A default is what is true before anything has been heard."""

    limits: Limits
    started: bool = False
    draining: bool = False
    authenticates: bool = True
    shedding: tuple[str, ...] = ()
    uptime_s: float = 0.0
    connections: int = 0
    sockets: int = 0
    connections_memory_bytes: int = 0
    in_flight: int = 0
    remotes: Mapping[str, str] = field(default_factory=dict)
    circuits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    process: Process = field(default_factory=Process)
    disk: Disk = field(default_factory=Disk)
    errors_per_minute: float = 0.0
    latency_ms: Mapping[str, float | None] = field(default_factory=dict)
    dependencies: Mapping[str, Dependency] = field(default_factory=dict)
    config: Config = field(default_factory=Config)
    now: str = ""
    clock_synchronised: bool | None = None
    log_lines_dropped: int = 0
    uses_dropped: int = 0
    calls_dropped: int = 0
    calls_stopped: str = ""
    tokens_unsaved: int = 0
    silent: tuple[str, ...] = ()
    beat_age_s: float | None = None
    tasks: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Warning:
    """One thing to look at; `code` never changes."""

    code: str
    message: str


def judge(facts: Facts) -> Status:
    """The one word. Whoever cannot serve says so before anything else is looked at."""
    if facts.draining:
        return "draining"
    if not facts.started or not facts.authenticates:
        return "unhealthy"
    ailing = ill_remotes(facts) or ill_dependencies(facts)
    return "degraded" if ailing or facts.shedding or facts.config.pending or facts.disk.stopped_writes else "healthy"


def http_status(status: Status) -> int:
    """What a load balancer understands."""
    return 200 if status in {"healthy", "degraded"} else 503


def ill_remotes(facts: Facts) -> list[str]:
    """Remotes that somebody should look at."""
    return [name for name, word in facts.remotes.items() if word not in QUIET_REMOTE_WORDS]


def ill_dependencies(facts: Facts) -> list[str]:
    """What the gateway could use and cannot."""
    return [name for name, word in facts.dependencies.items() if word in _ILL_DEPENDENCIES]


def document(facts: Facts, *, names: bool, edits: bool) -> dict[str, Any]:
    """The answer of /health. Without `names` nothing in it tells what the remotes are called; `edits`: what is wrong with an
    edit of the configuration, in its own words."""
    return {
        "status": judge(facts),
        "uptime": round(facts.uptime_s, 1),
        "connections": {
            "active": facts.connections,
            "max": facts.limits.max_total_connections,
            "in_flight": facts.in_flight,
            "sockets": facts.sockets,
            "memory_bytes": facts.connections_memory_bytes,
            "lifetime_limit_s": facts.limits.connection_timeout_s,
        },
        "mcps_health": mcps_health(facts, names=names),
        "memory": memory(facts),
        "cpu": cpu(facts),
        "disk": disk(facts),
        "errors": {"rate": round(facts.errors_per_minute, 2)},
        "latency": dict(facts.latency_ms),
        "time": {"utc": facts.now, "synchronised": facts.clock_synchronised},
        "dependencies": dict(facts.dependencies),
        "config": _config(facts.config, edits=edits),
        "warnings": [{"code": one.code, "message": one.message} for one in warnings(facts)],
    }


def mcps_health(facts: Facts, *, names: bool) -> dict[str, Any]:
    """How many remotes there are, how many of each word, and, for whom it is meant, which, and what circuits are not closed."""
    words = facts.remotes
    counted: dict[str, Any] = {"total": len(words), "by_status": dict(sorted(Counter(words.values()).items()))}
    if not names:
        return counted
    circuits = {name: dict(one) for name, one in facts.circuits.items() if one.get("state") != "closed"}
    return counted | {"mcps": dict(words), "circuits": circuits}


def memory(facts: Facts) -> dict[str, Any]:
    limit = facts.limits.max_memory_mb
    used = facts.process.rss_mb
    return {"rss_mb": round(used, 1), "limit_mb": limit, "percent": round(100 * used / limit, 1)}


def cpu(facts: Facts) -> dict[str, Any]:
    return {"percent": round(facts.process.cpu_percent, 1), "limit_percent": facts.limits.max_cpu_percent}


def disk(facts: Facts) -> dict[str, Any]:
    return {
        "percent": facts.disk.percent,
        "free_mb": facts.disk.free_mb,
        "free_inodes": facts.disk.free_inodes,
        "stopped_writes": facts.disk.stopped_writes,
        "log_lines_dropped": facts.log_lines_dropped,
        "uses_dropped": facts.uses_dropped,
        "calls_dropped": facts.calls_dropped,
    }


def warnings(facts: Facts) -> list[Warning]:
    """Everything worth a look, worst first. No sentence names a remote: strangers may read them."""
    return [*_ailments(facts), *_pressures(facts)]


def _ailments(facts: Facts) -> list[Warning]:
    found = []
    if not facts.started:
        found.append(Warning("starting", "the gateway is not ready yet"))
    if not facts.authenticates:
        found.append(Warning("no_keys", "keys cannot be checked: no request can be served"))
    if ill := ill_remotes(facts):
        found.append(Warning("remotes", f"{len(ill)} of {len(facts.remotes)} remotes need attention"))
    found += [Warning("silent_worker", f"{name} does not answer") for name in facts.silent]
    found += [Warning(f"{name}_{facts.dependencies[name]}", _lost(name)) for name in ill_dependencies(facts)]
    found += [
        Warning(f"shedding_{guard}", f"new work is refused: {guard} is over its limit") for guard in facts.shedding
    ]
    if facts.config.pending:
        why = "the configuration file has an edit that cannot be applied: mcpconfig validate shows what is wrong"
        found.append(Warning("config_pending", why))
    if facts.tokens_unsaved:
        why = f"renewed tokens of {facts.tokens_unsaved} remotes are in memory alone until they can be stored"
        found.append(Warning("tokens_unsaved", why))
    if facts.disk.stopped_writes:
        found.append(Warning("stopped_writes", "the disk cannot be written: logs and audit lines are being dropped"))
    if facts.calls_stopped:
        found.append(
            Warning("calls_stopped", f"calls cannot be recorded ({facts.calls_stopped}): they wait, or are lost")
        )
    return found


def _pressures(facts: Facts) -> list[Warning]:
    limits = facts.limits
    p99 = facts.latency_ms.get("p99") or 0
    measured: list[tuple[str, float, float, str]] = [
        ("connections", facts.connections, limits.max_total_connections * WARN_PERCENT / 100, "open streams"),
        ("memory", facts.process.rss_mb, limits.max_memory_mb * WARN_PERCENT / 100, "MB of memory"),
        ("files", facts.process.open_files, limits.max_open_files * WARN_PERCENT / 100, "open files"),
        ("cpu", facts.process.cpu_percent, limits.max_cpu_percent * WARN_PERCENT / 100, "percent of a core"),
        ("disk", facts.disk.percent or 0, WARN_DISK_PERCENT, "percent of the disk used"),
        ("errors", facts.errors_per_minute, WARN_ERRORS_PER_MINUTE, "errors a minute"),
        ("latency", p99, WARN_P99_MS, "ms at the 99th percentile"),
    ]
    found = [
        Warning(f"high_{what}", f"{value:.0f} {unit}, above {threshold:.0f}")
        for what, value, threshold, unit in measured
        if value > threshold
    ]
    return found + ([Warning("clock", WARN_CLOCK)] if facts.clock_synchronised is False else [])


def _lost(dependency: str) -> str:
    match dependency:
        case "database":
            return "the database does not answer: what is known is served on, changes must wait"
        case "redis":
            return "Redis does not answer: limits are counted per worker"
        case "worker":
            return "the Celery worker has not been heard of: remotes are not probed"
    return f"{dependency} does not answer"


def _config(config: Config, *, edits: bool) -> dict[str, Any]:
    pending: dict[str, Any] | None = None
    if config.pending:
        pending = {"count": len(config.pending)} | ({"errors": [dict(one) for one in config.pending]} if edits else {})
    return {"revision": config.revision, "sha256": config.sha256, "pending_error": pending}
