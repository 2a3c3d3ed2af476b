"""`mcpkey`: make, list and end keys. Parses and prints; `keys.services` does."""

import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser

from keys import selectors, services
from mcpserver.lib.clock import SystemClock
from mcpserver.lib.command import JsonCommand, Subcommand, actor, usage_error
from mcpserver.lib.duration import duration


class Generate(Subcommand):
    help = "Make a key and show it, this once. Older keys of the same name work 24 hours more."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="whose key it is, such as main or alice@laptop")
        parser.add_argument(
            "--grace", type=_time, default=services.GRACE, metavar="TIME",
            help="how long older keys of this name go on working: 24h by default, 0 ends them now",
        )  # fmt: skip
        parser.add_argument(
            "--expires", type=_time, metavar="TIME", help="how long it works, such as 90d; default: for ever"
        )

    def run(self, *, name: str, grace: timedelta, expires: timedelta | None) -> dict[str, Any]:
        made = services.generate(name=name, actor=actor(), grace=grace, expires_in=expires)
        self.say(
            "Keep the key now: it is stored nowhere and cannot be shown again. A gateway that runs knows it in a second."
        )
        return made


class List(Subcommand):
    help = "List the keys that work."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--all", action="store_true", help="also those that are revoked, expired or retired")

    def run(self, *, all: bool) -> dict[str, Any]:
        return {"keys": selectors.list_keys(SystemClock().now(), ended=all)}


class Revoke(Subcommand):
    help = "End every key of a name, or one key by its id, at once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "name", metavar="NAME", nargs="?", default="", help="a name, or an id that is nobody's name"
        )
        parser.add_argument(
            "--id", default="", metavar="ID", help="end only this one: its id, its prefix or the whole key"
        )

    def run(self, *, name: str, id: str) -> dict[str, Any]:
        if bool(name) == bool(id):
            raise usage_error("give either NAME or --id ID", hint="see: mcpkey revoke --help")
        return services.revoke(name=name, key_id=id, actor=actor())


class Command(JsonCommand):
    help = "API keys: who may call the gateway."
    subcommands = {"generate": Generate, "list": List, "revoke": Revoke}


def _time(text: str) -> timedelta:
    """argparse shows only this kind of error's own words."""
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
