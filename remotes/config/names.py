"""What can be said of tool names before a client sees them: two that become one, some that are cut, some that nobody has.

The configuration alone knows aliases and `tools.enabled`; with the tools that each remote listed when it was last seen, all of it
can be said. Everything is a warning: a remote may list other tools tomorrow.

Pure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mcpserver.protocol import naming
from remotes.config.document import Finding, Path
from remotes.config.schema import nearest_of
from remotes.config.snapshot import RemoteSpec

# 64 of OpenAI and Gemini with `mcp__gw__` before it, 60 of Cursor with its server's name.
FITS_EVERY_CLIENT = 55
_TOLD_MAX = 10
_COMPARED_MAX = 500

Seen = Mapping[str, Sequence[str]]
"""By remote: the tools that it listed last, under its own names."""


def findings(specs: Iterable[RemoteSpec], longest: int, seen: Seen) -> list[Finding]:
    found: list[Finding] = []
    if longest > FITS_EVERY_CLIENT:
        message = (
            f"some clients drop or refuse names longer than {FITS_EVERY_CLIENT} characters (Cursor, OpenAI, Gemini)"
        )
        found.append(Finding(("gateway", "max_tool_name"), "client_limit", message, f"write {FITS_EVERY_CLIENT}"))
    for spec in specs:
        found += _bounded(spec, list(_of(spec, longest, seen.get(spec.name, ()))))
    return found


def _of(spec: RemoteSpec, longest: int, seen: Sequence[str]) -> Iterator[Finding]:
    if spec.name[0].isdigit():
        message = "Gemini takes no tool names that begin with a digit"
        yield Finding(("mcpServers", spec.name), "client_limit", message, "begin the name with a letter", on_key=True)
    yield from _misnamed(spec, seen)
    known = seen or dict.fromkeys([*spec.aliases, *(spec.tools_enabled or ())])
    offered = [tool for tool in known if spec.disabled_by(tool) is None]
    yield from _clashes(spec, longest, offered)
    for tool in offered:
        whole = naming.full(spec.name, spec.aliases.get(tool, tool))
        if len(whole) > longest:
            exposed = naming.exposed(spec.name, spec.aliases.get(tool, tool), longest)
            message = f"{tool!a} is offered as {exposed}: {whole[:80]} is longer than {longest} characters"
            hint = f"give it a shorter one: tools: {{alias: {{{tool!a}: …}}}}"
            yield Finding(_place(spec, tool), "shortened", message, hint)


def _clashes(spec: RemoteSpec, longest: int, offered: Iterable[str]) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    for tool in offered:
        exposed = naming.exposed(spec.name, spec.aliases.get(tool, tool), longest)
        other = taken.setdefault(exposed, tool)
        if other != tool:
            message = (
                f"{tool!a} and {other!a} are both offered as {exposed}: the one that {spec.name} lists later "
                "shadows the other"
            )
            place = _place(spec, tool if tool in spec.aliases else other)
            yield Finding(place, "collision", message, "give one of them another name: tools: {alias: {…: …}}")


def _misnamed(spec: RemoteSpec, seen: Sequence[str]) -> Iterator[Finding]:
    """Fields that name tools which the remote did not list when it was last seen."""
    if not seen:
        return
    listed = set(seen)
    fields = {"alias": spec.aliases, "enabled": spec.tools_enabled or (), "disabled": spec.tools_disabled}
    for field, tools in fields.items():
        for tool in tools:
            if tool not in listed:
                nearest = nearest_of(tool, list(seen[:_COMPARED_MAX]))
                hint = (
                    f"did you mean {nearest!a}?"
                    if nearest
                    else f"see them with: mcp tools list --all --mcp {spec.name}"
                )
                message = f"{spec.name} lists no tool {tool!a}"
                yield Finding(("mcpServers", spec.name, "tools", field, tool), "unknown_tool", message, hint)


def _place(spec: RemoteSpec, tool: str) -> Path:
    return ("mcpServers", spec.name, "tools", "alias", tool) if tool in spec.aliases else ("mcpServers", spec.name)


def _bounded(spec: RemoteSpec, found: list[Finding]) -> list[Finding]:
    more = len(found) - _TOLD_MAX
    if more <= 1:
        return found
    rest = Finding(("mcpServers", spec.name), "more", f"and {more} more about the names of {spec.name}'s tools")
    return [*found[:_TOLD_MAX], rest]
