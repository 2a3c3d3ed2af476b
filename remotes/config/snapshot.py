"""The configuration as values: what one revision says, frozen. A request reads one `Snapshot` and keeps it to its end.

Pure: no file, no database, no clock. `remotes.config.load` builds it; nobody else changes or copies it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Literal

from remotes.config.addresses import Reach

Transport = Literal["stdio", "http", "sse"]
Era = Literal["auto", "2024-11-05", "2025-11-25", "2026-07-28"]
Isolation = Literal["auto", "shared", "key", "session"]
Pin = Literal["warn", "hold", "off"]
Audit = Literal["off", "calls", "arguments"]

# Seconds, where the file says nothing.
TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 30.0
LIST_TIMEOUT_S = 10.0
PROBE_INTERVAL_S = 60.0

# What a connection depends on; the rest (timeouts, tools, limits) is read anew for every call.
_CONNECTION = (
    "name", "transport", "era", "command", "args", "env", "cwd", "url", "headers", "auth", "reach", "isolation",
)  # fmt: skip

_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Missing:
    """A `${VARIABLE}` that is unset, empty or unusable, and the field (`env.TOKEN`, `headers.Authorization`) that names it."""

    variable: str
    field: str


@dataclass(frozen=True, slots=True)
class BreakerSpec:
    """What differs for one remote from the gateway's own numbers; None: no difference."""

    enabled: bool = True
    failures: int | None = None
    window_s: float | None = None
    open_s: float | None = None


@dataclass(frozen=True, slots=True)
class AuthSpec:
    """Where access tokens for a remote come from. Without a token URL a login brings them; with one and without a refresh
    token they are the gateway's own (client credentials)."""

    token_url: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    scope: str = ""
    resource: str = ""
    client_metadata_url: str = ""


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """One remote as configured, variables already expanded. `transport` "http" with era "auto" is found out by probing."""

    name: str
    transport: Transport
    era: Era = "auto"
    enabled: bool = True
    # stdio
    command: str = ""
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=lambda: _EMPTY, repr=False)
    cwd: str = ""
    # http, sse
    url: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: _EMPTY, repr=False)
    auth: AuthSpec | None = None
    reach: Reach = field(default_factory=Reach)
    # seconds
    timeout_s: float = TIMEOUT_S
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    list_timeout_s: float = LIST_TIMEOUT_S
    probe_interval_s: float = PROBE_INTERVAL_S
    # how long the rest of an answer that was cut is kept for its caller; 0: not at all
    keep_cut_answers_s: float = 0.0
    isolation: Isolation = "auto"
    # tools: None means all are enabled; aliases map the remote's own name to the part after `{mcp}__`
    tools_enabled: tuple[str, ...] | None = None
    tools_disabled: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    pin: Pin = "warn"
    # failures
    breaker: BreakerSpec = field(default_factory=BreakerSpec)
    retry_idempotent: bool = False
    # not empty: the remote is `misconfigured` and is never contacted
    missing: tuple[Missing, ...] = ()

    def disabled_by(self, tool: str) -> str | None:
        """The field that switches a tool off, by the remote's own name of it; None: it is on."""
        if tool in self.tools_disabled:
            return "tools.disabled"
        return "tools.enabled" if self.tools_enabled is not None and tool not in self.tools_enabled else None

    @property
    def digest(self) -> str:
        """Equal for specs that are connected to alike: such a connection lives on across revisions, whatever else changed."""
        facts = {name: getattr(self, name) for name in _CONNECTION}
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=_plain).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The `gateway:` section: what can change while the gateway runs."""

    max_tool_name: int = 55
    audit: Audit = "calls"
    limits: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration file; `line` and `column` count from 1."""

    path: str
    line: int
    column: int
    code: str
    message: str
    hint: str = ""


def documents(problems: tuple[Problem, ...]) -> list[dict[str, Any]]:
    """Problems as JSON objects."""
    return [asdict(problem) for problem in problems]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision. `remotes` keeps the order of the file; `warnings` never stop anything."""

    revision: int
    sha256: str
    remotes: Mapping[str, RemoteSpec]
    gateway: GatewayOptions = field(default_factory=GatewayOptions)
    reach: Reach = field(default_factory=Reach)
    warnings: tuple[Problem, ...] = ()


def _plain(value: Any) -> Any:
    """For the digest only. `dataclasses.asdict` copies deeply, which read-only mappings do not allow."""
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    return dict(value) if isinstance(value, Mapping) else str(value)
