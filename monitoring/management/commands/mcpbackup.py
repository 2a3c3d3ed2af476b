"""`mcpbackup`: make, list, verify and prune backups. Parses and prints; `monitoring.backups` does."""

import argparse
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from mcpserver.lib.command import Answer, JsonCommand, Subcommand
from mcpserver.lib.errors import Exit
from monitoring.backups import folder, restoring, saving


class Create(Subcommand):
    help = "Back up configuration, keys and settings now. The newest of each kind are kept."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--note", default="", metavar="TEXT", help="why it was made")
        _add_keep(parser)

    def run(self, *, note: str, keep: int | None) -> dict[str, Any]:
        return saving.create("manual", note=note[:1000], keep=keep)


class List(Subcommand):
    help = "List the backups, newest first. Whether they are whole: mcpbackup verify."

    def run(self) -> dict[str, Any]:
        latest = folder.latest(settings.MCP_BACKUP_DIR)
        found = folder.kept(settings.MCP_BACKUP_DIR)
        return {
            "folder": str(settings.MCP_BACKUP_DIR),
            "latest": str(latest) if latest else None,
            "backups": [
                {"file": str(one.path), "kind": one.kind, "created_at": one.at, "size": one.size} for one in found
            ],
        }


class Verify(Subcommand):
    help = "Read backups to the last byte and say which are whole. Exit code 0 or 1."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", metavar="FILE", nargs="*", type=Path, help="default: every one there is")

    def run(self, *, files: list[Path]) -> Answer:
        latest = folder.latest(settings.MCP_BACKUP_DIR)
        every = [one.path for one in folder.kept(settings.MCP_BACKUP_DIR)] + ([latest] if latest else [])
        judged = restoring.verified(files or every)
        bad = [one["file"] for one in judged if not one["ok"]]
        if not bad:
            return Answer({"backups": judged})
        wrong = {"error": "damaged", "message": f"{len(bad)} of {len(judged)} cannot be restored: {', '.join(bad)}"}
        return Answer({"ok": False, **wrong, "backups": judged}, Exit.FAILED)


class Prune(Subcommand):
    help = "Remove all but the newest backups of each kind (daily, before a change, by hand, before a restore)."

    def add_arguments(self, parser: CommandParser) -> None:
        _add_keep(parser)
        parser.add_argument("--dry-run", action="store_true", help="only say which")

    def run(self, *, keep: int | None, dry_run: bool) -> dict[str, Any]:
        return {"removed": saving.prune(keep=keep, dry_run=dry_run), "dry_run": dry_run}


class Command(JsonCommand):
    help = "Backups of configuration, keys and settings. To bring one back: mcprestore."
    subcommands = {"create": Create, "list": List, "verify": Verify, "prune": Prune}


def _add_keep(parser: CommandParser) -> None:
    parser.add_argument("--keep", type=_count, metavar="N", help="how many of each kind, instead of MCP_BACKUP_KEEP")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)
