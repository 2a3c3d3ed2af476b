"""Every number an operator may care about, once, with its unit in its name.

Each field can be set by an environment variable, `MCP_` + its name in capitals. Settings build the one `Limits` at start;
everything else is handed it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    # Streams: SSE, GET streams and subscriptions/listen.
    max_connections_per_key: int = 10
    max_total_connections: int = 100
    connection_timeout_s: float = 3600
    heartbeat_s: float = 30
    stale_s: float = 60
    # Requests. Calls are bounded per key and per remote inside the total, so that none can take everything.
    max_requests_in_flight: int = 100
    max_in_flight_per_key: int = 32
    max_in_flight_per_remote: int = 32
    # A request over its key's limit waits so long for its turn, and no longer than its remote may take in all.
    slot_wait_s: float = 10
    # Processes of stdio remotes that run at once. `isolation: key` and `session` start one for each.
    max_processes: int = 64
    max_request_size: int = 1 * MIB
    # How long a person may take over a question that a remote asks in the middle of a call.
    answer_wait_s: float = 600
    # Answers: cut or refused above the first, never read beyond twice that.
    max_tool_response_size: int = 10 * MIB
    # All large answers of one worker together, from the first byte read to the last one handed over.
    max_payload_memory_mb: int = 128
    # The process.
    shutdown_grace_s: float = 30
    max_open_files: int = 1024
    max_memory_mb: int = 512
    max_cpu_percent: int = 80
    # Circuit breaker.
    breaker_failures: int = 5
    breaker_window_s: float = 60
    breaker_open_s: float = 30
    # Files.
    log_max_bytes: int = 10 * MIB
    log_files: int = 5
    backup_keep: int = 10
    # The record of calls in the database: 60 MB, or a month, whichever is less.
    calls_keep_rows: int = 250_000
    calls_keep_days: float = 30

    @property
    def read_max_bytes(self) -> int:
        """Decompressed bytes read from a remote for one answer before the reading stops."""
        return 2 * self.max_tool_response_size


# With fewer open files there are not even enough to start with, and none for clients.
LEAST = {"max_open_files": 128}


def variable(field: str) -> str:
    """The environment variable of a field of `Limits`."""
    return f"MCP_{field.upper()}"


def from_environment(environment: Mapping[str, str]) -> Limits:
    """Read every limit that is set; raise ValueError naming the variable for one that is not a number above zero."""
    values: dict[str, int | float] = {}
    for field in fields(Limits):
        raw = environment.get(variable(field.name), "").strip()
        if not raw:
            continue
        try:
            number = float(raw) if field.type is float or field.type == "float" else int(raw)
        except ValueError:
            raise ValueError(f"{variable(field.name)}={raw!r} is not a number") from None
        if number <= 0:
            raise ValueError(f"{variable(field.name)}={raw!r} must be above zero")
        if number < (least := LEAST.get(field.name, 0)):
            raise ValueError(f"{variable(field.name)}={raw!r} must be {least} or more")
        values[field.name] = number
    return Limits(**values)  # type: ignore[arg-type]


def configured(limits: Limits, overrides: Mapping[str, float], environment: Mapping[str, str]) -> Limits:
    """`limits` with what the configuration file says; a variable of the environment beats the file."""
    wanted = {name: value for name, value in overrides.items() if not environment.get(variable(name), "").strip()}
    return replace(limits, **wanted)  # type: ignore[arg-type]
