"""The revisions of MCP and what each era may ask of a server.

"Handshake" revisions open with `initialize`; 2026-07-28 carries version and capabilities in each request.
"""

from collections.abc import Mapping
from types import MappingProxyType

MODERN = "2026-07-28"
HANDSHAKE = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
NEWEST_HANDSHAKE = HANDSHAKE[0]
ASSUMED_WITHOUT_HEADER = "2025-03-26"

# The modern one first: a client falls back to `initialize` only when it finds none here that it knows.
SUPPORTED = (MODERN, *HANDSHAKE)

LISTS: Mapping[str, str] = MappingProxyType(
    {
        "tools/list": "tools",
        "prompts/list": "prompts",
        "resources/list": "resources",
        "resources/templates/list": "resourceTemplates",
    }
)
"""Each list method and the field of its result that holds the entries."""

ROUTED: Mapping[str, str] = MappingProxyType({"tools/call": "name", "prompts/get": "name", "resources/read": "uri"})
"""Each method that belongs to one remote and the parameter that says to which."""

TASKS = frozenset(("tasks/get", "tasks/result", "tasks/cancel", "tasks/update"))
"""The methods that belong to the remote whose task `params.taskId` names."""

NAMED: Mapping[str, str] = MappingProxyType({**ROUTED, **dict.fromkeys(TASKS, "taskId")})
"""Each method and the parameter that `Mcp-Name` mirrors over Streamable HTTP of 2026-07-28 (and its tasks extension)."""

_EITHER = frozenset((*LISTS, *ROUTED, "completion/complete", "tasks/get", "tasks/cancel"))
MODERN_METHODS = _EITHER | {"server/discover", "subscriptions/listen", "tasks/update"}
HANDSHAKE_METHODS = _EITHER | {
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/list",
    "tasks/result",
}

LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""RFC 5424 severities, the quietest last."""


def negotiate(proposed: str) -> str:
    """The revision a handshake settles on: the client's if it is one of ours, else our newest (lifecycle)."""
    return proposed if proposed in HANDSHAKE else NEWEST_HANDSHAKE


def loud_enough(level: str, wanted: str) -> bool:
    """Whether a message of `level` passes a filter set to `wanted`; an unknown level passes."""
    if level not in LOG_LEVELS or wanted not in LOG_LEVELS:
        return True
    return LOG_LEVELS.index(level) >= LOG_LEVELS.index(wanted)
