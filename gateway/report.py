"""What one worker says of itself when it is asked: its streams, its remotes, its limits. Reads, and changes nothing."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import mcpserver
from gateway import metrics, serving
from gateway.catalog import trust
from gateway.sessions import outbox
from mcpserver.lib import log as logs
from remotes import selectors, status
from remotes.upstream.client import Upstream

if TYPE_CHECKING:
    from gateway.runtime import Runtime


def document(runtime: "Runtime") -> dict[str, Any]:
    """The live facts, for the control socket and health; cheap, and safe to call from another thread."""
    lines = logs.state()
    per_key = sorted(runtime.slots.streams.per_key.items())
    return {
        "ok": True,
        "pid": os.getpid(),
        "version": mcpserver.__version__,
        "started_at": runtime.started_at.isoformat(timespec="seconds") if runtime.started_at else None,
        "uptime_s": round(runtime.clock.monotonic() - runtime.began, 1),
        "draining": runtime.draining,
        "shedding": list(runtime.shedding),
        "connections": {
            "active": runtime.slots.streams.active,
            "max": runtime.slots.streams.max,
            "refused": runtime.slots.streams.refused,
            "sockets": serving.connections(),
            "memory_bytes": held_for_clients(runtime),
            "per_key": [
                {"key": key_id, "name": runtime.authenticator.name_of(key_id), "active": active}
                for key_id, active in per_key
            ],
        },
        "in_flight": runtime.slots.requests.active,
        "waiting": runtime.slots.requests.waiting,
        "cluster": _cluster(runtime),
        "mcps": {name: _remote(runtime, name) for name in runtime.snapshot.remotes},
        "config": {
            "revision": runtime.snapshot.revision,
            "sha256": runtime.snapshot.sha256,
            "loaded_at": runtime.loaded_at.isoformat(timespec="seconds") if runtime.loaded_at else None,
            "pending_error": selectors.pending_error(),
        },
        "payloads": {
            "bytes": runtime.budget.bytes,
            "kept_bytes": runtime.budget.kept_bytes,
            "max_bytes": runtime.budget.max_bytes,
            "waiting": runtime.budget.waiting,
            "waited": runtime.budget.waited,
        },
        "log": {"dropped": lines.dropped, "stopped": lines.stopped},
        "calls": runtime.record.facts(),
        "process": {
            "rss_mb": round(runtime.used.rss_mb, 1),
            "cpu_percent": round(runtime.used.cpu_percent, 1),
            "open_files": runtime.used.open_files,
        },
        "limits": asdict(runtime.limits),
        "keys": runtime.authenticator.facts(),
        "errors": {"rate": runtime.recent.errors_per_minute()},
        "latency": runtime.recent.percentiles_ms(),
        "warnings": problems(runtime),
    }


def _cluster(runtime: "Runtime") -> dict[str, Any] | None:
    if runtime.cluster is None:
        return None
    return runtime.cluster.facts() | {"requests_counted_alone": runtime.rates.counted_alone}


def held_for_clients(runtime: "Runtime") -> int:
    """What is unsent, what waits in streams, and what is kept for clients that were cut off. Large answers are `payloads`."""
    return serving.unsent_bytes() + outbox.waiting_bytes() + runtime.trails.bytes


def problems(runtime: "Runtime") -> list[str]:
    """What is wrong with what remotes offer, and what is not as it was approved."""
    doubts = [line for name in runtime.snapshot.remotes for line in trust.doubts(runtime.catalog, name)]
    return [*runtime.catalog.joined.problems, *doubts]


def _remote(runtime: "Runtime", name: str) -> dict[str, Any]:
    spec = runtime.snapshot.remotes[name]
    kept = runtime.catalog.kept(name)
    listing = kept.listing if kept is not None else None
    failure = kept.failure if kept is not None else None
    said_at = kept.remembered_at if kept is not None else None
    is_reached, is_degraded = kept is not None and kept.is_reached, not runtime.circuits.is_closed(name)
    return {
        "status": str(status.of(spec, reached=is_reached, failure=failure, degraded=is_degraded)),
        "circuit": runtime.circuits.document(name),
        "transport": listing.greeting.transport if listing else spec.transport,
        "era": listing.greeting.revision if listing else None,
        "tools": len(listing.entries.get("tools/list", ())) if listing else 0,
        "remembered": said_at.isoformat(timespec="seconds") if said_at is not None else None,
        "calls": metrics.TOOLS.calls(name),
        "latency_ms": kept.latency_ms if kept is not None else None,
        "last_error": failure.told if failure is not None else None,
        "phase": failure.phase if failure is not None else None,
        "missing_env": [missing.variable for missing in spec.missing],
        "auth": runtime.credentials.describe(name),
        **trust.facts(runtime.catalog, spec),
    } | ({"process": _process(runtime, kept.upstream)} if kept is not None and spec.transport == "stdio" else {})


def _process(runtime: "Runtime", upstream: Upstream) -> dict[str, Any] | None:
    return None if upstream.is_elsewhere else upstream.record.facts(runtime.clock.monotonic())
