"""`mcp`: the remotes and their tools, as the operator of this machine sees them. Parses, asks and prints.

`remote test` needs no gateway: it tries the remote from here. Calls and lists of tools are the running gateway's, asked over
its control socket.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from mcpserver.lib import control
from mcpserver.lib.command import Answer, JsonCommand, Result, Subcommand, nearest, usage_error
from mcpserver.lib.database import UNUSABLE
from mcpserver.lib.errors import Exit, GatewayError
from monitoring.status import described
from remotes import probes, selectors, services, status
from remotes.config import files, load, revisions
from remotes.config.snapshot import TIMEOUT_S, RemoteSpec, Snapshot

ASK_S = 2.0
# The gateway lets remotes in their first load take this long before it lists without them, or answers a call.
LISTING_S = 15.0
TIMEOUT_MAX_S = 600.0


class RemoteList(Subcommand):
    help = "List the remotes and how they are: live from the gateway, else what was last known of them."

    def run(self) -> dict[str, Any]:
        stored = _stored_health()
        try:
            live = _ask({"op": "status"}, timeout_s=ASK_S).get("mcps")
        except GatewayError as error:
            live = None
            self.say(f"{error.message}: this is what was last known")
        if live is None:
            stored = {name: stored.get(name, {}) | _known(spec) for name, spec in _configured().remotes.items()}
        return {"running": live is not None, "mcps": described(live or {}, stored)}


class RemoteTest(Subcommand):
    help = "Try one remote, or all: connect, shake hands, list its tools. Says which step fails and what to do."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("name", metavar="NAME", nargs="?", help="a remote of the configuration, disabled ones too")
        which.add_argument("--all", action="store_true", help="every remote that is not disabled")
        parser.add_argument(
            "--timeout", type=_seconds, metavar="SECONDS", help="how long one may take; default: its list_timeout, 10"
        )

    def run(self, *, name: str | None, all: bool, timeout: float | None) -> Answer:
        snapshot = _configured()
        if name is not None:
            return self._one(_named(name, snapshot), timeout)
        specs = list(snapshot.remotes.values())
        work = probes.probe_all(specs, timeout_s=timeout, max_bytes=settings.LIMITS.read_max_bytes)
        return _all_of(probes.run(work))

    def _one(self, spec: RemoteSpec, timeout_s: float | None) -> Answer:
        """One that is disabled is tried all the same: whoever mended it tests it before enabling it again."""
        if not spec.enabled:
            self.say(f"{spec.name} is disabled in the configuration; it is tried all the same")
        tried = replace(spec, enabled=True)
        report = probes.run(probes.probe(tried, timeout_s=timeout_s, max_bytes=settings.LIMITS.read_max_bytes))
        document = report.document() | {"enabled": spec.enabled}
        return Answer(document, Exit.DONE if report.ok else Exit.FAILED)


class ToolsList(Subcommand):
    help = "List the tools that the running gateway offers, under the names that clients see."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--mcp", metavar="NAME", help="only those of this remote")
        parser.add_argument("--all", action="store_true", help="also those that are disabled or shadowed, and why")

    def run(self, *, mcp: str | None, all: bool) -> dict[str, Any]:
        answer = _granted(_ask({"op": "tools", "all": all}, timeout_s=LISTING_S))
        tools = answer["tools"]
        if mcp is not None:
            tools = [tool for tool in tools if tool["mcp"] == mcp]
            if not tools:
                _named(mcp, _configured())
        return {"tools": tools, "problems": answer["problems"]}


class ToolsCall(Subcommand):
    help = "Call a tool through the running gateway."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="as clients see it, such as demo__echo")
        parser.add_argument(
            "pairs", metavar="KEY=VALUE", nargs="*", default=[], help="an argument: JSON, or else a text"
        )
        parser.add_argument("--args", dest="document", metavar="JSON|@FILE|-", help="all arguments as one JSON object")

    def run(self, *, name: str, pairs: list[str], document: str | None) -> Result:
        given = _document(document) if document is not None else {}
        request = {"op": "call", "name": name, "arguments": given | _pairs(pairs)}
        answer = _ask(request, timeout_s=_patience_s())
        if answer.get("error") == "not_found":
            raise _no_such_tool(name)
        return answer


class Remote(Subcommand):
    help = "The MCP servers behind the gateway."
    subcommands = {"list": RemoteList, "test": RemoteTest}


class Tools(Subcommand):
    help = "The tools that the gateway offers."
    subcommands = {"list": ToolsList, "call": ToolsCall}


class Command(JsonCommand):
    help = "The remotes behind the gateway, and their tools."
    subcommands = {"remote": Remote, "tools": Tools}


# The gateway.


def _ask(request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    return control.ask(Path(settings.MCP_RUN_DIR) / "gateway-0.sock", dict(request), timeout_s=timeout_s)


def _granted(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, or its error as this process's own."""
    if answer.get("ok"):
        return answer
    raise GatewayError(str(answer.get("error")), str(answer.get("message")), hint=str(answer.get("hint", "")))


def _patience_s() -> float:
    """Longer than the slowest remote may take: that a call takes too long is the gateway's to say."""
    try:
        slowest_s = max((spec.timeout_s for spec in _configured().remotes.values()), default=TIMEOUT_S)
    except GatewayError:  # What is wrong with the file now does not keep the gateway from serving what it read before.
        slowest_s = TIMEOUT_S
    return slowest_s + LISTING_S


def _no_such_tool(name: str) -> GatewayError:
    tools = _granted(_ask({"op": "tools"}, timeout_s=LISTING_S))["tools"]
    return _not_found("tool", name, [tool["name"] for tool in tools], "see them with: mcp tools list")


# The configuration.


def _configured() -> Snapshot:
    """What the gateway runs, or would after its next start: an edit of the file that is not applied yet comes first."""
    path = Path(settings.MCP_CONFIG)
    head = _head()
    if head is None:
        return services.validated(files.read(path), path=path)
    with suppress(GatewayError):  # A file that cannot be used changes nothing: the head is what runs.
        text = files.read(path)
        if not revisions.is_known(load.digest(text)):
            return services.validated(text, path=path)
    return services.validated(head, path=path)


def _head() -> str | None:
    try:
        found = selectors.head()
    except UNUSABLE:  # Away, or not made yet: the file can be read all the same.
        return None
    return found[2] if found else None


def _stored_health() -> dict[str, dict[str, Any]]:
    try:
        return selectors.health()
    except UNUSABLE:
        return {}


def _known(spec: RemoteSpec) -> dict[str, Any]:
    """What the configuration alone tells; the word only where it decides it."""
    told: dict[str, Any] = {"transport": spec.transport, "missing_env": [one.variable for one in spec.missing]}
    if status.refusal(spec) is not None:
        told["status"] = str(status.of(spec, reached=False, failure=None))
    return told


def _named(name: str, snapshot: Snapshot) -> RemoteSpec:
    spec = snapshot.remotes.get(name)
    if spec is None:
        raise _not_found("remote", name, list(snapshot.remotes), "see them with: mcp remote list")
    return spec


def _not_found(what: str, name: str, names: list[str], otherwise: str) -> GatewayError:
    meant = nearest(name, names)
    return GatewayError(
        "not_found", f"there is no {what} {name}",
        hint=f"did you mean {meant}?" if meant else otherwise, exit_code=Exit.NOT_FOUND, names=names,
    )  # fmt: skip


def _all_of(reports: list[probes.Report]) -> Answer:
    """Well when every remote is that is meant to be: a disabled one is listed and does not count."""
    document: dict[str, Any] = {"mcps": {report.name: report.document() for report in reports}}
    ill = [report.name for report in reports if not report.ok and report.status is not status.Status.DISABLED]
    if not ill:
        return Answer(document)
    message = f"{len(ill)} of {len(reports)} remotes failed: {', '.join(ill)}"
    return Answer({"error": "unhealthy", "message": message} | document, Exit.FAILED)


# Arguments of a tool.


def _pairs(pairs: list[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign or not key:
            raise usage_error(f"an argument is written KEY=VALUE: {pair}", hint="or all of them as JSON: --args '{…}'")
        if key in given:
            raise usage_error(f"the argument {key} is given twice")
        given[key] = _value(key, text)
    return given


def _value(key: str, text: str) -> Any:
    """JSON where it is, so that numbers are numbers; `"1"` in quotes is a text. What JSON cannot say is a text too."""
    if not _is_unicode(text):
        raise usage_error(f"the argument {key} is not UTF-8 text")
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value if _is_unicode(json.dumps(value, ensure_ascii=False)) else text


def _document(source: str) -> dict[str, Any]:
    text = _read(source)
    if not _is_unicode(text):
        raise usage_error("--args is not UTF-8 text")
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise usage_error(f"--args is not JSON: {error}") from None
    if not _is_unicode(json.dumps(value, ensure_ascii=False)):
        raise usage_error("--args holds half a character: a \\ud800 to \\udfff that stands alone")
    if not isinstance(value, dict):
        raise usage_error("--args must be a JSON object: the names of the arguments and their values")
    return value


def _read(source: str) -> str:
    try:
        if source == "-":
            return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
        if source.startswith("@"):
            return Path(source[1:]).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise usage_error(f"--args: {source[1:]} cannot be read: {error.strerror}") from None
    return source


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= TIMEOUT_MAX_S:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds between 0 and {TIMEOUT_MAX_S:g}")
    return seconds
