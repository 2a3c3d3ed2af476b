"""What an import would do to the entries that are there: which come, under which names, and what is left out and why.

Pure: it plans and changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from remotes.config import entries
from remotes.config.exchange import detection, variables
from remotes.config.exchange.fields import convert
from remotes.config.schema import NAME_MAX

# Why an entry is not valid here, or None.
Fault = Callable[[str, Mapping[str, Any]], str | None]


@dataclass(slots=True)
class Plan:
    """`added` holds the entries to write; the rest is for the report."""

    format: str
    added: dict[str, dict[str, Any]] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    needs_env: list[str] = field(default_factory=list)
    dropped_fields: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan(
    value: Any,
    existing: Mapping[str, Any],
    *,
    fault: Fault,
    format: str = "auto",
    only: tuple[str, ...] = (),
    prefix: str = "",
    replace: bool = False,
) -> Plan:
    """`only`: names as they are in the file, or as they would be here."""
    format, found = detection.servers(value, format)
    made = Plan(format)
    for server in found:
        slug = entries.slug(prefix + server.name)
        if only and server.name not in only and slug not in only:
            continue
        name = slug
        if slug in existing and not replace:
            made.skipped.append(
                {"name": server.name, "reason": f"there is a remote {slug} already; --replace takes this one"}
            )
            continue
        if slug in made.added:
            name = _free(slug, made.added.keys() | existing.keys())
        _add(made, name, server, fault, is_there=slug in existing)
    for wanted in only:
        if not any(wanted in (one.name, entries.slug(prefix + one.name)) for one in found):
            made.skipped.append({"name": wanted, "reason": "there is no such server in the file"})
    made.needs_env = variables.names(list(made.added.values()))
    return made


def _add(made: Plan, name: str, server: detection.Found, fault: Fault, *, is_there: bool) -> None:
    done = convert(server.entry, made.format)
    refused = done.refused or fault(name, done.entry)
    if refused:
        made.skipped.append({"name": server.name, "reason": refused})
        return
    made.added[name] = done.entry
    made.dropped_fields += [{"name": name, **one} for one in done.dropped]
    made.notes += [f"{name}: {note}" for note in done.notes]
    if is_there:
        made.replaced.append(name)
    if name != server.name:
        made.renamed[server.name] = name


def _free(slug: str, taken: set[str]) -> str:
    """`name-2`, and so on, within the length that names may have."""
    number = 2
    while (name := f"{slug[: NAME_MAX - len(str(number)) - 1].rstrip('-_')}-{number}") in taken:
        number += 1
    return name
