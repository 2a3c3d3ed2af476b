"""Our entries in the words of a client: one that leads to this gateway, or the remotes themselves.

A credential never leaves in plain text: what stands literally in the file becomes a variable of the client. What a client has
no field for is reported.

Pure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from remotes.config import view
from remotes.config.exchange.dialects import DIALECTS, Dialect
from remotes.config.exchange.variables import named

Entry = dict[str, Any]
Entries = Mapping[str, Entry]

KEY = "MCP_GATEWAY_KEY"
NAME = "gw"
# A gateway call may take 60 s at a remote; a client that gives up first never sees the answer.
PATIENCE_S = 70
# What is in them is named after itself.
_PLACES = frozenset({"headers", "env"})
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_]\w*)(:-[^{}]*)?\}")


FORMATS = tuple(DIALECTS)


@dataclass(slots=True)
class Made:
    document: Any = None
    text: str = ""
    needs_env: list[str] = field(default_factory=list)
    dropped_fields: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gateway(url: str, format: str) -> Made:
    """The one entry that leads to this gateway; the key is a variable of the client, or a place to fill in."""
    entry: Entry = {"url": url, "headers": {"Authorization": f"Bearer ${{{KEY}}}"}}
    if DIALECTS[format].timeout:
        entry["timeout"] = PATIENCE_S
    if format == "claude-desktop":  # It takes no URLs from its file: a bridge does. A space behind the colon breaks it.
        bridge = ["-y", "mcp-remote", url, "--header", "Authorization:${AUTH_HEADER}"]
        entry = {"command": "npx", "args": bridge, "env": {"AUTH_HEADER": "Bearer YOUR_KEY"}}
        made = Made(
            document={"mcpServers": {NAME: entry}}, notes=["put a key in place of YOUR_KEY: mcpkey generate NAME"]
        )
        made.text = DIALECTS[format].render(made.document)
        return made
    if format == "vscode":
        made = _made({NAME: entry}, format)
        made.document["servers"][NAME]["headers"]["Authorization"] = "Bearer ${input:mcp-key}"
        made.document["inputs"] = [
            {"type": "promptString", "id": "mcp-key", "description": "Gateway key", "password": True}
        ]
        made.text, made.needs_env = DIALECTS[format].render(made.document), []
        return made
    made = _made({NAME: entry}, format)
    made.dropped_fields = []  # The patience is ours to suggest.
    return made


def direct(entries: Entries, format: str) -> Made:
    """The remotes as they are written, with literal credentials taken out."""
    return _made({name: _without_secrets(name, entry) for name, entry in entries.items()}, format)


def _without_secrets(name: str, entry: Entry) -> Entry:
    """Whatever our own views mask becomes a variable that is named after its place."""
    whole = {"mcpServers": {name: entry}}
    shown: Any = view.written(whole)
    bared: Entry = _bared(entry, shown["mcpServers"][name], name)
    return bared


def _bared(value: Any, shown: Any, place: str) -> Any:
    match value:
        case dict():
            return {
                key: _bared(one, shown[key], place if key in _PLACES else f"{place}_{key}")
                for key, one in value.items()
            }
        case list():
            return [_bared(one, shown[index], f"{place}_{index + 1}") for index, one in enumerate(value)]
        case str() if value != shown:
            is_default = _VARIABLE.search(value)
            return _VARIABLE.sub(r"${\1}", value) if is_default else f"${{{named(place)}}}"
        case _:
            return value


def _made(entries: Entries, format: str) -> Made:
    dialect = DIALECTS[format]
    made = Made()
    told: dict[str, Any] = {}
    for name, entry in entries.items():
        work = _Telling(name, entry, format, dialect, made)
        shown = work.entry()
        if shown is not None:
            told[name] = shown
    document: Any = _listed(told, format) if format in ("openai", "anthropic") else told
    for key in reversed(dialect.holder):
        document = {key: document}
    made.document, made.text = document, dialect.render(document)
    return made


def _listed(told: Mapping[str, Entry], format: str) -> list[Entry]:
    if format == "openai":
        return [{"type": "mcp", "server_label": name, **entry} for name, entry in told.items()]
    return [{"name": name, **entry} for name, entry in told.items()]


@dataclass(slots=True)
class _Telling:
    name: str
    source: Entry
    format: str
    dialect: Dialect
    made: Made
    told: Entry = field(default_factory=dict)

    def entry(self) -> Entry | None:
        is_stdio = "command" in self.source
        if not (self.dialect.has_stdio if is_stdio else self.dialect.has_urls):
            what = "programs to start" if is_stdio else "URLs"
            self.drop("command" if is_stdio else "url", f"{self.format} takes no {what} from there")
            return None
        if is_stdio:
            self.stdio()
        else:
            self.http()
        self.rest()
        return self.told

    def drop(self, name: str, reason: str) -> None:
        self.made.dropped_fields.append({"name": self.name, "field": name, "reason": reason})

    def stdio(self) -> None:
        dialect, source = self.dialect, self.source
        if dialect.stdio_type:
            self.told[dialect.type_field] = dialect.stdio_type
        words = [self.text("args", word) for word in [source["command"], *source.get("args", [])]]
        if self.format == "opencode":
            self.told["command"] = words
        else:
            self.told |= {dialect.command: words[0]} | ({"args": words[1:]} if words[1:] else {})
        env = source.get("env") or {}
        if self.format in ("codex", "goose"):
            handed_on = [key for key, value in env.items() if value == f"${{{key}}}"]
            if handed_on:
                self.told["env_vars" if self.format == "codex" else "env_keys"] = handed_on
            self.need(handed_on)
            env = {key: value for key, value in env.items() if key not in handed_on}
        if env:
            self.told[dialect.env] = {key: self.text(f"env.{key}", value) for key, value in env.items()}
        if "cwd" in source:
            if dialect.cwd:
                self.told[dialect.cwd] = source["cwd"]
            else:
                self.drop("cwd", f"{self.format} has no field for it")

    def http(self) -> None:
        dialect, source = self.dialect, self.source
        is_sse = source.get("type") == "sse"
        if is_sse and self.format == "codex":
            self.drop("type", "codex speaks Streamable HTTP alone")
        kind = dialect.sse_type if is_sse else dialect.http_type
        if kind:
            self.told[dialect.type_field] = kind
        self.told["url" if self.format == "gemini" and is_sse else dialect.url] = self.text("url", source["url"])
        headers = dict(source.get("headers") or {})
        if self.format == "codex":
            self.codex_headers(headers)
        elif self.format in ("openai", "anthropic"):
            self.authorization(headers)
        if headers and self.format == "anthropic":
            self.drop("headers", "anthropic takes an authorization token alone")
        elif headers:
            self.told[dialect.headers] = {key: self.text(f"headers.{key}", value) for key, value in headers.items()}
        if self.format == "goose" and (used := [name for value in headers.values() for name in _names(value)]):
            self.told["env_keys"] = used
        if "auth" in source:
            self.drop("auth", "its tokens stay with the gateway")

    def codex_headers(self, headers: Entry) -> None:
        """There, variables have fields of their own."""
        bearer = re.fullmatch(r"Bearer \$\{(\w+)\}", str(headers.get("Authorization", "")))
        if bearer:
            del headers["Authorization"]
            self.told["bearer_token_env_var"] = bearer[1]
            self.need([bearer[1]])
        for key in list(headers):
            if found := re.fullmatch(r"\$\{(\w+)\}", str(headers[key])):
                self.told.setdefault("env_http_headers", {})[key] = found[1]
                self.need([found[1]])
                del headers[key]

    def authorization(self, headers: Entry) -> None:
        value = str(headers.get("Authorization", ""))
        if value.startswith("Bearer "):
            del headers["Authorization"]
            name = "authorization" if self.format == "openai" else "authorization_token"
            self.told[name] = self.text("headers.Authorization", value.removeprefix("Bearer "))

    def rest(self) -> None:
        dialect, source, tools = self.dialect, self.source, self.source.get("tools") or {}
        is_off = source.get("enabled") is False or source.get("disabled") is True
        if self.format in ("goose", "opencode"):
            self.told["enabled"] = not is_off
        elif is_off and dialect.off:
            self.told[dialect.off[0]] = dialect.off[1]
        elif is_off:
            self.drop("enabled", f"{self.format} has no switch: take the entry out")
        for ours, theirs in (("enabled", dialect.enabled_tools), ("disabled", dialect.disabled_tools)):
            names = tools.get(ours) or source.get(f"{ours}_tools")
            if names and theirs:
                self.told[theirs] = list(names)
            elif names:
                self.drop(f"tools.{ours}", f"{self.format} has no field for it")
        if "timeout" in source and dialect.timeout:
            amount = source["timeout"] * dialect.timeout[1]
            self.told[dialect.timeout[0]] = int(amount) if float(amount).is_integer() else amount
        if self.format == "codex" and "connect_timeout" in source:
            self.told["startup_timeout_sec"] = source["connect_timeout"]
        known = {"connect_timeout"} if self.format == "codex" else set()
        known |= {"timeout"} if dialect.timeout else set()
        for name in (
            "timeout",
            "connect_timeout",
            "list_timeout",
            "probe_interval",
            "era",
            "isolation",
            "breaker",
            "retry_idempotent",
        ):
            if name in source and name not in known:
                self.drop(name, f"{self.format} has no field for it")
        for name in ("alias", "pin"):
            if tools.get(name):
                self.drop(f"tools.{name}", "it is the gateway's")

    def text(self, place: str, value: Any) -> str:
        """With variables in the client's own way; where it knows none, a place to fill in."""

        def replaced(found: re.Match[str]) -> str:
            name, default = found[1], found[2]
            self.need([name])
            if self.dialect.variable is None:
                self.made.notes.append(f"{self.name}.{place}: put the value of {name} in place of YOUR_{name}")
                return f"YOUR_{name}"
            if default and self.format not in ("mcpServers", "claude-code"):
                self.drop(place, f"{self.format} knows no default for a variable")
            elif default:
                return found[0]
            return self.dialect.variable.format(name)

        return _VARIABLE.sub(replaced, str(value)).replace("$${", "${")

    def need(self, names: list[str]) -> None:
        self.made.needs_env += [name for name in names if name not in self.made.needs_env]


def _names(value: Any) -> list[str]:
    return [found[1] for found in _VARIABLE.finditer(str(value))]
