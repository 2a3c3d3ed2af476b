"""`mcp calls`: who called what, and how it ended, from the database: also while the gateway is down."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser

from keys.management import arguments
from mcpserver.lib import table
from mcpserver.lib.command import Answer, Lines, Subcommand, usage_error
from monitoring import calls
from remotes.management.mcp.asked import ids

_FOLLOW_S = 1.0
# Workers write side by side: what has a lower number can become visible later.
_LATE = 2000


class Calls(Subcommand):
    help = "Who called which tool, prompt or resource, and how it ended: the newest that match."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--key", default="", metavar="NAME", help="only of this key, by name or id")
        parser.add_argument("--mcp", default="", metavar="NAME", help="only of this remote")
        parser.add_argument(
            "--tool", default="", metavar="NAME", help="only of this tool, prompt or URI, as clients see it"
        )
        parser.add_argument(
            "--outcome", choices=[*calls.OUTCOMES, "bad"], default="", help="how it ended; bad: anything but well"
        )
        parser.add_argument(
            "--request", default="", metavar="ID", help="only of this request (its header X-Request-Id)"
        )
        parser.add_argument("--since", type=arguments.moment, metavar="TIME", help="not older: 2h, or 2026-11-22T10:00")
        parser.add_argument("--until", type=arguments.moment, metavar="TIME", help="older than this")
        parser.add_argument(
            "-n", "--limit", type=arguments.count, default=50, metavar="N", help="the newest N, or the busiest: 50"
        )
        parser.add_argument("--stats", action="store_true", help="sums instead: by outcome, what was called, and key")
        parser.add_argument("-f", "--follow", action="store_true", help="go on, one JSON line for each, until Ctrl-C")

    def run(
        self,
        *,
        key: str,
        mcp: str,
        tool: str,
        outcome: str,
        request: str,
        since: datetime | None,
        until: datetime | None,
        limit: int,
        stats: bool,
        follow: bool,
    ) -> dict[str, Any] | Answer | Lines:
        wanted = calls.Wanted(mcp, ids(key), tool, request, outcome, since, until)
        if stats and follow:
            raise usage_error("--stats are of what was: leave out --follow")
        if stats:
            return calls.summed(wanted, limit)
        if follow:
            return Lines(_followed(wanted, limit))
        found = [call for _, call in calls.newest(wanted, limit)]
        return Answer({"calls": found}, page=_page(found))


def _page(found: list[dict[str, Any]]) -> str:
    """What fits a window; the rest of each is in the JSON."""
    shown = ("time", "request", "key_name", "name", "outcome", "ms")
    return table.render({"calls": [{column: call[column] for column in shown} for call in found]})


def _followed(wanted: calls.Wanted, limit: int) -> Iterator[dict[str, Any] | None]:
    before = calls.last_number()
    seen: set[int] = set()
    for _, call in calls.newest(wanted, limit, until=before):
        yield call
    while True:
        last = max(seen, default=before)
        found = dict(calls.newest(wanted, 10 * _LATE, after=max(before, last - _LATE)))
        yield from (call for number, call in found.items() if number not in seen)
        seen = {number for number in seen | found.keys() if number > last - _LATE}
        yield None
        time.sleep(_FOLLOW_S)
