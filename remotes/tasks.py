"""What is done regularly for remotes: looking at those that are due, and writing down how they are.

Celery's beat runs it; the schedule is in `mcpserver.celery`. An address is probed from here. A process is not started a
second time: the gateway, which owns it, is asked to ping it; while no gateway answers, nothing is known and nothing is written.
Every machine has a beat: an address is probed by the one that claims it in the database, a process by the machine it runs on.
"""

import asyncio
import logging
import threading
import time
import zlib
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from celery import shared_task
from django.conf import settings

from mcpserver.lib import control
from mcpserver.lib.clock import SystemClock
from mcpserver.lib.database import UNUSABLE, unavailable
from mcpserver.lib.errors import GatewayError
from remotes import circuits, probes, selectors, services, status
from remotes.config.snapshot import RemoteSpec, Snapshot
from remotes.flapping import Damper, News, words
from remotes.probes import Report
from remotes.status import Status
from remotes.tokens import credentials
from remotes.upstream.outcome import Failure, Fault

log = logging.getLogger("mcp.probes")

# Two remotes with the same interval drift apart instead of being asked in the same moment for ever.
JITTER = 0.1
# The gateway gives a ping 10 s; its answer may take the way back.
PING_WAIT_S = 12.0
# Celery's threads enforce no deadline, so no probe has a longer one than this, whatever its list_timeout; and while so many
# rounds wait for slow remotes, the other threads are left to the other tasks.
PROBE_MAX_S = 30.0
ROUNDS_MAX = 2
# With the schedule's own words for it: neither asked nor to be asked again and again.
_UNASKED = (Status.DISABLED, Status.MISCONFIGURED)

_rounds = threading.BoundedSemaphore(ROUNDS_MAX)
_under_way: set[str] = set()
_turn = threading.Lock()
_damper = Damper()
# When this machine last asked for a sign of life of each process; what another machine knows of its own says nothing of ours.
_pings: dict[str, datetime] = {}
_began = SystemClock().now()


@shared_task(name="remotes.probe", ignore_result=True)  # type: ignore[untyped-decorator]  # celery has no types
def probe_remotes() -> None:
    """Probe whatever is due, each remote once at a time: while a slow one is waited for, the next round passes it by."""
    if not _rounds.acquire(blocking=False):
        return
    try:
        _round(SystemClock().now())
    except UNUSABLE as error:
        log.warning("remotes are not probed: %s", unavailable(error).message)
    finally:
        _rounds.release()


def is_due(spec: RemoteSpec, row: Mapping[str, Any] | None, now: datetime) -> bool:
    """`row`: what is known of it. A clock that was set back makes it due, instead of leaving it alone until then."""
    word = status.of(spec, reached=False, failure=None)
    if word in _UNASKED:
        return row is None or row["status"] != word
    if row is None or row["checked_at"] is None or row["status"] in _UNASKED:
        return True
    age_s = (now - row["checked_at"]).total_seconds()
    return not 0 <= age_s < spec.probe_interval_s * _spread(spec.name, row["checked_at"])


def _spread(name: str, checked_at: datetime) -> float:
    """A factor near 1, the same each time the same wait is judged."""
    chance = zlib.crc32(f"{name} {checked_at.isoformat()}".encode()) / 0xFFFFFFFF
    return 1 + JITTER * (2 * chance - 1)


def _round(now: datetime) -> None:
    head = selectors.head()
    snapshot = _configured(head[2]) if head is not None else None
    if snapshot is None:
        return
    known = selectors.health()
    due = _begun([spec for spec in snapshot.remotes.values() if is_due(spec, _seen_here(spec, known), now)])
    if not due:
        return
    try:
        ours = [spec for spec in due if _is_ours(spec, known.get(spec.name), now)]
        for report in probes.run(probes.at_once(_asked(spec) for spec in ours)):
            if report is not None:
                _record(report, known.get(report.name))
    finally:
        with _turn:
            _under_way.difference_update(spec.name for spec in due)


def _seen_here(spec: RemoteSpec, known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """What is known of it, looked at from this machine: a process of ours may be due while another's is not."""
    row = known.get(spec.name)
    if row is None or row["checked_at"] is None or spec.transport != "stdio":
        return row
    return {**row, "checked_at": min(row["checked_at"], _pings.get(spec.name, _began))}


def _is_ours(spec: RemoteSpec, row: Mapping[str, Any] | None, now: datetime) -> bool:
    if spec.transport == "stdio":
        _pings[spec.name] = now
        return True
    return services.claim_probe(spec.name, row["checked_at"] if row is not None else None)


def _begun(due: list[RemoteSpec]) -> list[RemoteSpec]:
    """Those that nobody is asking already; from now on somebody is."""
    with _turn:
        free = [spec for spec in due if spec.name not in _under_way]
        _under_way.update(spec.name for spec in free)
    return free


@lru_cache(maxsize=1)
def _configured(text: str) -> Snapshot | None:
    """Built once per revision. One that cannot be used here is said so once, too."""
    try:
        return services.validated(text, path=Path(settings.MCP_CONFIG))
    except GatewayError as error:
        log.error("remotes are not probed: the revision that runs cannot be used here: %s", error.message)
        return None


async def _asked(spec: RemoteSpec) -> Report | None:
    """How it is; None where that could not be found out."""
    if spec.transport == "stdio" and status.refusal(spec) is None:
        return await asyncio.to_thread(_pinged, spec)
    timeout_s = min(spec.list_timeout_s, PROBE_MAX_S)
    cap, credential = settings.LIMITS.read_max_bytes, credentials.for_probe(spec)
    return await probes.probe(spec, timeout_s=timeout_s, max_bytes=cap, credential=credential)


def _pinged(spec: RemoteSpec) -> Report | None:
    """Through any worker that answers: they all reach the one process."""
    request = {"op": "ping", "remote": spec.name}
    for path in sorted(Path(settings.MCP_RUN_DIR).glob("gateway-*.sock")):
        try:
            return _read_ping(spec, control.ask(path, request, timeout_s=PING_WAIT_S))
        except GatewayError as error:
            log.debug("%s is not probed: %s", spec.name, error.message)
            if error.code == "timeout":  # it was asked; another would take as long
                return None
    return None


def _read_ping(spec: RemoteSpec, answer: Mapping[str, Any]) -> Report | None:
    latency_ms = answer.get("latency_ms")
    if answer.get("ok"):
        era, transport = answer.get("era") or "", answer.get("transport") or spec.transport
        return Report(spec.name, Status.HEALTHY, latency_ms=latency_ms, era=era, transport=transport)
    error = str(answer.get("error"))
    if error not in set(Fault) or error == Fault.BUSY:
        return None  # The gateway does not know it yet, or it has its hands full: no sign of ill health.
    failure = Failure(Fault(error), str(answer.get("phase", "")), str(answer.get("message", "")))
    word = status.of(spec, reached=False, failure=failure)
    return Report(spec.name, word, error, latency_ms, failure.phase, failure.message, transport=spec.transport)


def _record(report: Report, row: Mapping[str, Any] | None) -> None:
    """What failed leaves the era and the number of tools as they were last known."""
    facts: dict[str, Any] = {"status": str(report.status), "phase": report.phase, "error": report.message}
    if report.ok:
        found = {"era": report.era, "transport": report.transport, "tools": report.tools}
        facts |= {"latency_ms": report.latency_ms} | {
            name: value for name, value in found.items() if value not in ("", None)
        }
    services.record_health(report.name, **facts)
    before = str(row["status"]) if row is not None else str(Status.UNKNOWN)
    if report.ok and before == Status.UNHEALTHY and circuits.close(report.name):
        log.info("%s answers again: its circuit is closed", report.name, extra={"remote": report.name})
    news = _damper.heard(report.name, before, report.status, time.monotonic())
    if news is not News.NOTHING:
        level = logging.INFO if report.ok or report.status is Status.DISABLED else logging.WARNING
        said = words(report.name, str(report.status), news, report.message)
        log.log(level, "%s", said, extra={"remote": report.name})
