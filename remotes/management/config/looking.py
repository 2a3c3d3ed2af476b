"""`mcpconfig validate|show|diff|history|schema`: none of them changes anything.

`validate`, `show` and `schema` need nothing but the file: they work before the first start and while the database is away.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from mcpserver.launch import dotenv
from mcpserver.lib.command import Answer, Subcommand
from mcpserver.lib.database import UNUSABLE
from mcpserver.lib.errors import Exit, GatewayError
from remotes import selectors, services
from remotes.config import differences, files, load, schema, sources, view
from remotes.config.load import Reading
from remotes.config.snapshot import documents
from remotes.management.mcp.sources import ASK_S, ask

HISTORY = 20


def add_file(parser: CommandParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="default: the gateway's own, MCP_CONFIG")


def read(file: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[Path, str, Reading]:
    path = (file or Path(settings.MCP_CONFIG)).absolute()
    text = files.read(path)
    return path, text, load.read(text, environment, path.parent, seen=_tools_seen())


def _tools_seen() -> dict[str, list[str]]:
    """What the database knows of the remotes' tools; nothing where there is none yet."""
    try:
        return selectors.tools_seen()
    except UNUSABLE:
        return {}


class Validate(Subcommand):
    help = "Check a configuration and report everything that is wrong with it. Changes and starts nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        add_file(parser)
        parser.add_argument("--strict", action="store_true", help="warnings count as errors")
        parser.add_argument(
            "--env-file", type=Path, metavar="FILE", help="variables to fill in, besides the environment's"
        )

    def run(self, *, file: Path | None, strict: bool, env_file: Path | None) -> Answer:
        environment = dotenv.read(files.read(env_file)) | os.environ if env_file else os.environ
        path, _, reading = read(file, environment)
        warnings = documents(reading.warnings)
        if reading.snapshot is None:
            return Answer(services.invalid(path, reading).document() | {"path": str(path)}, Exit.CONFIG)
        facts = {"path": str(path), "remotes": list(reading.snapshot.remotes), "warnings": warnings}
        if strict and warnings:
            message = f"{len(warnings)} warnings, and --strict was given"
            return Answer({"error": "warnings", "message": message, **facts, "errors": []}, Exit.CONFIG)
        return Answer(facts)


class Show(Subcommand):
    help = "Print the configuration; secrets are masked."

    def add_arguments(self, parser: CommandParser) -> None:
        add_file(parser)
        parser.add_argument("--resolved", action="store_true", help="with defaults and variables filled in")
        parser.add_argument("--source", action="store_true", help="where each value comes from")
        parser.add_argument("--revision", type=int, metavar="N", help="as it was in revision N")

    def run(self, *, file: Path | None, resolved: bool, source: bool, revision: int | None) -> dict[str, Any]:
        if revision is None:
            path, text, reading = read(file)
        else:
            path, text = Path(settings.MCP_CONFIG).absolute(), _text_of(revision)
            reading = load.read(text, os.environ, path.parent)
        if reading.snapshot is None:
            raise services.invalid(path, reading)
        config = view.written(dict(reading.value))
        if resolved:
            config = view.resolved(reading.value, reading.snapshot, os.environ, files.read_secret)
        return {
            "path": str(path),
            **_revision_facts(text),
            "config": config,
            **({"source": sources.of(text, path.name, reading.snapshot, os.environ)} if source else {}),
            "warnings": documents(reading.warnings),
        }


class Diff(Subcommand):
    help = "What is different between the file and the configuration that runs. Exit 0: nothing, 1: something."

    def add_arguments(self, parser: CommandParser) -> None:
        add_file(parser)

    def run(self, *, file: Path | None) -> Answer:
        path, text, reading = read(file)
        if reading.snapshot is None:
            raise services.invalid(path, reading)
        number, running = _running(self.say)
        changes = differences.between(load.read(running, {}, path.parent).value, reading.value)
        facts = {"path": str(path), "revision": number, "same_text": text == running, "changes": changes}
        if not changes:
            return Answer(facts)
        hint = f"to apply the file: mcpconfig apply {path}" if file else "to apply the file: mcpconfig reload"
        message = f"{len(changes)} changes are not in revision {number}"
        return Answer({"error": "different", "message": message, "hint": hint, **facts}, Exit.FAILED)


class History(Subcommand):
    help = "The revisions of the configuration: when each was made, and by whom."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--limit", type=int, default=HISTORY, metavar="N", help=f"how many; default: {HISTORY}")

    def run(self, *, limit: int) -> dict[str, Any]:
        head = selectors.head_number()
        return {"revision": head, "revisions": [_row(row, head) for row in selectors.history(max(limit, 1))]}


class Schema(Subcommand):
    help = "Print the JSON Schema of the configuration, for editors."

    def run(self) -> dict[str, Any]:
        return schema.json_schema()


def _row(row: dict[str, Any], head: int) -> dict[str, Any]:
    number = row["number"]
    return {
        "revision": number,
        "at": row["at"],
        "actor": row["actor"],
        "sha256": row["sha256"],
        "runs": number == head,
    }


def _running(say: Callable[[str], None]) -> tuple[int, str]:
    """The revision that the gateway serves; without one, what it would start with."""
    try:
        number = int(ask({"op": "status"}, timeout_s=ASK_S)["config"]["revision"])
    except GatewayError as error:
        say(f"{error.message}: compared with the last revision")
        number = selectors.head_number()
    if number == 0:
        hint = "the first start makes it: mcpserver start"
        raise GatewayError(
            "no_revision", "there is no revision yet to compare with", hint=hint, exit_code=Exit.NOT_FOUND
        )
    return number, _text_of(number)


def _text_of(number: int) -> str:
    text = selectors.revision_text(number)
    if text is None:
        hint = "see them with: mcpconfig history"
        raise GatewayError("not_found", f"there is no revision {number}", hint=hint, exit_code=Exit.NOT_FOUND)
    return text


def _revision_facts(text: str) -> dict[str, Any]:
    """Which revision the text is; `applied` is None where the database cannot tell."""
    try:
        head = selectors.head()
    except UNUSABLE:  # Away, or not made yet: the file can be looked at all the same.
        return {"revision": None, "applied": None}
    return {"revision": head[0] if head else None, "applied": head is not None and head[1] == load.digest(text)}
