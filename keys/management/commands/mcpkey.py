"""`mcpkey`: make, look at, narrow and end keys. Parses and prints; `keys.services` and `keys.selectors` do."""

import getpass
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from keys import selectors, services
from keys.management import arguments
from keys.models import KeyEvent
from mcpserver.launch import snippets
from mcpserver.lib import control
from mcpserver.lib.clock import SystemClock
from mcpserver.lib.command import Answer, JsonCommand, Lines, Subcommand, actor, nearest, usage_error
from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.supervisor import address

FOLLOW_S = 1.0
# Longer than any key: what is pasted with it is no key any more.
KEY_MAX_CHARS = 4096
_ASK_S = 3.0


class Generate(Subcommand):
    help = "Make a key and show it, this once. Older keys of the same name work 24 hours more."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="whose key it is, such as main or alice@laptop")
        parser.add_argument(
            "--grace", type=arguments.time, default=services.GRACE, metavar="TIME",
            help="how long older keys of this name go on working: 24h by default, 0 ends them now",
        )  # fmt: skip
        parser.add_argument(
            "--expires", type=arguments.time, metavar="TIME", help="how long it works, such as 90d; default: for ever"
        )
        parser.add_argument("--replaces", default="", metavar="NAME", help="the keys of this name get the grace too")
        parser.add_argument(
            "--client",
            choices=list(snippets.CLIENTS),
            help="also what this client needs to connect, with the key in it",
        )
        arguments.add_grant(parser, "what its predecessor of this name could use, or everything")

    def run(
        self,
        *,
        name: str,
        grace: timedelta,
        expires: timedelta | None,
        replaces: str,
        client: str | None,
        **grant: Any,
    ) -> dict[str, Any]:
        changes = arguments.changes(**grant)
        made = services.generate(
            name=name,
            actor=actor(),
            grace=grace,
            expires_in=expires,
            replaces=replaces,
            changes=changes,
        )
        if client is not None:
            made["snippet"] = snippets.CLIENTS[client](address.url(), made["key"])
        _warn_of_strangers(changes, self.say)
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


class Show(Subcommand):
    help = "Every key of a name, ended ones too: what it may use, and how it came to be what it is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="a name, or an id that is nobody's name")

    def run(self, *, name: str) -> dict[str, Any]:
        keys = selectors.show(name, SystemClock().now())
        changes = [event for event in selectors.audit(name=name, limit=1000) if event["event"] != KeyEvent.Event.USED]
        return {"keys": keys, "events": changes}


class Set(Subcommand):
    help = "Change what the working keys of a name may use, and how much. What is not named stays as it is."

    def add_arguments(self, parser: CommandParser) -> None:
        arguments.add_which(parser, "change")
        parser.add_argument("--expires", type=arguments.time, metavar="TIME", help="from now on, such as 90d")
        arguments.add_grant(parser, "as it is")

    def run(self, *, name: str, id: str, expires: timedelta | None, **grant: Any) -> dict[str, Any]:
        arguments.check_which(name, id, "set")
        changes = arguments.changes(**grant)
        if not changes and expires is None:
            raise usage_error("nothing to set", hint="see: mcpkey set --help")
        changed = services.change(actor=actor(), name=name, key_id=id, changes=changes, expires_in=expires)
        _tell_gateways()
        _warn_of_strangers(changes, self.say)
        return changed


class Revoke(Subcommand):
    help = "End every key of a name, or one key by its id, at once."

    def add_arguments(self, parser: CommandParser) -> None:
        arguments.add_which(parser, "end")

    def run(self, *, name: str, id: str) -> dict[str, Any]:
        arguments.check_which(name, id, "revoke")
        revoked = services.revoke(name=name, key_id=id, actor=actor())
        return revoked | {"connections_closed": _tell_gateways()}


class Verify(Subcommand):
    help = "Read a key from stdin and say whether it works. Exit code 0 or 4."

    def run(self) -> Answer:
        key = _read_key()
        name, status, opens = selectors.judged(key, SystemClock().now())
        facts = {"valid": opens, "name": name or None, "status": status}
        if opens:
            return Answer(facts)
        refusal = {"error": "invalid_key", "message": f"this key does not open: it is {status}"}
        return Answer({"ok": False, **refusal, "hint": "see them with: mcpkey list --all", **facts}, Exit.KEY)


class Audit(Subcommand):
    help = "What happened to keys and who used them: every change, and the first use of each key in each minute."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", default="", metavar="NAME", help="only of this name or id")
        parser.add_argument("--event", choices=KeyEvent.Event.values, default="", help="only of this kind")
        parser.add_argument("--since", type=arguments.time, metavar="TIME", help="not older than this, such as 24h")
        parser.add_argument(
            "--limit", type=arguments.count, default=100, metavar="N", help="the newest N: 100 by default"
        )
        parser.add_argument("--follow", action="store_true", help="go on, one JSON line for each, until Ctrl-C")

    def run(
        self, *, name: str, event: str, since: timedelta | None, limit: int, follow: bool
    ) -> dict[str, Any] | Lines:
        start = SystemClock().now() - since if since is not None else None
        wanted: dict[str, Any] = {"name": name, "event": event, "since": start}
        events = selectors.audit(**wanted, limit=limit)
        return Lines(_followed(events, wanted)) if follow else {"events": events}


class Command(JsonCommand):
    help = "API keys: who may call the gateway, and what they may use."
    subcommands = {
        "generate": Generate,
        "list": List,
        "show": Show,
        "set": Set,
        "revoke": Revoke,
        "verify": Verify,
        "audit": Audit,
    }


def _warn_of_strangers(changes: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """A remote may be added later; more often its name was mistyped, and the key sees nothing."""
    named = [*changes.get("mcps", ()), *(remote for remote, _ in changes.get("rates", ()))]
    if not named:
        return
    # Imported here: the configuration's schema costs more time than all the rest.
    from remotes.management.mcp.sources import configured

    try:
        known = list(configured().remotes)
    except GatewayError:  # A configuration that cannot be read is somebody else's concern.
        return
    for name in dict.fromkeys(named):
        if name not in known:
            meant = nearest(name, known)
            say(f"There is no remote {name} yet" + (f": did you mean {meant}?" if meant else "."))


def _followed(events: list[dict[str, Any]], wanted: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    last = 0
    while True:
        for event in events:
            last = event["number"]
            yield event
        yield None
        time.sleep(FOLLOW_S)
        events = selectors.audit(**wanted, after=last, limit=1000)


def _read_key() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("the key (it is not shown): ").strip()
    return sys.stdin.read(KEY_MAX_CHARS).strip()


def _tell_gateways() -> int | None:
    """Have the gateways of this machine look at the keys now; how many streams that closed, None when none answered."""
    closed: int | None = None
    for path in sorted(settings.MCP_RUN_DIR.glob("gateway-*.sock")):
        try:
            answer = control.ask(path, {"op": "keys"}, timeout_s=_ASK_S)
        except GatewayError:  # It reads them itself, each second.
            continue
        closed = (closed or 0) + int(answer.get("closed", 0))
    return closed
