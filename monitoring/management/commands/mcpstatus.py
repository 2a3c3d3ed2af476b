"""`mcpstatus`: everything there is to know about the gateway of this machine, running or not."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from mcpserver.lib.command import Answer, JsonCommand
from mcpserver.lib.errors import Exit
from monitoring import asked, status
from monitoring.backups import folder

_WELL = {"healthy"}
_WELL_ENOUGH = {"healthy", "degraded"}


class Command(JsonCommand):
    help = "Show the state of the gateway and its remotes, whether it runs or not."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="exit 1 unless the gateway is healthy or degraded")
        parser.add_argument("--strict", action="store_true", help="--check, and degraded is not good enough either")

    def run(self, *, check: bool = False, strict: bool = False) -> Answer:
        gathered = asked.gather(Path(settings.MCP_RUN_DIR))
        word = status.word(gathered)
        document = status.document(gathered) | {"backups": folder.summary(settings.MCP_BACKUP_DIR)}
        if word == "stopped":
            return Answer(_not_running() | document, Exit.NOT_RUNNING)
        if (check or strict) and word not in (_WELL if strict else _WELL_ENOUGH):
            found = {"error": "unhealthy", "message": f"the gateway is {word}"}
            return Answer(found | document, Exit.FAILED)
        return Answer(document)


def _not_running() -> dict[str, Any]:
    return {
        "error": "not_running",
        "message": "the gateway is not running; this is what its files and database tell",
        "hint": "start it with: mcpserver start",
    }
