"""What `mcpkey` reads from its command line: spans, counts, and what a key may use."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import CommandParser

from mcpserver.lib.clock import SystemClock
from mcpserver.lib.command import usage_error
from mcpserver.lib.duration import duration

# What `--clear` takes away, and the fields of a grant behind each.
CLEARED: dict[str, dict[str, Any]] = {
    "mcps": {"mcps": ()},
    "allow": {"allow": ()},
    "deny": {"deny": ()},
    "max-connections": {"max_connections": None},
    "rate": {"rate": None, "rates": ()},
}


def add_which(parser: CommandParser, verb: str) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="a name, or an id that is nobody's name")
    parser.add_argument(
        "--id", default="", metavar="ID", help=f"{verb} only this one: its id, its prefix or the whole key"
    )


def check_which(name: str, id: str, command: str) -> None:
    if bool(name) == bool(id):
        raise usage_error("give either NAME or --id ID", hint=f"see: mcpkey {command} --help")


def add_grant(parser: CommandParser, otherwise: str) -> None:
    group = parser.add_argument_group(
        "what it may use", f"Without these options: {otherwise}. Each may come several times."
    )
    group.add_argument("--mcps", action="append", metavar="A,B", help="only these remotes")
    group.add_argument("--allow", action="append", metavar="PATTERN", help="only these tools, such as 'stripe__*'")
    group.add_argument("--deny", action="append", metavar="PATTERN", help="never these, such as '*__delete_*'")
    group.add_argument("--max-connections", type=count, metavar="N", help="open streams at once")
    group.add_argument(
        "--rate", action="append", type=_rate, metavar="N|MCP=N", help="requests a minute, in all or to one remote"
    )
    group.add_argument("--clear", action="append", choices=list(CLEARED), help="take this restriction away")


def changes(
    *,
    mcps: list[str] | None,
    allow: list[str] | None,
    deny: list[str] | None,
    max_connections: int | None,
    rate: list[tuple[str, int]] | None,
    clear: list[str] | None,
) -> dict[str, Any]:
    """The fields of a grant that the command line names; each replaces what was there."""
    found: dict[str, Any] = {}
    for what in clear or ():
        found |= CLEARED[what]
    if mcps is not None:
        found["mcps"] = tuple(dict.fromkeys(name for names in mcps for name in names.split(",") if name))
        if not found["mcps"]:
            raise usage_error("--mcps names no remote", hint="to take the restriction away: --clear mcps")
    if allow is not None:
        found["allow"] = tuple(dict.fromkeys(allow))
    if deny is not None:
        found["deny"] = tuple(dict.fromkeys(deny))
    if max_connections is not None:
        found["max_connections"] = max_connections
    return found | _rates(rate or [])


def _rates(given: list[tuple[str, int]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rates = tuple(sorted({remote: number for remote, number in given if remote}.items()))
    if rates:
        found["rates"] = rates
    for remote, number in given:
        if not remote:
            found["rate"] = number
    return found


def time(text: str) -> timedelta:
    """argparse shows only this kind of error's own words."""
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def moment(text: str) -> datetime:
    """So long ago, or a time in ISO 8601: UTC where it does not say."""
    try:
        return SystemClock().now() - duration(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        why = f"{text!r} is neither a duration such as 2h nor a time such as 2026-11-22T10:00"
        raise argparse.ArgumentTypeError(why) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000")
    return int(text)


def _rate(text: str) -> tuple[str, int]:
    remote, _, number = text.rpartition("=")
    return remote, count(number)
