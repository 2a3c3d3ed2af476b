"""`mcpstatus`: everything there is to know about the gateway, running or not, here and on machines that share its Redis."""

import os
import shutil
import sys
from argparse import ArgumentTypeError
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from mcpserver.lib.command import Answer, JsonCommand, Lines
from mcpserver.lib.errors import Exit
from monitoring import asked, screen, status, watching
from monitoring.backups import folder

NOT_RUNNING = "the gateway is not running; this is what its files and database tell"
_WELL = {"healthy"}
_WELL_ENOUGH = {"healthy", "degraded"}


class Command(JsonCommand):
    help = "Show the state of the gateway and its remotes, whether it runs or not."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="exit 1 unless the gateway is healthy or degraded")
        parser.add_argument(
            "--strict",
            action="store_true",
            help="--check, and neither degraded nor a machine without a word is good enough",
        )
        parser.add_argument(
            "--local", action="store_true", help="this machine alone, not those that it shares Redis with"
        )
        parser.add_argument(
            "--watch", nargs="?", type=_seconds, const=2.0, metavar="SECONDS",
            help="a page that is drawn anew every 2 s until Ctrl-C; a JSON line each time where it is piped",
        )  # fmt: skip

    def run(
        self, *, check: bool = False, strict: bool = False, local: bool = False, watch: float | None = None
    ) -> Answer | Lines:
        ask = partial(_document, local=local)
        if watch is not None:
            if not sys.stdout.isatty():
                return Lines(watching.lines(ask, watch))
            watching.watch(ask, watch)
            raise SystemExit(int(Exit.DONE))
        document = ask()
        word, page = document["server"]["status"], _page(document)
        if word == "stopped":
            return Answer(_not_running() | document, Exit.NOT_RUNNING, page=f"{page}\n\n{NOT_RUNNING}")
        if (check or strict) and word not in (_WELL if strict else _WELL_ENOUGH):
            found = {"error": "unhealthy", "message": f"the gateway is {word}"}
            return Answer(found | document, Exit.FAILED, page=page)
        missing = [name for name, node in document["nodes"].items() if not node["reachable"]]
        if strict and missing:
            found = {
                "error": "unreachable",
                "message": f"no word from {len(missing)} of the machines: {', '.join(missing)}",
            }
            return Answer(found | document, Exit.FAILED, page=page)
        return Answer(document, page=page)


def _document(*, local: bool) -> dict[str, Any]:
    gathered = asked.gather(Path(settings.MCP_RUN_DIR), local=local)
    return status.document(gathered) | {"backups": folder.summary(settings.MCP_BACKUP_DIR)}


def _page(document: dict[str, Any]) -> str:
    """For `-o table`: the page of `--watch`, once, as long as it needs to be."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else 200
    colour = is_terminal and "NO_COLOR" not in os.environ
    lines = screen.frame(document, calls_per_minute={}, width=width, height=10_000, colour=colour)
    return "\n".join(line.rstrip() for line in lines)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.2 <= number <= 3600:
        raise ArgumentTypeError(f"{text!r} is no number of seconds from 0.2 to 3600")
    return number


def _not_running() -> dict[str, Any]:
    return {
        "error": "not_running",
        "message": NOT_RUNNING,
        "hint": "start it with: mcpserver start",
    }
