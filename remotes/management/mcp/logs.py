"""`mcp logs`: what the gateway wrote down, filtered, one JSON line each."""

import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from keys.management import arguments
from mcpserver.lib.command import Lines, Subcommand
from mcpserver.lib.errors import Exit, GatewayError
from monitoring import logs
from remotes.management.mcp.asked import ids

_FOLLOW_S = 0.3
_LEVELS = ("debug", "info", "warning", "error")


class Logs(Subcommand):
    help = "The log, one JSON line each: the newest that match, and with -f those that come."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
        parser.add_argument("-n", "--lines", type=arguments.count, default=50, metavar="N", help="the newest N: 50")
        parser.add_argument("--mcp", default="", metavar="NAME", help="only of this remote")
        parser.add_argument("--key", default="", metavar="NAME", help="only of this key, by name or id")
        parser.add_argument("--request", default="", metavar="ID", help="only of this request")
        parser.add_argument("--level", choices=_LEVELS, default="", help="this level or worse")
        parser.add_argument("--since", type=arguments.moment, metavar="TIME", help="not older: 2h, or 2026-11-22T10:00")

    def run(
        self, *, follow: bool, lines: int, mcp: str, key: str, request: str, level: str, since: datetime | None
    ) -> Lines:
        folder = Path(settings.MCP_LOG_DIR)
        if settings.MCP_LOG_TARGET == "stdout":
            hint = "read it where stdout goes, for example: journalctl -u mcp-server -o cat"
            raise GatewayError("no_log_files", "MCP_LOG_TARGET is stdout: there are no files", hint=hint)
        if not follow and not logs.files(folder):
            hint = "start the gateway with: mcpserver start"
            raise GatewayError("not_found", f"there is no log in {folder}", hint=hint, exit_code=Exit.NOT_FOUND)
        wanted = logs.Wanted(mcp, ids(key), request, level, since)
        tail = logs.Tail(folder) if follow else None
        found = logs.last(folder, wanted, lines)
        return Lines(found if tail is None else _followed(found, tail, wanted))


def _followed(found: Iterable[dict[str, Any]], tail: logs.Tail, wanted: logs.Wanted) -> Iterator[dict[str, Any] | None]:
    yield from found
    while True:
        yield from filter(wanted, tail.news())
        yield None
        time.sleep(_FOLLOW_S)
