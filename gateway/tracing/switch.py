"""Whether requests are traced, found out once at the start of a worker. OpenTelemetry itself is in `spans`.

Traces are an extra: without an endpoint in the environment nothing of OpenTelemetry is imported, and a request pays one
comparison. Its own variables say what is to happen (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_MAX_QUEUE_SIZE, …); here
only those are read that switch tracing on or off.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from gateway.tracing.spans import Tracing

log = logging.getLogger("mcp.tracing")

OF_TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
OF_ALL = "OTEL_EXPORTER_OTLP_ENDPOINT"
# gRPC would be another exporter with a dependency of 7 MB, for the same collector.
PROTOCOL = "http/protobuf"
LOCK = "deploy/otel/requirements.txt"
INSTALL = f".venv/bin/pip install --require-hashes --only-binary :all: -r {LOCK}"


def endpoint(environment: Mapping[str, str]) -> str:
    """Where spans are to go; empty when nobody asked for any."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return ""
    return environment.get(OF_TRACES, "").strip() or environment.get(OF_ALL, "").strip()


@dataclass(frozen=True, slots=True)
class Trouble:
    what: str
    fix: str


def trouble(environment: Mapping[str, str]) -> Trouble | None:
    """Why there can be no traces although they were asked for."""
    address = endpoint(environment)
    if not address:
        return None
    if place(address) is None:
        name = OF_TRACES if environment.get(OF_TRACES) else OF_ALL
        return Trouble(f"{name} is no http address", f"set {name} to something like http://collector:4318")
    spoken = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if spoken and spoken.strip() != PROTOCOL:
        fix = "unset OTEL_EXPORTER_OTLP_PROTOCOL, and name the collector's port for HTTP (4318)"
        return Trouble(f"spans are sent as {PROTOCOL} alone", fix)
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        return Trouble("OpenTelemetry is not installed", INSTALL)
    return None


def place(address: str) -> tuple[str, int] | None:
    """Host and port of an endpoint; None when it is no address."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.scheme in ("http", "https") and parts.hostname else None


def begin(environment: Mapping[str, str]) -> "Tracing | None":
    """What this worker traces with. What is wrong is said once and disturbs nobody: a gateway serves without traces."""
    if not endpoint(environment):
        return None
    if (wrong := trouble(environment)) is not None:
        log.warning("there are no traces: %s; %s", wrong.what, wrong.fix)
        return None
    from gateway.tracing.spans import Tracing

    try:
        return Tracing(environment)
    except ValueError as error:
        log.warning("there are no traces: %s", error)
        return None
