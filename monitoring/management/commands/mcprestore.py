"""`mcprestore`: bring a backup back, with the gateway running or not. Parses, asks and prints; `monitoring.backups` does."""

import sys
from typing import Any

from django.core.management.base import CommandParser

from mcpserver.lib.command import JsonCommand, actor
from mcpserver.lib.errors import Exit, GatewayError
from monitoring.backups import restoring


class Command(JsonCommand):
    help = (
        "Bring back a backup, or the last known good configuration (.mcp-config.backup.yaml). It is verified first, and the "
        "state of now is backed up. Revoked keys stay revoked; keys made since stay."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE|latest", help="a file, or the newest: backups/backup-latest.json")
        parser.add_argument("--dry-run", action="store_true", help="verify it and show what would change")
        parser.add_argument("--only", choices=["config", "keys"], help="bring back only this")
        parser.add_argument("--yes", action="store_true", help="do not ask, on a terminal")

    def run(self, *, file: str, dry_run: bool, only: str | None, yes: bool) -> dict[str, Any]:
        restore = restoring.prepare(file, only=only, actor=actor())
        told = {"file": str(restore.source), "sha256": restore.sha256, "checksum_ok": True, "dry_run": dry_run}
        if dry_run:
            return told | {"changes": restore.plan()}
        if not yes and sys.stdin.isatty():
            self._ask(restore)
        done = restore.run()
        self.say(
            f"The state of before lies in {done['backup_of_current']}. A gateway that runs follows within a second."
        )
        return told | done

    def _ask(self, restore: restoring.Restore) -> None:
        self.say(f"{restore.source}: {restore.plan()}")
        self.say("Restore it? [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise GatewayError("declined", "nothing was restored", exit_code=Exit.FAILED)
