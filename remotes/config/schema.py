"""The shape of `mcp-config.yaml`: which fields there are, of which type, within which bounds.

An entry of `mcpServers` is a superset of what people already have for Claude, Cursor and the like, so that a pasted entry is
valid. Unknown keys are refused with the nearest right one: a misspelt `headers` that is ignored is an outage later. The same
models give the JSON Schema that editors use. What depends on several fields at once is judged in `remotes.config.entries`.

Pure.
"""

import difflib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from remotes.config.document import Finding, Path

NAME_PATTERN = r"^[a-z0-9]+([_-][a-z0-9]+)*$"
NAME_MAX = 24
# Above this, a number of seconds is taken for milliseconds and refused.
SECONDS_MAX = 3600


def is_text(path: Path) -> bool:
    """Places where `PORT: 8080` means the text that is written."""
    match path:
        case ("mcpServers", _, "env" | "headers", _) | ("mcpServers", _, "args", int()):
            return True
        case _:
            return False


def _boolean(value: object) -> object:
    """`yes` and `off` are text in YAML 1.2 and booleans in 1.1; as a switch they can only mean one thing."""
    words = {"yes": True, "on": True, "no": False, "off": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def _private_networks(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, list) and all(isinstance(entry, str) for entry in value)):
        return value
    message = "must be true, false or a list of networks (10.0.0.0/8) and host names"
    raise PydanticCustomError("wrong_type", message)


def _empty_map(value: object) -> object:
    """`mcpServers:` with every entry commented out is a gateway without remotes."""
    return {} if value is None else value


_TEXT_SCHEMA = {"type": ["string", "number", "boolean"]}
Switch = Annotated[bool, BeforeValidator(_boolean), WithJsonSchema({"type": "boolean"})]
Seconds = Annotated[float, Field(gt=0, le=SECONDS_MAX)]
Words = dict[str, Annotated[str, WithJsonSchema(_TEXT_SCHEMA)]]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, populate_by_name=False)


class Tools(Section):
    enabled: Annotated[
        list[str] | None, Field(description="Only these tools are offered (the remote's own names).")
    ] = None
    disabled: Annotated[list[str], Field(description="These tools are not offered (the remote's own names).")] = []
    alias: Annotated[
        dict[str, str], Field(description="Other names: the remote's own name, then the name after NAME__.")
    ] = {}
    pin: Annotated[
        Literal["warn", "hold", "off"] | None,
        Field(
            description="What happens when a tool's description changes: report it, withhold it until approved, nothing."
        ),
    ] = None


class Breaker(Section):
    enabled: Annotated[Switch, Field(description="false: calls go through however many fail.")] = True
    failures: Annotated[int | None, Field(ge=1, le=1000, description="Failed calls in the window that open it.")] = None
    window: Annotated[Seconds | None, Field(description="Seconds that are looked at.")] = None
    open: Annotated[Seconds | None, Field(description="Seconds before the first new try.")] = None


class Auth(Section):
    """With `token_url`: a refresh token, or client credentials. Without: what `mcp remote login NAME` is to use."""

    type: Annotated[
        Literal["oauth"] | None,
        Field(description="oauth: `mcp remote login NAME` gets the token. Found out if absent."),
    ] = None
    token_url: Annotated[str | None, Field(description="Where a new access token is fetched.")] = None
    client_id: Annotated[str | None, Field(description="Of a client that is registered already.")] = None
    client_secret: Annotated[str | None, Field(description="Its secret; use ${VAR}.")] = None
    refresh_token: Annotated[str | None, Field(description="Use ${VAR}. Without it, client credentials are used.")] = (
        None
    )
    scope: Annotated[str | None, Field(description="What is asked for, separated by spaces.")] = None
    resource: Annotated[str | None, Field(description="Sent with each token request (RFC 8707) if given.")] = None
    client_metadata_url: Annotated[
        str | None, Field(description="https:// address of the client's own metadata document, which is its id.")
    ] = None


class RemoteEntry(Section):
    """One MCP server: a command that is started here, or a URL."""

    type: Annotated[
        Literal["stdio", "http", "streamable-http", "streamable_http", "streamableHttp", "sse"] | None,
        Field(
            description="stdio (a command), http (Streamable HTTP) or sse (HTTP+SSE of 2024-11-05). Found out if absent."
        ),
    ] = None
    command: Annotated[
        str | None, Field(description="The program to start: a name on PATH, or a path from this file's folder.")
    ] = None
    args: Annotated[
        list[Annotated[str, WithJsonSchema(_TEXT_SCHEMA)]] | None, Field(description="Its arguments, one each.")
    ] = None
    env: Annotated[
        Words | None, Field(description="Its environment, in addition to a minimal one. Use ${VAR} for secrets.")
    ] = None
    cwd: Annotated[str | None, Field(description="The folder it runs in; this file's folder if absent.")] = None
    url: Annotated[str | None, Field(description="http:// or https:// address of the MCP endpoint.")] = None
    headers: Annotated[Words | None, Field(description="Sent with every request. Use ${VAR} for secrets.")] = None
    auth: Annotated[Auth | None, Field(description="Access tokens that are refreshed.")] = None
    enabled: Annotated[Switch | None, Field(description="false: kept in the file, not offered.")] = None
    disabled: Annotated[Switch | None, Field(description="The same the other way round, as some clients write it.")] = (
        None
    )
    timeout: Annotated[Seconds | None, Field(description="Seconds for one call, retries included (60).")] = None
    connect_timeout: Annotated[Seconds | None, Field(description="Seconds to connect and shake hands (30).")] = None
    list_timeout: Annotated[Seconds | None, Field(description="Seconds for lists and probes (10).")] = None
    probe_interval: Annotated[
        float | None, Field(ge=1, le=86400, description="Seconds between health probes (60).")
    ] = None
    era: Annotated[
        Literal["auto", "2024-11-05", "2025-11-25", "2026-07-28"] | None,
        Field(description="The protocol revision that it speaks; found out and remembered if absent."),
    ] = None
    isolation: Annotated[
        Literal["auto", "shared", "key", "session"] | None,
        Field(description="Who shares a session with it: everybody, the callers with one key, or nobody."),
    ] = None
    tools: Tools | None = None
    enabled_tools: Annotated[
        list[str] | None, Field(description="The same as tools.enabled, as some clients write it.")
    ] = None
    disabled_tools: Annotated[
        list[str] | None, Field(description="The same as tools.disabled, as some clients write it.")
    ] = None
    keep_cut_answers: Annotated[
        Seconds | None,
        Field(description="Seconds for which the rest of an answer that was cut can be read (not at all)."),
    ] = None
    breaker: Annotated[Breaker | None, Field(description="When this remote is left alone for a while.")] = None
    retry_idempotent: Annotated[
        Switch | None, Field(description="Repeat a call that may have arrived, if the tool says that this is harmless.")
    ] = None


class GatewaySection(Section):
    """What can change while the gateway runs. An environment variable MCP_ + NAME wins over each."""

    max_tool_name: Annotated[
        int, Field(ge=16, le=128, description="Longer tool names are shortened (55 fits every client).")
    ] = 55
    max_connections_per_key: Annotated[int | None, Field(ge=1, description="Open streams of one key.")] = None
    max_total_connections: Annotated[int | None, Field(ge=1, description="Open streams in all.")] = None
    max_requests_in_flight: Annotated[int | None, Field(ge=1, description="Requests worked on at once.")] = None
    max_in_flight_per_key: Annotated[int | None, Field(ge=1, description="The same, of one key.")] = None
    max_in_flight_per_remote: Annotated[int | None, Field(ge=1, description="The same, to one remote.")] = None
    slot_wait_s: Annotated[
        Seconds | None, Field(description="A request over its key's limit may wait this long for its turn.")
    ] = None
    max_processes: Annotated[int | None, Field(ge=1, description="Processes of stdio remotes that run at once.")] = None
    max_tool_response_size: Annotated[int | None, Field(ge=1024, description="Bytes of one answer.")] = None
    max_payload_memory_mb: Annotated[int | None, Field(ge=1, description="Large answers together, per worker.")] = None
    connection_timeout_s: Annotated[float | None, Field(ge=60, le=86400, description="Lifetime of a stream.")] = None
    heartbeat_s: Annotated[Seconds | None, Field(description="Between two comments on an idle stream.")] = None
    stale_s: Annotated[Seconds | None, Field(description="Without a sign of life, a stream is closed.")] = None
    shutdown_grace_s: Annotated[
        Seconds | None,
        Field(description="Calls in flight may take this long when it stops; not longer than the environment says."),
    ] = None
    max_memory_mb: Annotated[int | None, Field(ge=64, description="Of one worker.")] = None
    max_cpu_percent: Annotated[int | None, Field(ge=1, le=100, description="Of one core, per worker.")] = None
    breaker_failures: Annotated[int | None, Field(ge=1, le=1000, description="Failed calls that open a breaker.")] = (
        None
    )
    breaker_window_s: Annotated[Seconds | None, Field(description="Within this time.")] = None
    breaker_open_s: Annotated[Seconds | None, Field(description="Before the first new try.")] = None
    backup_keep: Annotated[int | None, Field(ge=1, le=1000, description="Backups of each kind that are kept.")] = None
    audit: Annotated[
        Literal["off", "calls", "arguments"],
        Field(
            description="What the record of calls keeps: who called what and how it ended, also with which arguments."
        ),
    ] = "calls"


class ConfigFile(Section):
    """The configuration of the gateway."""

    schema_: Annotated[str | None, Field(alias="$schema", description="For editors; not used.")] = None
    version: Annotated[Literal[1], Field(description="The version of this format.")] = 1
    mcp_servers: Annotated[
        dict[str, RemoteEntry],
        BeforeValidator(_empty_map),
        Field(
            alias="mcpServers",
            description="The remotes. Their tools are offered as NAME__tool.",
            json_schema_extra={"propertyNames": {"pattern": NAME_PATTERN, "maxLength": NAME_MAX}},
        ),
    ]
    gateway: GatewaySection | None = None
    allow_private_networks: Annotated[
        bool | list[str],
        BeforeValidator(_private_networks),
        Field(description="Private addresses that URLs may lead to: true, or a list of networks and host names."),
    ] = False


def json_schema() -> dict[str, Any]:
    """For editors: `# yaml-language-server: $schema=…` in the first line of the file."""
    schema = ConfigFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "mcp-config.yaml"}


def validate(value: object) -> tuple[ConfigFile | None, list[Finding]]:
    """Every field that is wrong, at once; a file only if none is."""
    if not isinstance(value, dict):
        hint = "begin with `mcpServers:` and one entry per remote"
        return None, [Finding((), "wrong_type", f"the file must hold a mapping, not {_kind(value)}", hint)]
    try:
        return ConfigFile.model_validate(value), []
    except ValidationError as error:
        return None, list(_findings(error))


def entry(value: object) -> RemoteEntry | None:
    """One entry alone, so that what else is wrong with the good ones of a bad file is reported in the same run."""
    try:
        return RemoteEntry.model_validate(value)
    except ValidationError:
        return None


_SECTIONS: dict[str, type[Section]] = {"tools": Tools, "breaker": Breaker, "auth": Auth}
# What other programs call a field, or have and we do not.
_ELSEWHERE = {
    "serverUrl": "write `url`", "httpUrl": "write `url`", "uri": "write `url`", "endpoint": "write `url`",
    "cmd": "write `command`", "environment": "write `env`", "envs": "write `env`", "http_headers": "write `headers`",
    "transport": "write `type`", "transportType": "write `type`",
    "includeTools": "write `tools: {enabled: […]}`", "available_tools": "write `tools: {enabled: […]}`",
    "allowed_tools": "write `tools: {enabled: […]}`", "excludeTools": "write `tools: {disabled: […]}`",
    "disabledTools": "write `tools: {disabled: […]}`", "enabledTools": "write `tools: {enabled: […]}`",
    "autoApprove": "remove it: approving calls is the client's business",
    "alwaysAllow": "remove it: approving calls is the client's business",
    "trust": "remove it: approving calls is the client's business",
    "envFile": "set the variables in the gateway's environment and refer to them as ${VAR}",
    "oauth": "write `auth`", "description": "write it as a `# comment`", "servers": "write `mcpServers`",
    "mcp_servers": "write `mcpServers`", "context_servers": "write `mcpServers`",
    "startup_timeout_sec": "write `connect_timeout`", "tool_timeout_sec": "write `timeout`",
}  # fmt: skip
_TYPES = {
    "string_type": "text", "bool_type": "true or false", "float_type": "a number", "int_type": "a whole number",
    "list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping", "int_from_float": "a whole number",
    "model_attributes_type": "a mapping",
}  # fmt: skip


def _findings(error: ValidationError) -> Iterator[Finding]:
    for detail in error.errors(include_url=False):
        yield _finding(detail, tuple(detail["loc"]))


def _finding(detail: ErrorDetails, path: Path) -> Finding:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return _unknown_key(path)
        case "missing":
            hint = "write `mcpServers:` and one entry per remote under it" if path == ("mcpServers",) else ""
            return Finding(path, "missing_field", f"`{path[-1]}` is required", hint)
        case "literal_error":
            return _not_one_of(path, value, str(context["expected"]))
        case "greater_than" | "greater_than_equal" | "less_than_equal" | "less_than":
            return _out_of_range(path, value, detail["msg"])
        case _ if kind in _TYPES:
            return Finding(path, "wrong_type", f"must be {_TYPES[kind]}, not {_kind(value)}", _type_hint(path, value))
        case "wrong_type":
            return Finding(path, "wrong_type", detail["msg"])
        case _:
            return Finding(path, "bad_value", detail["msg"])


def _unknown_key(path: Path) -> Finding:
    key = str(path[-1])
    fields = _fields(path[:-1])
    hint = _ELSEWHERE.get(key, "")
    if not hint:
        nearest = nearest_of(key, fields)
        hint = f"did you mean `{nearest}`?" if nearest else "known here: " + ", ".join(sorted(fields))
    return Finding(path, "unknown_key", f"`{key[:60]}` is not known here", hint, on_key=True)


def _fields(path: Path) -> list[str]:
    match path:
        case ("mcpServers", _):
            model: type[Section] = RemoteEntry
        case ("mcpServers", _, str(section)) if section in _SECTIONS:
            model = _SECTIONS[section]
        case ("gateway",):
            model = GatewaySection
        case _:
            model = ConfigFile
    return [info.alias or name for name, info in model.model_fields.items()]


def nearest_of(word: str, known: list[str]) -> str | None:
    """The known word that was probably meant, whatever its case."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def _not_one_of(path: Path, value: object, expected: str) -> Finding:
    known = [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]
    if path == ("version",):
        return Finding(path, "bad_value", "only version 1 of this format is known", "write `version: 1`")
    nearest = nearest_of(value, known) if isinstance(value, str) else None
    hint = f"did you mean `{nearest}`?" if nearest else ""
    return Finding(path, "bad_value", f"must be one of {', '.join(known)}", hint)


def _out_of_range(path: Path, value: object, message: str) -> Finding:
    bound = message.removeprefix("Input should be ")
    hint = ""
    if isinstance(value, (int, float)) and value > SECONDS_MAX and f"equal to {SECONDS_MAX}" in message:
        hint = f"it is in seconds: for {value:g} milliseconds write {value / 1000:g}"
    return Finding(path, "out_of_range", f"must be {bound}", hint)


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _type_hint(path: Path, value: object) -> str:
    match path[-1], value:
        case "args", str():
            return 'write a list: args: ["one", "two"]'
        case "mcpServers", list():
            return "write each remote under its name: `time: {command: uvx, …}`"
        case "command", list():
            return "write the program here and the rest in `args`"
        case _, str(text) if text.replace(".", "", 1).isdigit():
            return "write it without quotes"
        case _, None:
            return "give it a value, or remove the line"
        case _:
            return ""
