"""From the text of a configuration to its snapshot: the one way, for `mcpconfig validate` and for every change alike.

    text → document (values with their places) → schema (fields, types, bounds) → entries (sense, variables) → Snapshot

Everything wrong is reported at once, each with its place in the text. It never starts, contacts or looks up anything; the
only thing it reads are the files that `${file:…}` names.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from remotes.config import document, entries, files, names, schema
from remotes.config.addresses import Reach, reach
from remotes.config.document import Document, Finding
from remotes.config.interpolate import Expander, ReadFile
from remotes.config.snapshot import GatewayOptions, Problem, RemoteSpec, Snapshot

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_$-]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """`snapshot` and `errors` exclude each other; warnings stop nothing. `value` is what was written, unexpanded."""

    snapshot: Snapshot | None
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    value: Mapping[str, Any]


def parse(text: str, environment: Mapping[str, str], folder: Path) -> tuple[Snapshot | None, list[Problem]]:
    """The snapshot (its warnings inside), or None and every error. Relative paths count from `folder`."""
    reading = read(text, environment, folder)
    return reading.snapshot, list(reading.errors)


def read(
    text: str,
    environment: Mapping[str, str],
    folder: Path,
    *,
    read_file: ReadFile = files.read_secret,
    seen: names.Seen = MappingProxyType({}),
) -> Reading:
    """The same with warnings and values also where there are errors. `seen`: the tools that remotes listed last."""
    found, errors = document.read(text, is_text=schema.is_text)
    if found is None:
        return Reading(None, _problems(errors, Document(None)), (), {})
    value = found.value if isinstance(found.value, dict) else {}
    config, wrong = schema.validate(found.value)
    errors += wrong
    allowed, wrong = _reach(value.get("allow_private_networks"))
    errors += wrong
    context = entries.Context(Expander(environment, read_file), str(folder), environment.get("HOME", ""), allowed)
    remotes, wrong, warnings = _remotes(value.get("mcpServers"), context)
    errors += wrong
    snapshot = None
    if config is not None and not errors:
        warnings += names.findings(remotes.values(), _options(config.gateway).max_tool_name, seen)
        snapshot = Snapshot(
            revision=0,
            sha256=digest(text),
            remotes=MappingProxyType(remotes),
            gateway=_options(config.gateway),
            reach=allowed,
            warnings=_problems(warnings, found),
        )
    return Reading(snapshot, _problems(errors, found), _problems(warnings, found), value)


def digest(text: str) -> str:
    """What tells one text from another: a revision is its bytes, comments and all."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def path_text(path: document.Path) -> str:
    """`mcpServers.time.args[0]`; a part that is no plain word is quoted."""
    return "".join(_part(part) for part in path).lstrip(".")


def _part(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    if _PLAIN_KEY.fullmatch(part):
        return f".{part}"
    quoted = part[:100].replace("\\", "\\\\").replace('"', '\\"')
    return f'["{quoted}"]'


def _remotes(value: object, context: entries.Context) -> tuple[dict[str, RemoteSpec], list[Finding], list[Finding]]:
    specs: dict[str, RemoteSpec] = {}
    errors: list[Finding] = []
    warnings: list[Finding] = []
    for name, raw in value.items() if isinstance(value, dict) else ():
        if fault := entries.name_fault(name):
            errors.append(fault)
        entry = schema.entry(raw)
        if entry is None:
            continue  # the schema's own errors tell why
        built = entries.build(name, entry, context)
        errors += built.errors
        warnings += built.warnings
        if built.spec is not None:
            specs[name] = built.spec
    return specs, errors, warnings


def _reach(value: object) -> tuple[Reach, list[Finding]]:
    if value is True:
        return Reach(everything=True), []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return Reach(), []  # absent, false, or an error of the schema
    allowed, wrong = reach(value)
    message, hint = "this is neither a network nor a host name", "write 10.0.0.0/8, 10.0.0.5 or host.internal"
    return allowed, [Finding(("allow_private_networks", index), "bad_value", message, hint) for index in wrong]


def _options(section: schema.GatewaySection | None) -> GatewayOptions:
    if section is None:
        return GatewayOptions()
    given = section.model_dump(exclude_none=True, exclude={"max_tool_name", "audit"})
    return GatewayOptions(section.max_tool_name, section.audit, MappingProxyType(given))


def _problems(findings: list[Finding], found: Document) -> tuple[Problem, ...]:
    return tuple(sorted(_located(findings, found), key=lambda problem: (problem.line, problem.column)))


def _located(findings: list[Finding], found: Document) -> Iterator[Problem]:
    for finding in findings:
        at = found.locate(finding)
        yield Problem(path_text(finding.path), at.line, at.column, finding.code, finding.message, finding.hint)
