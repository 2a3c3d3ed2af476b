"""`mcpconfig apply|reload|rollback|set|unset`: each makes a revision, or changes nothing."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from mcpserver.lib import control
from mcpserver.lib.command import Answer, Subcommand, actor
from mcpserver.lib.errors import Exit, GatewayError
from remotes import selectors, services
from remotes.config import differences, files, load, places, schema
from remotes.config.applying import Change
from remotes.config.snapshot import documents
from remotes.management.config.looking import add_file
from remotes.management.mcp.sources import ASK_S

WAIT_S = 10.0
_POLL_S = 0.1


def config_path() -> Path:
    return Path(settings.MCP_CONFIG)


class Apply(Subcommand):
    help = "Make a file the configuration: checked first, then a revision of its own. Without FILE: the edited file itself."

    def add_arguments(self, parser: CommandParser) -> None:
        add_file(parser)
        _add_expected(parser)

    def run(self, *, file: Path | None, expected: int | None) -> dict[str, Any]:
        before = selectors.head()
        if file is None or file.absolute() == config_path().absolute():
            number = services.take(config_path(), actor=actor(), expected=expected)
        else:
            number = services.apply(_valid_text(file), path=config_path(), expected=expected, actor=actor())
        return _revisions(before[0] if before else 0, before[2] if before else "", number)


class Rollback(Subcommand):
    help = "Make an older revision the configuration again, as a new revision."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("revision", metavar="N", type=int, help="see mcpconfig history")
        _add_expected(parser)

    def run(self, *, revision: int, expected: int | None) -> dict[str, Any]:
        before = selectors.head_number()
        done = services.rollback(
            revision, path=config_path(), expected=expected, actor=f"{actor()}: rollback to {revision}"
        )
        return {"rolled_back_to": revision, **_revisions(before, done.before, done.number)}


class Reload(Subcommand):
    help = "Let the running gateway take the file now, what its ${file:…} hold included, and say which worker did."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wait", type=float, default=WAIT_S, metavar="SECONDS", help=f"default: {WAIT_S:g}")

    def run(self, *, wait: float) -> Answer:
        sockets = _workers()
        before = {name: _asked(socket, "status", ASK_S)["config"]["revision"] for name, socket in sockets.items()}
        number = services.take(config_path(), actor=actor())
        deadline = time.monotonic() + wait
        workers = [_reloaded(name, socket, before[name], number, deadline) for name, socket in sockets.items()]
        facts = {
            "revision_before": min(before.values()), "revision": number,
            "swapped_workers": sum(worker["swapped"] for worker in workers), "workers": workers,
        }  # fmt: skip
        late = [worker["worker"] for worker in workers if worker["revision"] != number]
        if not late:
            return Answer(facts)
        message = f"revision {number} is made, but {', '.join(late)} did not take it within {wait:g} s"
        return Answer({"error": "not_swapped", "message": message, "hint": "look at: mcpstatus", **facts}, Exit.FAILED)


class Set(Subcommand):
    help = "Set one value; the rest of the file stays as it is, comments too."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("place", metavar="PATH", help='mcpServers.NAME.timeout, mcpServers.NAME.env["ODD NAME"]')
        parser.add_argument("value", metavar="VALUE", help="JSON, or else a text")
        _add_expected(parser)
        _add_dry_run(parser)

    def run(self, *, place: str, value: str, expected: int | None, dry_run: bool) -> dict[str, Any]:
        path = places.parse(place)
        new = value if schema.is_text(path) else _json_or_text(value)
        return edited(lambda whole: places.put(whole, path, new), expected=expected, dry_run=dry_run)


class Unset(Subcommand):
    help = "Take one value out of the file; its default holds then."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("place", metavar="PATH", help="as for set")
        _add_expected(parser)
        _add_dry_run(parser)

    def run(self, *, place: str, expected: int | None, dry_run: bool) -> dict[str, Any]:
        path = places.parse(place)
        return edited(lambda whole: places.remove(whole, path), expected=expected, dry_run=dry_run)


def edited(change: Callable[[dict[str, Any]], None], *, expected: int | None, dry_run: bool) -> dict[str, Any]:
    done = services.edit(change, path=config_path(), expected=expected, actor=actor(), dry_run=dry_run)
    return {"revision": done.number, "dry_run": dry_run, "diff": diff(done), "warnings": documents(done.warnings)}


def diff(done: Change) -> list[dict[str, Any]]:
    folder = config_path().absolute().parent
    before, after = (load.read(text, os.environ, folder).value for text in (done.before, done.after))
    return differences.between(before, after)


def _valid_text(file: Path) -> str:
    """Judged here as well, so that what is wrong is told of this file and its lines."""
    text = files.read(file)
    reading = load.read(text, os.environ, config_path().absolute().parent)
    if reading.snapshot is None:
        raise services.invalid(file, reading)
    return text


def _revisions(before: int, text_before: str, number: int) -> dict[str, Any]:
    text = selectors.revision_text(number) or ""
    return {"revision_before": before, "revision": number, "diff": diff(Change(number, text_before, text))}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# Workers.


def _workers() -> dict[str, Path]:
    """The control sockets of the gateway's workers; GatewayError `not_running` when there is none."""
    found = sorted(Path(settings.MCP_RUN_DIR).glob("gateway-*.sock"))
    reachable = {}
    problem = GatewayError(
        "not_running", "no gateway is running", hint="start it with: mcpserver start; to change the configuration without it: "
        "mcpconfig apply", exit_code=Exit.NOT_RUNNING,
    )  # fmt: skip
    for socket in found:
        try:
            control.ask(socket, {"op": "status"}, timeout_s=ASK_S)
        except GatewayError as error:
            if error.code != "not_running":
                raise
            continue  # Left behind by one that was killed.
        reachable[socket.stem] = socket
    if not reachable:
        raise problem
    return reachable


def _reloaded(name: str, socket: Path, before: int, wanted: int, deadline: float) -> dict[str, Any]:
    """Asked until it serves `wanted` or a later revision, or time is up."""
    while True:
        left = deadline - time.monotonic()
        answer = _asked(socket, "reload", max(left, ASK_S))
        if answer["revision"] >= wanted or left <= 0:
            return {
                "worker": name, "pid": answer["pid"], "revision_before": before, "revision": answer["revision"],
                "swapped": answer["revision"] != before,
            }  # fmt: skip
        time.sleep(_POLL_S)


def _asked(socket: Path, operation: str, timeout_s: float) -> dict[str, Any]:
    answer = control.ask(socket, {"op": operation}, timeout_s=timeout_s)
    if not answer.get("ok"):
        raise GatewayError(str(answer.get("error")), str(answer.get("message")), hint=str(answer.get("hint", "")))
    return answer


# Arguments.


def _add_expected(parser: CommandParser) -> None:
    parser.add_argument(
        "--expect-revision", "--expect-version", dest="expected", type=int, metavar="N",
        help="change nothing unless revision N runs",
    )  # fmt: skip


def _add_dry_run(parser: CommandParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="check and show the difference; change nothing")
