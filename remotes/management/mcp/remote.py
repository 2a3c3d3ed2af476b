"""`mcp remote …`. A test needs no gateway: it tries the remote from here."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from mcpserver.lib import table
from mcpserver.lib.command import Answer, Result, Subcommand
from mcpserver.lib.errors import Exit, GatewayError
from monitoring.status import described
from remotes import probes, status
from remotes.config.snapshot import RemoteSpec
from remotes.management.mcp.edits import RemoteAdd, RemoteDisable, RemoteEnable, RemoteRemove, RemoteShow
from remotes.management.mcp.login import RemoteLogin, RemoteLogout
from remotes.management.mcp.sources import ASK_S, ask, ask_all, configured, granted, known, named, stored_health
from remotes.tokens import credentials

TIMEOUT_MAX_S = 600.0
# The gateway waits eight seconds for the remote to be there again.
RESET_S = 12.0


class RemoteList(Subcommand):
    help = "List the remotes and how they are: live from the gateway, else what was last known of them."

    def run(self) -> Result:
        stored = stored_health()
        try:
            live = ask({"op": "status"}, timeout_s=ASK_S).get("mcps")
        except GatewayError as error:
            live = None
            self.say(f"{error.message}: this is what was last known")
        if live is None:
            stored = {name: stored.get(name, {}) | known(spec) for name, spec in configured().remotes.items()}
        found = {"running": live is not None, "mcps": described(live or {}, stored)}
        return Answer(found, page=_page(found))


def _page(found: Mapping[str, Any]) -> str:
    """What fits a window; the rest of each is in the JSON, and in `mcp remote show`."""
    shown = ("status", "transport", "era", "tools", "latency_ms", "last_error")
    rows = {name: {column: remote.get(column) for column in shown} for name, remote in found["mcps"].items()}
    return table.render({"running": found["running"], "mcps": rows})


class RemoteTest(Subcommand):
    help = "Try one remote, or all: connect, shake hands, list its tools. Says which step fails and what to do."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("name", metavar="NAME", nargs="?", help="a remote of the configuration, disabled ones too")
        which.add_argument("--all", action="store_true", help="every remote that is not disabled")
        parser.add_argument(
            "--timeout", type=_seconds, metavar="SECONDS", help="how long one may take; default: its list_timeout, 10"
        )
        parser.add_argument("--trace", action="store_true", help="every step with its time: steps[{name, ok, ms}]")
        parser.add_argument("--tools", action="store_true", help="the names of its tools: tool_names[]")

    def run(self, *, name: str | None, all: bool, timeout: float | None, trace: bool, tools: bool) -> Answer:
        snapshot = configured()
        more = _More(trace=trace, tools=tools)
        if name is not None:
            return self._one(named(name, snapshot), timeout, more)
        specs = list(snapshot.remotes.values())
        cap = settings.LIMITS.read_max_bytes
        work = probes.probe_all(specs, timeout_s=timeout, max_bytes=cap, credential=credentials.for_probe)
        return _all_of(probes.run(work), more)

    def _one(self, spec: RemoteSpec, timeout_s: float | None, more: "_More") -> Answer:
        """One that is disabled is tried all the same: whoever mended it tests it before enabling it again."""
        if not spec.enabled:
            self.say(f"{spec.name} is disabled in the configuration; it is tried all the same")
        tried = replace(spec, enabled=True)
        cap, credential = settings.LIMITS.read_max_bytes, credentials.for_probe(tried)
        report = probes.run(probes.probe(tried, timeout_s=timeout_s, max_bytes=cap, credential=credential))
        document = more.document(report) | {"enabled": spec.enabled}
        return Answer(document, Exit.DONE if report.ok else Exit.FAILED)


class RemoteReset(Subcommand):
    help = "Call a remote again now: close its circuit everywhere, forget its errors, connect anew. Its open calls may end."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="a remote of the configuration")

    def run(self, *, name: str) -> dict[str, Any]:
        named(name, configured())
        answers = ask_all({"op": "reset", "remote": name}, timeout_s=RESET_S)
        return granted(max(answers, key=lambda one: not one.get("ok")))


class Remote(Subcommand):
    help = "The MCP servers behind the gateway."
    subcommands = {
        "list": RemoteList,
        "show": RemoteShow,
        "test": RemoteTest,
        "login": RemoteLogin,
        "logout": RemoteLogout,
        "add": RemoteAdd,
        "enable": RemoteEnable,
        "disable": RemoteDisable,
        "remove": RemoteRemove,
        "reset": RemoteReset,
    }


@dataclass(frozen=True, slots=True)
class _More:
    """What is shown on demand."""

    trace: bool
    tools: bool

    def document(self, report: probes.Report) -> dict[str, Any]:
        shown: dict[str, Any] = {"steps": list(report.steps)} if self.trace else {}
        shown |= {"tool_names": list(report.tool_names)} if self.tools else {}
        return report.document() | shown


def _all_of(reports: list[probes.Report], more: _More) -> Answer:
    """Well when every remote is that is meant to be: a disabled one is listed and does not count."""
    document: dict[str, Any] = {"mcps": {report.name: more.document(report) for report in reports}}
    ill = [report.name for report in reports if not report.ok and report.status is not status.Status.DISABLED]
    if not ill:
        return Answer(document)
    message = f"{len(ill)} of {len(reports)} remotes failed: {', '.join(ill)}"
    return Answer({"error": "unhealthy", "message": message} | document, Exit.FAILED)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= TIMEOUT_MAX_S:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds between 0 and {TIMEOUT_MAX_S:g}")
    return seconds
