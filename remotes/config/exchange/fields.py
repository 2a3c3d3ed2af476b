"""One server of another program as an entry of ours: each of its fields has a place here, or is reported with the reason why
it is left out.

Pure.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from remotes.config.exchange import packages, variables
from remotes.config.schema import SECONDS_MAX, nearest_of

Entry = dict[str, Any]

_TYPES = {
    "stdio": "stdio", "local": "stdio", "http": "http", "streamable-http": "http", "streamable_http": "http",
    "streamableHttp": "http", "streamablehttp": "http", "sse": "sse", "remote": None, "url": None, "mcp": None, "server": None,
}  # fmt: skip
_APPROVAL = "approving calls is the client's business"
_LOGIN = "write `auth` with a token, or: mcp remote login NAME"
_REASONS = {
    "autoApprove": _APPROVAL, "alwaysAllow": _APPROVAL, "trust": _APPROVAL, "require_approval": _APPROVAL,
    "default_tools_approval_mode": _APPROVAL,
    "envFile": "set its variables where the gateway starts", "headersHelper": "nothing is ever run: write `headers`",
    "oauth": _LOGIN, "oauth_resource": _LOGIN, "scopes": _LOGIN, "requiresOAuth": _LOGIN, "authProviderType": _LOGIN,
    "bearer_token": "a token does not belong into that file: write `headers`", **dict.fromkeys(
        ("description", "server_description", "iconPath", "chatMenu", "serverInstructions", "proxy", "settings"),
        "there is no field for it",
    ),
    "dev": "it is for developing a server", "sandboxEnabled": "there is no sandbox here", "sandbox": "there is no sandbox here",
    "customUserVars": "each person's own values cannot be kept here",
}  # fmt: skip
# Whose `timeout` is in milliseconds, and where people write either: nobody means a thousand seconds.
_MILLISECONDS = frozenset({"gemini", "librechat"})
_EITHER = frozenset(
    {"mcpServers", "claude-desktop", "claude-code", "cursor", "copilot", "windsurf", "vscode", "opencode"}
)
_SILENT = frozenset({"name", "display_name", "bundled", "source", "server_label", "$schema", "title", "icon"})


@dataclass(slots=True)
class Converted:
    """`refused`: why it cannot be one of ours at all."""

    entry: Entry = field(default_factory=dict)
    dropped: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: str = ""

    def drop(self, name: str, reason: str) -> None:
        self.dropped.append({"field": name, "reason": reason})


def convert(entry: Mapping[str, Any], format: str) -> Converted:
    """The entry in our words, variables included."""
    done = Converted()
    raw = dict(entry)
    if format == "docker":
        packages.unfold_image(raw)
    elif format == "registry":
        packages.unfold_package(raw, done)
    if format == "gemini" and "url" in raw and "httpUrl" not in raw and "type" not in raw:
        raw["type"] = "sse"  # There, `url` means HTTP+SSE and `httpUrl` Streamable HTTP.
    work = _Work(raw, format, done)
    for name in list(raw):
        work.take(name)
    order = (
        "type",
        "command",
        "args",
        "env",
        "cwd",
        "url",
        "headers",
        "enabled",
        "timeout",
        "connect_timeout",
        "tools",
    )
    done.entry = {name: done.entry[name] for name in order if name in done.entry}
    _finish(done)
    return done


@dataclass(slots=True)
class _Work:
    raw: Entry
    format: str
    done: Converted

    def take(self, name: str) -> None:
        value = self.raw[name]
        if value is None or name in _SILENT:
            return
        if name == "headers" and self.format == "codex":
            self.done.drop(name, "Codex takes no notice of it: there, it is `http_headers`")
            return
        if taker := _FIELDS.get(name):
            if not taker(self, name, value):
                self.done.drop(name, "its value cannot be used here")
        elif name in _REASONS:
            self.done.drop(name, _REASONS[name])
        else:
            meant = nearest_of(name, list(_FIELDS))
            self.done.drop(name, "it is not known here" + (f"; was `{meant}` meant?" if meant else ""))

    def put(self, name: str, value: Any) -> bool:
        self.done.entry[name] = variables.rewritten(value, self.format)
        return True

    def merge(self, name: str, values: Mapping[str, Any]) -> bool:
        """Into a mapping that several fields give to; these values are written our way already."""
        self.done.entry.setdefault(name, {}).update(values)
        return True

    # What takes a field says whether it could.

    def command(self, name: str, value: Any) -> bool:
        match value:
            case str():
                return self.put("command", value)
            case [str(program), *rest]:
                self.put("command", program)
                return self.put("args", [*map(_text, rest), *self.done.entry.get("args", [])])
            case {"path": str(program)}:  # Zed, before it was flat.
                self.put("command", program)
                for inner in ("args", "env"):
                    if inner in value:
                        _FIELDS[inner](self, inner, value[inner])
                return True
            case _:
                return False

    def args(self, name: str, value: Any) -> bool:
        if not isinstance(value, list):
            return False
        return self.put("args", [*self.done.entry.get("args", []), *map(_text, value)])

    def words(self, name: str, value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        ours = "headers" if "header" in name else "env"
        given = {str(key): _text(one) for key, one in value.items() if one is not None}
        return self.merge(ours, variables.rewritten(given, self.format))

    def inherited(self, name: str, value: Any) -> bool:
        """Names of variables that are handed on (Codex, goose)."""
        names = (
            [one.get("name") if isinstance(one, dict) else one for one in value] if isinstance(value, list) else None
        )
        if names is None or not all(isinstance(one, str) for one in names):
            return False
        if self._is_command():
            return self.merge("env", {str(one): f"${{{one}}}" for one in names})
        headers = str(self.raw.get("headers", ""))
        unused = [str(one) for one in names if str(one) not in headers]
        if unused:
            self.done.drop(name, f"no header uses {', '.join(unused)}")
        return True

    def header_variables(self, name: str, value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        return self.merge("headers", {str(header): f"${{{variable}}}" for header, variable in value.items()})

    def bearer(self, name: str, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        token = f"${{{value}}}" if name == "bearer_token_env_var" else variables.rewritten(value, self.format)
        return self.merge("headers", {"Authorization": f"Bearer {token}"})

    def url(self, name: str, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        if not re.match(r"https?://|.*\$?\{", value):
            self.done.refused = f"it is reached at {value.partition(':')[0][:20]}:, which is not HTTP"
        if name == "sseEndpoint":
            self.done.entry["type"] = "sse"
        return self.put("url", value)

    def type(self, name: str, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        if value not in _TYPES:
            self.done.refused = f"its type {value[:40]} is not one that a gateway can call"
        elif _TYPES[value] == "sse" or (_TYPES[value] and "url" not in self.raw and "uri" not in self.raw):
            self.done.entry.setdefault("type", _TYPES[value])
        return True

    def switch(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            return False
        if value is (name == "disabled"):
            self.done.entry["enabled"] = False
        return True

    def text(self, name: str, value: Any) -> bool:
        return isinstance(value, str) and self.put(name, value)

    def tool_list(self, name: str, value: Any) -> bool:
        if isinstance(value, dict):  # OpenAI's filter with names in it.
            value = value.get("tool_names")
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            return False
        is_disabled = name in ("excludeTools", "disabled_tools", "disabledTools")
        if value or not is_disabled:
            if name == "available_tools" and not value:
                return True  # goose writes an empty list for "all".
            return self.merge("tools", {"disabled" if is_disabled else "enabled": value})
        return True

    def tool_configuration(self, name: str, value: Any) -> bool:
        allowed = value.get("allowed_tools") if isinstance(value, dict) else None
        return isinstance(allowed, list) and self.tool_list("allowed_tools", allowed)

    def approvals(self, name: str, value: Any) -> bool:
        """Codex's `tools.NAME.approval_mode`; Docker's list of what there is."""
        if isinstance(value, dict) and self.format not in ("codex", "docker") and {"enabled", "disabled"} & set(value):
            return self.merge("tools", value)
        self.done.drop(name, _APPROVAL if isinstance(value, dict) else "it lists what there is; the remote is asked")
        return True

    def seconds(self, name: str, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            return False
        ours = "connect_timeout" if name.startswith("startup") else "timeout"
        is_milliseconds = name.endswith("_ms") or (
            name == "timeout" and (self.format in _MILLISECONDS or (self.format in _EITHER and value >= 1000))
        )
        seconds = value / 1000 if is_milliseconds else value
        if is_milliseconds:
            self.done.notes.append(f"{name}: {value:.15g} milliseconds are {seconds:g} seconds")
        if seconds > SECONDS_MAX:
            self.done.notes.append(f"{name}: {seconds:g} seconds are more than a call may take; it is {SECONDS_MAX}")
            seconds = SECONDS_MAX
        self.done.entry[ours] = int(seconds) if float(seconds).is_integer() else seconds
        return True

    def _is_command(self) -> bool:
        return any(name in self.raw for name in ("command", "cmd"))


Taker = Callable[[_Work, str, Any], bool]
_FIELDS: dict[str, Taker] = {
    **dict.fromkeys(("command", "cmd"), _Work.command), "args": _Work.args,
    **dict.fromkeys(("env", "envs", "environment", "headers", "http_headers"), _Work.words),
    **dict.fromkeys(("env_vars", "env_keys"), _Work.inherited), "env_http_headers": _Work.header_variables,
    **dict.fromkeys(("bearer_token_env_var", "authorization_token", "authorization"), _Work.bearer),
    **dict.fromkeys(("url", "serverUrl", "httpUrl", "uri", "server_url", "sseEndpoint"), _Work.url),
    **dict.fromkeys(("type", "transport", "transportType"), _Work.type),
    **dict.fromkeys(("enabled", "disabled", "isActive"), _Work.switch), "cwd": _Work.text,
    **dict.fromkeys(
        ("includeTools", "enabled_tools", "enabledTools", "available_tools", "allowed_tools", "allowedTools",
         "excludeTools", "disabled_tools", "disabledTools"), _Work.tool_list,
    ),
    "tool_configuration": _Work.tool_configuration, "tools": _Work.approvals,
    **dict.fromkeys(("timeout", "startup_timeout_sec", "startup_timeout_ms", "tool_timeout_sec"), _Work.seconds),
}  # fmt: skip


def _finish(done: Converted) -> None:
    entry = done.entry
    if entry.get("type") == "stdio" and "command" in entry:
        del entry["type"]
    for name in ("args", "env", "cwd") if "url" in entry else ("headers",):
        if entry.pop(name, None):
            done.drop(name, "it means nothing for a server with a URL" if "url" in entry else "it needs a URL")
    for name in ("args", "env", "headers"):
        if not entry.get(name, True):
            del entry[name]
    if not done.refused and "command" not in entry and "url" not in entry:
        done.refused = "it names neither a command nor a URL"
    if "command" in entry and "url" in entry:
        done.refused = "it names both a command and a URL"


def _text(value: Any) -> str:
    """`8080` and `true` as arguments or variables are what was written."""
    return (
        value if isinstance(value, str) else ("true" if value else "false") if isinstance(value, bool) else str(value)
    )
