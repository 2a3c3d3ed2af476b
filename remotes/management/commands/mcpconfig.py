"""`mcpconfig`: look at the configuration and check it. Parses and prints; `remotes.config` and `remotes.services` do.

`validate` and `schema` need nothing but the file: they work before the first start and while the database is away.
"""

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.db import DatabaseError

from mcpserver.lib.command import Answer, JsonCommand, Subcommand
from mcpserver.lib.errors import Exit
from remotes import selectors, services
from remotes.config import files, load, schema, view
from remotes.config.load import Reading
from remotes.config.snapshot import documents


def _add_file(parser: CommandParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="default: the gateway's own, MCP_CONFIG")


def _read(file: Path | None) -> tuple[Path, str, Reading]:
    path = (file or settings.MCP_CONFIG).absolute()
    text = files.read(path)
    return path, text, load.read(text, os.environ, path.parent)


class Validate(Subcommand):
    help = "Check a configuration and report everything that is wrong with it. Changes and starts nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        _add_file(parser)
        parser.add_argument("--strict", action="store_true", help="warnings count as errors")

    def run(self, *, file: Path | None, strict: bool) -> Answer:
        path, _, reading = _read(file)
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
        _add_file(parser)
        parser.add_argument("--resolved", action="store_true", help="with defaults and variables filled in")

    def run(self, *, file: Path | None, resolved: bool) -> dict[str, Any]:
        path, text, reading = _read(file)
        if reading.snapshot is None:
            raise services.invalid(path, reading)
        config = view.written(reading.value)
        if resolved:
            config = view.resolved(reading.value, reading.snapshot, os.environ, files.read_secret)
        return {
            "path": str(path),
            **_revision_facts(text),
            "config": config,
            "warnings": documents(reading.warnings),
        }


def _revision_facts(text: str) -> dict[str, Any]:
    """Which revision the text is; `applied` is None where the database cannot tell."""
    try:
        head = selectors.head()
    except DatabaseError:  # Away, or not made yet: the file can be looked at all the same.
        return {"revision": None, "applied": None}
    return {"revision": head[0] if head else None, "applied": head is not None and head[1] == load.digest(text)}


class Schema(Subcommand):
    help = "Print the JSON Schema of the configuration, for editors."

    def run(self) -> dict[str, Any]:
        return schema.json_schema()


class Command(JsonCommand):
    help = "Look at the gateway's configuration and check it."
    subcommands = {"validate": Validate, "show": Show, "schema": Schema}
