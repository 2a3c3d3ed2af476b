"""What each client calls the fields of a server: the table that an export is written by.

Pure.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from remotes.config import rendering
from remotes.config.exchange import toml


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one client writes it. `seconds`: its field for a call's timeout, and how many of its units a second has."""

    holder: tuple[str, ...]
    url: str = "url"
    http_type: str | None = "http"
    sse_type: str | None = "sse"
    stdio_type: str | None = None
    type_field: str = "type"
    headers: str = "headers"
    env: str = "env"
    command: str = "command"
    cwd: str | None = None
    off: tuple[str, bool] | None = None
    enabled_tools: str | None = None
    disabled_tools: str | None = None
    timeout: tuple[str, int] | None = None
    variable: str | None = "${{{0}}}"
    has_stdio: bool = True
    has_urls: bool = True
    render: Callable[[Any], str] = lambda document: json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _yaml(document: Any) -> str:
    lines = [line for key, value in document.items() for line in rendering.entry(key, value, margin="", step="  ")]
    return "\n".join(lines) + "\n"


DIALECTS: Mapping[str, Dialect] = {
    "mcpServers": Dialect(("mcpServers",)),
    "claude-code": Dialect(("mcpServers",)),
    "claude-desktop": Dialect(("mcpServers",), http_type=None, variable=None, has_urls=False),
    "copilot": Dialect(("mcpServers",)),
    "cursor": Dialect(("mcpServers",), http_type=None, sse_type=None, variable="${{env:{0}}}"),
    "vscode": Dialect(("servers",), stdio_type="stdio", cwd="cwd", variable="${{env:{0}}}"),
    "windsurf": Dialect(
        ("mcpServers",), url="serverUrl", http_type=None, sse_type=None, off=("disabled", True), variable="${{env:{0}}}"
    ),
    "cline": Dialect(
        ("mcpServers",), http_type="streamableHttp", off=("disabled", True), timeout=("timeout", 1), variable=None
    ),
    "gemini": Dialect(
        ("mcpServers",), url="httpUrl", http_type=None, sse_type=None, cwd="cwd", enabled_tools="includeTools",
        disabled_tools="excludeTools", timeout=("timeout", 1000),
    ),
    "librechat": Dialect(
        ("mcpServers",), http_type="streamable-http", stdio_type="stdio", timeout=("timeout", 1000), render=_yaml
    ),
    "langchain": Dialect((), stdio_type="stdio", type_field="transport", cwd="cwd", variable=None),
    "codex": Dialect(
        ("mcp_servers",), http_type=None, sse_type=None, headers="http_headers", cwd="cwd", off=("enabled", False),
        enabled_tools="enabled_tools", disabled_tools="disabled_tools", timeout=("tool_timeout_sec", 1), variable=None,
        render=toml.dumps,
    ),
    "zed": Dialect(("context_servers",), http_type=None, sse_type=None, variable=None),
    "goose": Dialect(
        ("extensions",), url="uri", http_type="streamable_http", stdio_type="stdio", command="cmd", env="envs",
        off=("enabled", False), enabled_tools="available_tools", timeout=("timeout", 1), render=_yaml,
    ),
    "opencode": Dialect(
        ("mcp",), http_type="remote", sse_type="remote", stdio_type="local", env="environment", off=("enabled", False),
        variable="{{env:{0}}}",
    ),
    "openai": Dialect(("tools",), url="server_url", http_type=None, sse_type=None, has_stdio=False, variable=None,
                      enabled_tools="allowed_tools"),
    "anthropic": Dialect(("mcp_servers",), http_type="url", sse_type="url", has_stdio=False, variable=None),
}  # fmt: skip
