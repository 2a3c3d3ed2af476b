"""`mcp remote enable|disable|add|remove|show` and `mcp tools enable|disable`: edits of the configuration, one remote each.

Each is one `services.edit`: validated before anything is written, comments kept, a revision of its own. The running gateway
takes it within a second.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from mcpserver.lib.command import Answer, Result, Subcommand, actor, usage_error
from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.protocol import naming
from monitoring.status import described
from remotes import probes, services
from remotes.config import differences, editing, files, load, switches, view
from remotes.config.applying import Change
from remotes.config.snapshot import Snapshot, documents
from remotes.management.mcp.sources import (
    ASK_S,
    LISTING_S,
    ask,
    configured,
    configured_text,
    granted,
    known,
    named,
    not_found,
    stored_health,
)

Entries = dict[str, Any]


class _Switch(Subcommand):
    on: bool

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="a remote of the configuration")
        _add_reason(parser)

    def run(self, *, name: str, reason: str) -> dict[str, Any]:
        done = _edit(lambda entries: switches.switch(_entry(entries, name), on=self.on), reason)
        return {"name": name, "enabled": self.on, **_facts(done, name)}


class RemoteEnable(_Switch):
    help = "Offer a remote's tools again."
    on = True


class RemoteDisable(_Switch):
    help = "Keep a remote in the configuration without offering it. Calls that are under way finish."
    on = False


class RemoteAdd(Subcommand):
    help = "Add a remote: its URL, or after -- the command that starts it. Refused whole if it is not valid."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="its tools become NAME__tool")
        parser.add_argument("target", metavar="URL | -- COMMAND ARG", nargs="+")
        parser.add_argument(
            "--header",
            type=_header,
            action="append",
            default=[],
            metavar="'NAME: VALUE'",
            help="sent with every request",
        )
        parser.add_argument(
            "--env", type=_variable, action="append", default=[], metavar="NAME[=VALUE]",
            help="for the command; without a value it is taken from the gateway's environment",
        )  # fmt: skip
        parser.add_argument("--cwd", metavar="FOLDER", help="the folder that the command runs in")
        parser.add_argument("--type", choices=("stdio", "http", "sse"), help="found out if absent")
        parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for one call; default: 60")
        parser.add_argument("--disabled", action="store_true", help="do not offer it yet")
        parser.add_argument("--test", action="store_true", help="then try it, as mcp remote test does")
        _add_reason(parser)

    def run(self, *, name: str, test: bool, reason: str, **given: Any) -> Result:
        entry = _described_entry(**given)

        def add(entries: Entries) -> None:
            if name in entries:
                hint = f"look at it: mcp remote show {name}; change it: mcpconfig set mcpServers.{name}.FIELD VALUE"
                raise GatewayError("exists", f"there is a remote {name} already", hint=hint, exit_code=Exit.CONFLICT)
            entries[name] = entry

        done = _edit(add, reason)
        document = {"name": name, "added": True, **_facts(done, name)}
        document["warnings"] += literal_secrets(name, entry)
        for warning in document["warnings"]:
            self.say(f"{warning['path']}: {warning['message']}: {warning['hint']}")
        return _tested(name, done, document) if test else document


class RemoteRemove(Subcommand):
    help = "Take a remote out of the configuration. Calls that are under way finish; mcpconfig rollback brings it back."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="a remote of the configuration")
        _add_reason(parser)

    def run(self, *, name: str, reason: str) -> dict[str, Any]:
        def remove(entries: Entries) -> None:
            _entry(entries, name)
            del entries[name]

        return {"name": name, "removed": True, **_facts(_edit(remove, reason), name)}


class RemoteShow(Subcommand):
    help = "One remote: as written, as it works out, and how it is. Secrets are masked."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="a remote of the configuration")

    def run(self, *, name: str) -> dict[str, Any]:
        path = Path(settings.MCP_CONFIG)
        snapshot = configured()
        spec = named(name, snapshot)
        reading = load.read(configured_text(), os.environ, path.absolute().parent)
        written = view.written(dict(reading.value))
        resolved = view.resolved(reading.value, snapshot, os.environ, files.read_secret)
        live: dict[str, Any] = {}
        with suppress(GatewayError):
            live = ask({"op": "status"}, timeout_s=ASK_S).get("mcps", {})
        stored = {name: stored_health().get(name, {}) | known(spec)}
        return {
            "name": name,
            "running": name in live,
            "health": described({name: live[name]} if name in live else {}, stored)[name],
            "written": written["mcpServers"][name] if isinstance(written, dict) else {},
            "resolved": resolved["mcpServers"][name],
            "warnings": _about(name, documents(reading.warnings)),
        }


class _ToolSwitch(Subcommand):
    on: bool

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="as clients see it, such as demo__echo")
        _add_reason(parser)

    def run(self, *, name: str, reason: str) -> dict[str, Any]:
        remote, tool = self._found(name)
        done = _edit(lambda entries: switches.switch_tool(_entry(entries, remote), tool, on=self.on), reason)
        return {"name": name, "mcp": remote, "upstream_name": tool, "enabled": self.on, **_facts(done, remote)}

    def _found(self, name: str) -> tuple[str, str]:
        """Whose tool it is and what the remote calls it: the gateway knows; without one, the configuration's names tell."""
        try:
            tools = granted(ask({"op": "tools", "all": True}, timeout_s=LISTING_S))["tools"]
        except GatewayError as error:
            self.say(f"{error.message}: the name is taken at its word")
            return _by_prefix(name, configured())
        for tool in tools:
            if tool["name"] == name and not tool["shadowed_by"]:
                return tool["mcp"], tool["upstream_name"]
        raise not_found("tool", name, [tool["name"] for tool in tools], "see them with: mcp tools list --all")


class ToolsEnable(_ToolSwitch):
    help = "Offer a tool again."
    on = True


class ToolsDisable(_ToolSwitch):
    help = "Do not offer a tool any more; its remote's others stay."
    on = False


# Editing.


def _edit(change: Callable[[Entries], None], reason: str) -> Change:
    def of_remotes(value: dict[str, Any]) -> None:
        entries = value.get("mcpServers")
        if not isinstance(entries, dict):
            entries = value["mcpServers"] = {}
        change(entries)

    who = f"{actor()}: {reason}" if reason else actor()
    return services.edit(of_remotes, path=Path(settings.MCP_CONFIG), expected=None, actor=who)


def _facts(done: Change, name: str) -> dict[str, Any]:
    folder = Path(settings.MCP_CONFIG).absolute().parent
    before, after = (load.read(text, os.environ, folder).value for text in (done.before, done.after))
    return {
        "revision": done.number,
        "changed": not editing.same(before, after),
        "diff": differences.between(before, after),
        "warnings": _about(name, documents(done.warnings)),
    }


def _about(name: str, problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    place = f"mcpServers.{name}"
    return [one for one in problems if one["path"] == place or one["path"].startswith((f"{place}.", f"{place}["))]


def _entry(entries: Entries, name: str) -> dict[str, Any]:
    entry = entries.get(name)
    if not isinstance(entry, dict):
        raise not_found("remote", name, list(entries), "see them with: mcp remote list")
    return entry


def _by_prefix(name: str, snapshot: Snapshot) -> tuple[str, str]:
    for remote, spec in snapshot.remotes.items():
        tool = name.removeprefix(remote + naming.SEPARATOR)
        if tool and tool != name:
            return remote, next((own for own, alias in spec.aliases.items() if alias == tool), tool)
    hint = "a tool is named REMOTE__TOOL; see the remotes with: mcp remote list"
    raise GatewayError("not_found", f"no remote has a tool {name}", hint=hint, exit_code=Exit.NOT_FOUND)


# Adding.


def _described_entry(
    *,
    target: list[str],
    header: list[tuple[str, str]],
    env: list[tuple[str, str]],
    cwd: str | None,
    type: str | None,
    timeout: float | None,
    disabled: bool,
) -> dict[str, Any]:
    is_url = len(target) == 1 and "://" in target[0]
    if is_url and (env or cwd):
        raise usage_error("--env and --cwd are for a command, not for a URL", hint="for a URL: --header 'NAME: VALUE'")
    if header and not is_url:
        raise usage_error("--header is for a URL, not for a command", hint="for a command: --env NAME=VALUE")
    where = {"url": target[0]} if is_url else {"command": target[0], "args": target[1:]}
    number = int(timeout) if timeout is not None and timeout.is_integer() else timeout
    entry = {"type": type, **where, "env": dict(env), "cwd": cwd, "headers": dict(header), "timeout": number}
    entry = {key: value for key, value in entry.items() if value not in (None, {}, [])}
    return entry | ({"enabled": False} if disabled else {})


def literal_secrets(name: str, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Warnings about credentials that stand in the file itself."""
    return [
        {
            "path": place,
            "code": "literal_secret",
            "message": "a credential is written into the file as it is",
            "hint": f"put it into .env and write ${{{_variable_for(name, place)}}} in its place",
        }
        for place in differences.literal_secrets(name, entry)
    ]


def _variable_for(name: str, place: str) -> str:
    last = place.rpartition(".")[2]
    is_name = last.isidentifier() and last.isupper()
    return last if is_name else f"{name.upper().replace('-', '_')}_TOKEN"


def _tested(name: str, done: Change, document: dict[str, Any]) -> Answer:
    snapshot = services.validated(done.after, path=Path(settings.MCP_CONFIG))
    report = probes.run(probes.probe(snapshot.remotes[name], max_bytes=settings.LIMITS.read_max_bytes))
    document["test"] = report.document()
    if report.ok:
        return Answer(document)
    told = f"{name} is added, but its test failed: {report.message or report.error}"
    hint = report.hint or f"mend it, or take it away again: mcp remote remove {name}"
    return Answer({"error": report.error or "unhealthy", "message": told, "hint": hint} | document, Exit.FAILED)


# Arguments.


def _add_reason(parser: CommandParser) -> None:
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept with the revision; see mcpconfig history")


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError("a header is written 'NAME: VALUE'")
    return name.strip(), value.strip()


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not name:
        raise argparse.ArgumentTypeError("a variable is written NAME=VALUE, or NAME")
    return name, value if sign else f"${{{name}}}"
