"""One entry of `mcpServers` as a `RemoteSpec`: what depends on several fields, on the environment or on the file's folder.

An entry that is wrong in itself is an error. One that is only wrong with today's environment (a variable that is unset, a URL
that a variable makes unusable) is a warning and marks that remote alone as misconfigured: it must not stop the others.

Pure: environment and file reading come in with the expander.
"""

import os.path
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from remotes.config.addresses import Reach, url_fault
from remotes.config.document import Finding, Path
from remotes.config.interpolate import Expander, bare_variable
from remotes.config.schema import NAME_MAX, NAME_PATTERN, Auth, RemoteEntry
from remotes.config.snapshot import (
    CONNECT_TIMEOUT_S,
    LIST_TIMEOUT_S,
    PROBE_INTERVAL_S,
    TIMEOUT_S,
    AuthSpec,
    BreakerSpec,
    Missing,
    RemoteSpec,
    Transport,
)

# From here on a whole number of thousands is more likely meant as milliseconds.
MILLISECONDS_FROM = 1000
_SECONDS = ("timeout", "connect_timeout", "list_timeout")
_STDIO_ONLY = ("args", "env", "cwd")
_HTTP_ONLY = ("headers", "auth")
_AUTH_VALUES = ("client_id", "client_secret", "refresh_token", "scope", "resource")
_AUTH_URLS = ("token_url", "client_metadata_url")
_TYPES: dict[str, Transport] = {
    "stdio": "stdio", "sse": "sse", "http": "http",
    "streamable-http": "http", "streamable_http": "http", "streamableHttp": "http",
}  # fmt: skip
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# The transport writes these itself; a second one would be two messages in one.
_RESERVED_HEADERS = frozenset(
    {
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "accept",
    }
    | {"keep-alive", "mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id"}
)
_TOOL_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Context:
    expander: Expander
    folder: str
    home: str
    reach: Reach


@dataclass(frozen=True, slots=True)
class Built:
    spec: RemoteSpec | None
    errors: list[Finding]
    warnings: list[Finding]


def slug(name: str) -> str:
    """The nearest name that is allowed."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9_]+", "-", re.sub(r"_{2,}", "_", plain)).strip("-_")
    return re.sub(r"[-_]{2,}", "-", words)[:NAME_MAX].strip("-_") or "remote"


def name_fault(name: str) -> Finding | None:
    """Names become part of every tool's name, and `__` is what separates the two."""
    if re.fullmatch(NAME_PATTERN, name) and len(name) <= NAME_MAX and not name.endswith("\n"):
        return None
    message = f"a remote's name has up to {NAME_MAX} characters: a-z and 0-9, with single - or _ between them"
    return Finding(("mcpServers", name), "bad_name", message, f"write `{slug(name)}`", on_key=True)


def build(name: str, entry: RemoteEntry, context: Context) -> Built:
    """Everything wrong with the entry at once; a spec only if nothing is."""
    work = _Entry(name, entry, context)
    transport = work.transport()
    if transport == "stdio":
        work.check_stdio()
    elif transport is not None:
        work.check_http(transport)
    work.check_switches()
    work.check_seconds()
    work.check_tools()
    if work.errors or transport is None:
        return Built(None, work.errors, work.warnings)
    return Built(work.spec(transport), [], work.warnings)


@dataclass(slots=True)
class _Entry:
    name: str
    entry: RemoteEntry
    context: Context
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    auth: AuthSpec | None = None

    def _error(self, where: Path, code: str, message: str, hint: str = "", *, on_key: bool = False) -> None:
        self.errors.append(Finding(("mcpServers", self.name, *where), code, message, hint, on_key=on_key))

    def _warn(self, where: Path, code: str, message: str, hint: str = "") -> None:
        self.warnings.append(Finding(("mcpServers", self.name, *where), code, message, hint))

    # What it is.

    def transport(self) -> Transport | None:
        """stdio, http or sse, or None with the reason among the errors."""
        entry = self.entry
        declared = _TYPES[entry.type] if entry.type else None
        if entry.command is not None and entry.url is not None:
            self._error(("url",), "contradiction", "an entry has either `command` or `url`", "remove one", on_key=True)
            return None
        wanted = "command" if declared == "stdio" else "url" if declared else None
        given = "command" if entry.command is not None else "url" if entry.url is not None else None
        if given is None:
            what = f"`{wanted}`" if wanted else "`command` (a program to start) or `url` (a server that runs)"
            self._error((), "missing_field", f"{what} is required", on_key=True)
            return None
        if wanted and wanted != given:
            self._error(
                ("type",), "contradiction", f"type {entry.type} needs `{wanted}`", f"remove `type` or `{given}`"
            )
            return None
        return self._checked_era(declared or ("stdio" if given == "command" else None))

    def _checked_era(self, declared: Transport | None) -> Transport:
        era = self.entry.era or "auto"
        if declared is None:
            return "sse" if era == "2024-11-05" else "http"
        is_old = era == "2024-11-05"
        if (declared == "http" and is_old) or (declared == "sse" and era != "auto" and not is_old):
            hint = "over HTTP, 2024-11-05 is `type: sse` and every later revision `type: http`"
            self._error(("era",), "contradiction", f"type {self.entry.type} does not speak {era}", hint)
        return declared

    def _refuse_foreign(self, fields: tuple[str, ...], other: str) -> None:
        for name in fields:
            # Some programs write an empty `env: {}` into every entry.
            if getattr(self.entry, name):
                message = f"`{name}` means nothing for an entry with `{other}`"
                self._error((name,), "contradiction", message, "remove it", on_key=True)

    # Values with variables in them.

    def _expand(self, where: Path, text: str) -> tuple[str, tuple[str, ...]]:
        """The text to use and the variables it came from; missing ones and faults are noted."""
        expanded = self.context.expander.expand(text)
        for fault in expanded.faults:
            hint = "known are ${VAR}, ${VAR:-default}, ${env:VAR}, ${file:/path}; write $${ for a literal ${"
            self._error(where, "interpolation", fault, hint)
        for source in dict.fromkeys(expanded.missing):
            self.missing.append(Missing(source, _label(where)))
            if self.entry.enabled is not False and not self.entry.disabled:
                is_file = source.startswith("file:")
                what = "cannot be read or is empty" if is_file else "is unset or empty"
                hint = "set it where the gateway starts (or in .env), or give a default: ${NAME:-default}"
                hint = "let the gateway's user read it, then: mcpconfig reload" if is_file else hint
                self._warn(where, "missing_variable", f"{source} {what}: {self.name} is misconfigured", hint)
        return expanded.text, expanded.sources

    def _refuse(self, where: Path, code: str, message: str, hint: str, sources: tuple[str, ...]) -> None:
        """An error if the file says it, a misconfigured remote if a variable does."""
        if not sources:
            self._error(where, code, message, hint)
        elif not any(missing.field == _label(where) for missing in self.missing):
            self.missing.append(Missing(sources[0], _label(where)))
            named = ", ".join(sources)
            self._warn(
                where, "unusable_variable", f"with {named} filled in, {message}: {self.name} is misconfigured", hint
            )

    def _warn_bare(self, where: Path, text: str) -> None:
        if variable := bare_variable(text):
            message = f"${variable} without braces is passed on as it stands"
            self._warn(where, "bare_variable", message, f"write ${{{variable}}} to fill it in")

    # stdio

    def check_stdio(self) -> None:
        entry = self.entry
        self._refuse_foreign(_HTTP_ONLY, "command")
        command = entry.command or ""
        told = len(self.errors)
        self.command, sources = self._expand(("command",), command)
        is_told = len(self.errors) > told  # What is left of a text with a broken `${` says nothing more.
        if not is_told and (not self.command.strip() or "\0" in self.command):
            self._refuse(("command",), "bad_value", "the command is empty", "name a program", sources)
        elif re.search(r"\s", command.strip()) and not entry.args and "/" not in command.split()[-1]:
            hint = "put the program in `command` and each argument in `args`: no shell takes it apart"
            self._warn(("command",), "command_line", "this looks like a whole command line", hint)
        if "/" in self.command or self.command.startswith("~"):
            self.command = self._from_folder(self.command)
        self.args = tuple(self._value(("args", index), text) for index, text in enumerate(entry.args or ()))
        cwd = self._value(("cwd",), entry.cwd) if entry.cwd is not None else "."
        self.cwd = self._from_folder(cwd or ".")
        self.env = MappingProxyType({name: self._env(name, text) for name, text in (entry.env or {}).items()})

    def _value(self, where: Path, text: str) -> str:
        value, sources = self._expand(where, text)
        if "\0" in value:
            self._refuse(where, "bad_value", "it holds a NUL character", "", sources)
        return value

    def _env(self, name: str, text: str) -> str:
        if not name or "=" in name or "\0" in name:
            self._error(("env", name), "bad_name", "this cannot be the name of a variable", on_key=True)
        self._warn_bare(("env", name), text)
        return self._value(("env", name), text)

    def _from_folder(self, path: str) -> str:
        """A relative path counts from the configuration's folder, wherever the gateway was started."""
        if self.context.home and (path == "~" or path.startswith("~/")):
            path = self.context.home + path[1:]
        return os.path.normpath(os.path.join(self.context.folder, path))

    # http, sse

    def check_http(self, transport: Transport) -> None:
        self._refuse_foreign(_STDIO_ONLY, "url")
        self.url = self._url(("url",), self.entry.url or "")
        seen: dict[str, str] = {}
        headers: dict[str, str] = {}
        for name, text in (self.entry.headers or {}).items():
            self._check_header_name(name, seen)
            headers[name] = self._header(name, text)
        self.headers = MappingProxyType(headers)
        if self.entry.auth is not None:
            self._check_auth(seen)

    def _url(self, where: Path, text: str) -> str:
        self._warn_bare(where, text)
        url, sources = self._expand(where, text)
        if fault := url_fault(url, self.context.reach):
            self._refuse(where, fault.code, fault.message, fault.hint, sources)
        return url

    def _check_header_name(self, name: str, seen: dict[str, str]) -> None:
        where: Path = ("headers", name)
        lowered = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            self._error(where, "bad_header", "this cannot be the name of a header", on_key=True)
        elif lowered in _RESERVED_HEADERS:
            self._error(where, "reserved_header", "the gateway sets this header itself", "remove it", on_key=True)
        elif lowered in seen:
            self._error(where, "duplicate_key", f"the same header as `{seen[lowered]}`", "keep one", on_key=True)
        seen[lowered] = name

    def _header(self, name: str, text: str) -> str:
        where: Path = ("headers", name)
        self._warn_bare(where, text)
        value, sources = self._expand(where, text)
        if re.search(r"[^\t\x20-\x7e\x80-\xff]", value):
            self._refuse(where, "bad_header", "it holds line ends or characters that no header can carry", "", sources)
        return value.strip()

    def _check_auth(self, headers: dict[str, str]) -> None:
        auth = self.entry.auth
        if auth is None:
            return
        if "authorization" in headers:
            message = "`auth` and an Authorization header exclude each other"
            self._error(("auth",), "contradiction", message, "remove one", on_key=True)
        self._check_auth_fields(auth)
        values = {name: self._value(("auth", name), getattr(auth, name) or "") for name in _AUTH_VALUES}
        urls = {name: self._url(("auth", name), text) for name in _AUTH_URLS if (text := getattr(auth, name))}
        self.auth = AuthSpec(**values, **urls)

    def _check_auth_fields(self, auth: Auth) -> None:
        """Two ways that do not mix: a token URL with what it takes, or a login that finds everything out."""
        if auth.token_url is None:
            if auth.refresh_token is not None:
                self._error(("auth",), "missing_field", "`token_url` is required with a `refresh_token`", on_key=True)
            url = auth.client_metadata_url
            if url is not None and not url.startswith(("https://", "$")):
                self._error(("auth", "client_metadata_url"), "bad_url", "it must be https, and lie under a path")
            return
        if auth.type == "oauth" or auth.client_metadata_url is not None:
            message = "with a `token_url` nothing is found out by a login"
            self._error(("auth", "token_url"), "contradiction", message, "remove it, or `type: oauth`", on_key=True)
        if auth.client_id is None:
            self._error(("auth",), "missing_field", "`client_id` is required with a `token_url`", on_key=True)
        if auth.client_secret is None and auth.refresh_token is None:
            self._error(("auth",), "missing_field", "`refresh_token` or `client_secret` is required", on_key=True)

    # Both.

    def check_switches(self) -> None:
        entry = self.entry
        if entry.enabled is not None and entry.disabled is not None and entry.enabled == entry.disabled:
            self._error(
                ("disabled",), "contradiction", "`enabled` and `disabled` say opposite things", "keep `enabled`"
            )

    def check_seconds(self) -> None:
        for name in _SECONDS:
            value = getattr(self.entry, name)
            if value is not None and value >= MILLISECONDS_FROM and value % MILLISECONDS_FROM == 0:
                hint = f"for {value:g} milliseconds write {value / 1000:g}"
                self._warn((name,), "milliseconds", f"{value:g} seconds are {value / 60:.0f} minutes", hint)

    def check_tools(self) -> None:
        entry, tools = self.entry, self.entry.tools
        for short, long in (("enabled_tools", "enabled"), ("disabled_tools", "disabled")):
            if getattr(entry, short) is not None and tools is not None and getattr(tools, long):
                self._error(
                    (short,), "contradiction", f"`{short}` and `tools.{long}` are the same", "keep one", on_key=True
                )
        enabled, disabled = self._tool_lists()
        for tool in sorted(set(enabled or ()) & set(disabled)):
            self._warn(("tools",), "contradiction", f"the tool {tool} is both enabled and disabled: it is disabled")
        for tool, alias in (tools.alias if tools else {}).items():
            if not _TOOL_ALIAS.fullmatch(alias):
                self._error(
                    ("tools", "alias", tool), "bad_name", "an alias has 1 to 128 of the characters a-z A-Z 0-9 _ -"
                )

    def _tool_lists(self) -> tuple[list[str] | None, list[str]]:
        tools = self.entry.tools
        enabled = tools.enabled if tools and tools.enabled is not None else self.entry.enabled_tools
        disabled = (tools.disabled if tools else []) or self.entry.disabled_tools or []
        return enabled, disabled

    def spec(self, transport: Transport) -> RemoteSpec:
        entry, tools = self.entry, self.entry.tools
        enabled, disabled = self._tool_lists()
        return RemoteSpec(
            name=self.name,
            transport=transport,
            era=entry.era or "auto",
            enabled=entry.enabled if entry.enabled is not None else not entry.disabled,
            command=self.command, args=self.args, env=self.env, cwd=self.cwd,
            url=self.url, headers=self.headers, auth=self.auth, reach=self.context.reach,
            timeout_s=entry.timeout or TIMEOUT_S,
            connect_timeout_s=entry.connect_timeout or CONNECT_TIMEOUT_S,
            list_timeout_s=entry.list_timeout or LIST_TIMEOUT_S,
            probe_interval_s=entry.probe_interval or PROBE_INTERVAL_S,
            keep_cut_answers_s=entry.keep_cut_answers or 0.0,
            isolation=entry.isolation or "auto",
            tools_enabled=None if enabled is None else tuple(enabled),
            tools_disabled=tuple(disabled),
            aliases=MappingProxyType(dict(tools.alias) if tools else {}),
            pin=(tools.pin if tools else None) or "warn",
            breaker=self._breaker(),
            retry_idempotent=bool(entry.retry_idempotent),
            missing=tuple(dict.fromkeys(self.missing)),
        )  # fmt: skip

    def _breaker(self) -> BreakerSpec:
        breaker = self.entry.breaker
        if breaker is None:
            return BreakerSpec()
        return BreakerSpec(breaker.enabled, breaker.failures, breaker.window, breaker.open)


def _label(where: Path) -> str:
    """`env.TOKEN`, `args[1]`: how a field is named to people."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")
