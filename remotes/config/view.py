"""A configuration to look at: what is written, or what it comes to, never with a secret in it.

A reference `${VAR}` is no secret, its value may be one, and so may any literal header. Errs towards hiding.

Pure.
"""

import re
from collections.abc import Mapping
from typing import Any

from mcpserver.lib import redact
from remotes.config.document import Path
from remotes.config.interpolate import Expander, ReadFile, refers
from remotes.config.snapshot import RemoteSpec, Snapshot

_DEFAULT = re.compile(r":-[^{}]*\}")
_AUTH_SECRETS = ("client_secret", "refresh_token")
# An argument that carries a credential usually follows the option that says so.
_SECRET_OPTION = re.compile(r"--?[\w-]*(?:token|secret|password|key|auth)[\w-]*", re.IGNORECASE)


def written(value: object, path: Path = ()) -> object:
    """What the file says, literal secrets masked, references as they are."""
    match value:
        case dict():
            return {key: written(inner, (*path, key)) for key, inner in value.items()}
        case list():
            return [_argument(value, index, path) for index in range(len(value))]
        case str():
            return _text(value, path)
        case _:
            return value


def resolved(
    value: Mapping[str, Any], snapshot: Snapshot, environment: Mapping[str, str], read_file: ReadFile
) -> dict[str, Any]:
    """What each remote comes to with defaults and variables filled in; each variable's value is masked."""
    masked = Expander({name: redact.MASK for name, text in environment.items() if text}, _masking(read_file))
    return {
        "version": 1,
        "gateway": {
            "max_tool_name": snapshot.gateway.max_tool_name,
            "audit": snapshot.gateway.audit,
            **snapshot.gateway.limits,
        },
        "allow_private_networks": value.get("allow_private_networks", False),
        "mcpServers": {
            name: _remote(spec, value["mcpServers"][name], masked) for name, spec in snapshot.remotes.items()
        },
    }


def _remote(spec: RemoteSpec, entry: Mapping[str, Any], masked: Expander) -> dict[str, Any]:
    shown = _expanded(written({key: entry[key] for key in _LOCATING if key in entry}), masked)
    return {
        "type": spec.transport,
        **(shown if isinstance(shown, dict) else {}),
        **({"cwd": spec.cwd} if spec.transport == "stdio" and "cwd" not in shown else {}),
        "enabled": spec.enabled,
        "era": spec.era,
        "isolation": spec.isolation,
        "timeout": spec.timeout_s,
        "connect_timeout": spec.connect_timeout_s,
        "list_timeout": spec.list_timeout_s,
        "probe_interval": spec.probe_interval_s,
        "keep_cut_answers": spec.keep_cut_answers_s,
        "tools": {
            "enabled": spec.tools_enabled, "disabled": spec.tools_disabled, "alias": dict(spec.aliases), "pin": spec.pin,
        },
        "retry_idempotent": spec.retry_idempotent,
        "missing": [{"variable": missing.variable, "field": missing.field} for missing in spec.missing],
    }  # fmt: skip


_LOCATING = ("command", "args", "env", "cwd", "url", "headers", "auth")


def _expanded(value: Any, masked: Expander) -> Any:
    match value:
        case dict():
            return {key: _expanded(inner, masked) for key, inner in value.items()}
        case list():
            return [_expanded(inner, masked) for inner in value]
        case str():
            return masked.expand(value).text
        case _:
            return value


def _masking(read_file: ReadFile) -> ReadFile:
    return lambda path: redact.MASK if read_file(path) else None


def _argument(values: list[object], index: int, path: Path) -> object:
    value, before = values[index], values[index - 1] if index else None
    follows_secret = isinstance(before, str) and _SECRET_OPTION.fullmatch(before)
    if isinstance(value, str) and follows_secret and not refers(value):
        return redact.MASK
    return written(value, (*path, index))


def _text(value: str, path: Path) -> str:
    match path:
        case ("mcpServers", _, *inner):
            pass
        case _:
            inner = list(path)
    if refers(value):
        return redact.text(_DEFAULT.sub(f":-{redact.MASK}}}", value) if _is_sensitive(inner) else value)
    if inner[:1] == ["headers"] or (inner[:1] == ["auth"] and inner[-1] in _AUTH_SECRETS):
        return redact.MASK
    shown = redact.document({str(inner[-1]) if inner else "": value})
    return str(next(iter(shown.values())))


def _is_sensitive(inner: list[Any]) -> bool:
    return inner[:1] == ["headers"] or inner[:1] == ["auth"] or inner[:1] == ["env"]
