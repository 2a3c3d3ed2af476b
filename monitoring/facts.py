"""Where health's facts come from: the running gateway, the system, the database, Redis.

The gateway hands its own facts over through `provide`, since monitoring stands above it and nothing below may import this.
What must be asked over a socket is asked at most once a second, with a deadline, and remembered: /health is open to anybody
and must neither hang with a database nor become a way to load one.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from mcpserver.lib import log
from mcpserver.lib.clock import Clock, SystemClock
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import GatewayError
from mcpserver.lib.limits import Limits
from mcpserver.lib.usage import Process
from monitoring import health, resources, selectors, siblings, status
from remotes import selectors as remotes

# Beat is due every 10 s (mcpserver.celery); six missed ones are no coincidence.
BEAT_LATE_S = 60.0
# Further than this ahead of our clock no other machine's is.
FUTURE_S = 60.0
FRESH_S = 1.0
# After an answer that took long the next one may wait: a hung database is asked six times a minute, not at every probe.
SLOW_S = 0.25
FRESH_AFTER_SLOW_S = 10.0
DATABASE_WAIT_S = 1.5
REDIS_WAIT_S = 1.0

_NO_PROCESS = Process()

# The document that the gateway's control socket answers to {"op": "status"}, too.
Live = Mapping[str, Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database and the other dependencies say."""

    dependencies: Mapping[str, health.Dependency] = field(default_factory=dict)
    remotes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    config: health.Config = field(default_factory=health.Config)
    beat_age_s: float | None = None
    tasks: Mapping[str, int] | None = None


# The running gateway.

_provider: Callable[[], Live] | None = None


def provide(status: Callable[[], Live] | None) -> None:
    """Called by the wiring of a gateway worker, once it serves. `status` is cheap, and is called from other threads."""
    global _provider
    _provider = status


def live() -> Live | None:
    """What the gateway of this process knows; None while there is none."""
    return None if _provider is None else _provider()


def live_of_all() -> Live | None:
    """What all workers of this machine know, put together; None while this one does not serve."""
    own = live()
    if own is None or len(siblings.places(Path(settings.MCP_RUN_DIR))) < 2:
        return own if own is None else status.merged([own])
    heard = _siblings.read()
    others = [one for one in heard.answers if one.get("pid") != own.get("pid")]
    together = status.merged([own, *others]) or {}
    # A worker that drains speaks for itself: whoever asks it is to go elsewhere.
    return together | {"draining": bool(own.get("draining")), "silent": list(heard.silent)}


# Everything together.


def gather() -> health.Facts:
    """The facts of this process and its siblings, for /health."""
    return assemble(live_of_all(), _recent.read())


def assemble(
    live: Live | None, stored: Stored, process: Process = _NO_PROCESS, *, clock: Clock | None = None
) -> health.Facts:
    """One view out of what was gathered. What the gateway says of a remote is newer than what a probe wrote down. `process`:
    what the system says a worker uses, where one was asked; else what workers last measured of themselves counts."""
    said = live or {}
    connections = said.get("connections") or {}
    words = {name: str(row.get("status", "unknown")) for name, row in stored.remotes.items()}
    if live is not None and "mcps" in said:
        words = {name: str(facts.get("status", "unknown")) for name, facts in said["mcps"].items()}
    return health.Facts(
        limits=_limits(said.get("limits") or {}),
        started=live is not None,
        draining=bool(said.get("draining")),
        authenticates=bool(said.get("authenticates", True)),
        shedding=tuple(said.get("shedding") or ()),
        uptime_s=float(said.get("uptime_s") or 0),
        connections=int(connections.get("active") or 0),
        sockets=int(connections.get("sockets") or 0),
        connections_memory_bytes=int(connections.get("memory_bytes") or 0),
        in_flight=int(said.get("in_flight") or 0),
        remotes=words,
        circuits={name: one["circuit"] for name, one in (said.get("mcps") or {}).items() if one.get("circuit")},
        process=_hungriest(said.get("process") or {}, process),
        disk=_disk(said.get("log") or {}),
        errors_per_minute=float((said.get("errors") or {}).get("rate") or 0),
        latency_ms={name: (said.get("latency") or {}).get(name) for name in ("p50", "p95", "p99")},
        dependencies=stored.dependencies,
        config=_config(said.get("config") or {}, stored.config),
        now=_stamp((clock or SystemClock()).now()),
        clock_synchronised=resources.clock_synchronised(),
        tokens_unsaved=sum(
            bool((one.get("auth") or {}).get("tokens_unsaved")) for one in (said.get("mcps") or {}).values()
        ),
        uses_dropped=int((said.get("keys") or {}).get("uses_dropped") or 0),
        log_lines_dropped=int((said.get("log") or {}).get("dropped", log.state().dropped)),
        calls_dropped=int((said.get("calls") or {}).get("dropped") or 0),
        calls_stopped=str((said.get("calls") or {}).get("stopped") or ""),
        silent=tuple(said.get("silent") or ()),
        beat_age_s=stored.beat_age_s,
        tasks=stored.tasks,
    )


def _limits(said: Mapping[str, float]) -> Limits:
    """As they hold where the gateway runs: its configuration file and its environment may say more than ours."""
    known = {field.name for field in fields(Limits)}
    return replace(settings.LIMITS, **{name: value for name, value in said.items() if name in known})  # type: ignore[arg-type]


def _hungriest(said: Live, own: Process) -> Process:
    return Process(
        rss_mb=max(float(said.get("rss_mb") or 0), own.rss_mb),
        cpu_percent=max(float(said.get("cpu_percent") or 0), own.cpu_percent),
        open_files=max(int(said.get("open_files") or 0), own.open_files),
    )


def _disk(said_of_log: Mapping[str, Any]) -> health.Disk:
    disk = resources.disk(Path(settings.MCP_DATA_DIR))
    stopped = bool(said_of_log.get("stopped", log.state().stopped))
    return replace(disk, stopped_writes=disk.stopped_writes or stopped)


def _config(said: Mapping[str, Any], stored: health.Config) -> health.Config:
    """What is being served. An edit that waits is known to the process that saw it, so what it says comes first."""
    return health.Config(
        revision=said.get("revision", stored.revision),
        sha256=said.get("sha256", stored.sha256),
        pending=tuple(_problem(one) for one in said.get("pending_error") or ()) or stored.pending,
    )


def _stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# The database and Redis.


def read_stored(clock: Clock | None = None) -> Stored:
    """Ask the database now, in this thread: for commands, and for a database thread of the gateway."""
    head = remotes.head()
    beat = selectors.last_beat("worker")
    clock = clock or SystemClock()
    beat_age_s = _beat.age_s(beat.at if beat else None, clock.now(), clock.monotonic())
    return Stored(
        dependencies={"database": "ok", "worker": _worker_word(beat_age_s)},
        remotes=remotes.health(),
        config=health.Config(
            revision=head[0] if head else None,
            sha256=head[1] if head else None,
            pending=tuple(_problem(one) for one in remotes.pending_error() or ()),
        ),
        beat_age_s=beat_age_s,
        tasks={"done": beat.tasks - beat.failed, "failed": beat.failed} if beat else None,
    )


def without_database() -> Stored:
    """What is left to say when the database does not answer."""
    return Stored(dependencies={"database": "down", "worker": "unknown"})


def redis_word(url: str) -> health.Dependency:
    """Redis is only asked for where one is configured."""
    if not url:
        return "not_configured"
    from redis import Redis, RedisError

    try:
        with Redis.from_url(url, socket_connect_timeout=REDIS_WAIT_S, socket_timeout=REDIS_WAIT_S) as connection:
            connection.ping()
    except (RedisError, OSError, ValueError):
        return "down"
    return "ok"


def with_redis(stored: Stored) -> Stored:
    """The same, with a word on Redis."""
    words = {**stored.dependencies, "redis": redis_word(settings.REDIS_URL)}
    return replace(stored, dependencies=words)


def _ask() -> Stored:
    try:
        return with_redis(async_to_sync(_read_in_database)())
    except (GatewayError, DatabaseError, InterfaceError):
        return with_redis(without_database())


async def _read_in_database() -> Stored:
    return await in_database(read_stored, timeout_s=DATABASE_WAIT_S)


class _Recent:
    """The last answer, asked again when it is old. One asks; whoever comes meanwhile takes the last answer. Once the answer was
    long in coming, the one who asks takes the last one too: a probe every ten seconds would else be the one that waits each time.
    """

    def __init__(self, ask: Callable[[], Stored]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: Stored | None = None
        self._fresh_until = 0.0
        self._is_slow = False

    def read(self) -> Stored:
        if self._answer is not None and time.monotonic() < self._fresh_until:
            return self._answer
        if not self._lock.acquire(blocking=self._answer is None):
            return self._answer or without_database()
        if self._is_slow and self._answer is not None:
            threading.Thread(target=self._renew_and_release, name="health", daemon=True).start()
        else:
            self._renew_and_release()
        return self._answer or without_database()

    def forget(self) -> None:
        self._answer, self._is_slow = None, False

    def _renew_and_release(self) -> None:
        try:
            if self._answer is None or time.monotonic() >= self._fresh_until:
                self._renew()
        finally:
            self._lock.release()

    def _renew(self) -> None:
        began = time.monotonic()
        answer = self._ask()
        if answer.dependencies.get("database") == "down" and self._answer is not None:
            # What was last known of remotes and configuration stands while the database is away.
            answer = replace(self._answer, dependencies=answer.dependencies)
        if self._answer is not None and answer.dependencies != self._answer.dependencies:
            logger.warning(
                "dependencies: %s", ", ".join(f"{name} {word}" for name, word in answer.dependencies.items())
            )
        ended = time.monotonic()
        self._answer, self._is_slow = answer, ended - began > SLOW_S
        self._fresh_until = ended + (FRESH_AFTER_SLOW_S if self._is_slow else FRESH_S)


class _Siblings:
    """What the other workers said within the last second. One asks; whoever comes meanwhile takes the last answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard = siblings.Heard()
        self._fresh_until = 0.0

    def read(self) -> siblings.Heard:
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                self._heard = siblings.ask(Path(settings.MCP_RUN_DIR), {"op": "status"})
                self._fresh_until = time.monotonic() + FRESH_S
            return self._heard


def _problem(problem: Any) -> Mapping[str, Any]:
    if isinstance(problem, Mapping):
        return problem
    wanted = ("path", "line", "column", "code", "message", "hint")
    return {name: getattr(problem, name) for name in wanted if hasattr(problem, name)}


class LastBeat:
    """How long ago the worker's last beat was. What is seen anew is dated by its stamp; from then on monotonic time counts.

    So a clock that is set makes no beat late, and none that stays away fresh.
    """

    def __init__(self) -> None:
        self._at: datetime | None = None
        self._was = 0.0

    def age_s(self, at: datetime | None, now: datetime, monotonic: float) -> float | None:
        """`at`: its stamp. One out of the future says nothing: it is of before the clock was set back, or not of this machine."""
        if at is None:
            return None
        if at != self._at:
            ahead_s = (at - now).total_seconds()
            if ahead_s > FUTURE_S:
                return None
            self._at, self._was = at, monotonic - max(0.0, -ahead_s)
        return monotonic - self._was


def _worker_word(age_s: float | None) -> health.Dependency:
    if age_s is None:
        return "unknown"
    return "late" if age_s > BEAT_LATE_S else "ok"


_beat = LastBeat()
_recent = _Recent(_ask)
_siblings = _Siblings()
