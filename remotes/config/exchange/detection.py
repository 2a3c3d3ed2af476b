"""Whose configuration it is, told by its keys, and the servers in it: each with its name and its own words.

Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mcpserver.lib.errors import Exit, GatewayError

# What `--format` takes; "auto" finds it out. Some share a shape and differ in units, variables or the meaning of a field.
FORMATS = (
    "mcpServers", "claude-desktop", "claude-code", "cursor", "copilot", "windsurf", "cline", "gemini", "librechat", "langchain",
    "vscode", "codex", "zed", "goose", "opencode", "docker", "registry", "openai", "anthropic",
)  # fmt: skip

# Fields that only one program writes.
_TELLTALES = (
    ("gemini", {"httpUrl", "includeTools", "excludeTools", "authProviderType", "trust"}),
    ("windsurf", {"serverUrl"}),
    ("librechat", {"customUserVars", "requiresOAuth", "serverInstructions", "chatMenu", "iconPath"}),
    ("cline", {"autoApprove", "alwaysAllow"}),
    ("langchain", {"transport"}),
)
_ENTRY = {"command", "cmd", "url", "serverUrl", "httpUrl", "uri", "server_url"}


@dataclass(frozen=True, slots=True)
class Found:
    """One server as its program writes it. `also` are facts of the file that belong to it (VS Code's inputs)."""

    name: str
    entry: dict[str, Any]


def servers(value: Any, wanted: str = "auto") -> tuple[str, list[Found]]:
    """The format and the servers; GatewayError `unknown_format` where there are none to be seen."""
    format, holder = _format(value)
    if format is None or holder is None:
        raise GatewayError(
            "unknown_format", "no servers are found in it",
            hint="it needs a key such as mcpServers, servers, mcp_servers, context_servers, extensions, mcp or packages",
            exit_code=Exit.CONFIG,
        )  # fmt: skip
    return (format if wanted == "auto" else wanted), list(_entries(format, holder))


def _format(value: Any) -> tuple[str | None, Any]:
    match value:
        case {"mcpServers": dict(entries)}:
            return _told_apart(value, entries), _with_projects(value)
        case {"projects": dict()} if _with_projects(value):
            return "claude-code", _with_projects(value)
        case {"servers": dict(entries)}:
            return "vscode", entries
        case {"mcp_servers": dict(entries)}:
            return "codex", entries
        case {"mcp_servers": list(entries)}:
            return "anthropic", entries
        case {"context_servers": dict(entries)}:
            return "zed", entries
        case {"extensions": dict(entries)}:
            return "goose", entries
        case {"mcp": {"servers": dict(entries)}}:
            is_opencode = any(
                isinstance(one, dict) and one.get("type") in ("local", "remote") for one in entries.values()
            )
            return ("opencode" if is_opencode else "vscode"), entries
        case {"mcp": dict(entries)}:
            return "opencode", entries
        case {"registry": dict(entries)}:
            return "docker", entries
        case {"server": dict(server)} if "name" in server:
            return "registry", [server]
        case {"name": str(), "packages": list()} | {"name": str(), "remotes": list()}:
            return "registry", [value]
        case {"tools": list(entries)} | list(entries):
            tools = [one for one in entries if isinstance(one, dict) and one.get("type") == "mcp"]
            return ("openai", tools) if tools else (None, None)
        case dict() if value and all(isinstance(one, dict) and _ENTRY & set(one) for one in value.values()):
            return _told_apart({}, value), value
        case _:
            return None, None


def _told_apart(whole: dict[str, Any], entries: dict[str, Any]) -> str:
    fields = {field for entry in entries.values() if isinstance(entry, dict) for field in entry}
    if "endpoints" in whole or "interface" in whole:
        return "librechat"
    if "projects" in whole:
        return "claude-code"
    return next((format for format, telltales in _TELLTALES if telltales & fields), "mcpServers")


def _with_projects(value: dict[str, Any]) -> list[tuple[str, Any]]:
    """Claude Code keeps servers of one project below the project; the same name may stand there again."""
    found = list(value.get("mcpServers", {}).items())
    projects = value.get("projects")
    for project in projects.values() if isinstance(projects, dict) else ():
        inner = project.get("mcpServers") if isinstance(project, dict) else None
        found += inner.items() if isinstance(inner, dict) else ()
    return found


def _entries(format: str, holder: Any) -> Iterator[Found]:
    if isinstance(holder, dict):
        holder = list(holder.items())
    for item in holder:
        name, entry = item if isinstance(item, tuple) else (_own_name(item), item)
        yield Found(str(name), entry if isinstance(entry, dict) else {})


def _own_name(entry: Any) -> str:
    """In lists the name is a field; a registry's is a path of which the end is the name."""
    name = entry.get("server_label") or entry.get("name") if isinstance(entry, dict) else None
    return str(name or "remote").rpartition("/")[2]
