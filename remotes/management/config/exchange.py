"""`mcpconfig import|export`: what other programs have, in; what they need, out."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import CommandParser

from mcpserver.lib.command import Answer, Subcommand, actor
from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.supervisor import address
from remotes import services
from remotes.config import load
from remotes.config.exchange import detection, exporting, importing, reading
from remotes.config.exchange.importing import Plan
from remotes.config.snapshot import documents
from remotes.management.config.changing import config_path, diff
from remotes.management.mcp.edits import literal_secrets
from remotes.management.mcp.sources import configured_text

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Import(Subcommand):
    help = "Take servers over from another program's file: told apart by content, nothing run, every field left out reported."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file", metavar="FILE", help="such as ~/.cursor/mcp.json or ~/.codex/config.toml; - reads stdin"
        )
        parser.add_argument("--format", choices=("auto", *detection.FORMATS), default="auto", help="default: auto")
        parser.add_argument("--only", type=_names, default=(), metavar="A,B", help="these servers alone")
        parser.add_argument("--prefix", default="", metavar="TEXT", help="before every name")
        parser.add_argument("--replace", action="store_true", help="take the place of remotes of the same name")
        parser.add_argument("--dry-run", action="store_true", help="show the difference; change nothing")

    def run(self, *, file: str, dry_run: bool, **options: Any) -> Answer:
        value = reading.values(_text_of(file))
        made: list[Plan] = []

        def change(whole: dict[str, Any]) -> None:
            existing = whole.get("mcpServers") or {}
            plan = importing.plan(value, existing, fault=_fault(whole), **options)
            made.append(plan)
            whole["mcpServers"] = existing | plan.added

        done = services.edit(change, path=config_path(), expected=None, actor=f"{actor()}: import", dry_run=dry_run)
        return self._answer(made[-1], {"revision": done.number, "dry_run": dry_run, "diff": diff(done)}, done.warnings)

    def _answer(self, plan: Plan, facts: dict[str, Any], warnings: Any) -> Answer:
        places = tuple(f"mcpServers.{name}" for name in plan.added)
        told = [one for one in documents(warnings) if one["path"].startswith(places)]
        told += [warning for name, entry in plan.added.items() for warning in literal_secrets(name, entry)]
        document = {
            "format": plan.format, "added": [name for name in plan.added if name not in plan.replaced],
            "replaced": plan.replaced, "skipped": plan.skipped, "renamed": plan.renamed, "needs_env": plan.needs_env,
            "dropped_fields": plan.dropped_fields, "notes": plan.notes, **facts, "warnings": told,
        }  # fmt: skip
        unset = [name for name in plan.needs_env if not os.environ.get(name)]
        if unset:
            self.say(f"set in .env, then restart: {', '.join(unset)}")
        if plan.added or not plan.skipped:
            return Answer(document)
        hint = "each reason is under `skipped`"
        return Answer(
            {"error": "nothing_imported", "message": "no server was taken over", "hint": hint} | document, Exit.FAILED
        )


class Export(Subcommand):
    help = "Print a client's configuration: one entry for this gateway, or with --direct the remotes themselves. No secrets."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--format", choices=exporting.FORMATS, default="mcpServers", help="default: mcpServers")
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--gateway", action="store_true", help="one entry that leads here (the default)")
        which.add_argument(
            "--direct", action="store_true", help="the remotes, for a client that does without the gateway"
        )
        parser.add_argument("--only", type=_names, default=(), metavar="A,B", help="with --direct: these remotes alone")
        parser.add_argument("--url", metavar="URL", help="where clients reach the gateway; default: where it listens")

    def run(self, *, format: str, gateway: bool, direct: bool, only: tuple[str, ...], url: str | None) -> Answer:
        if direct:
            entries = (
                load.read(configured_text(), os.environ, config_path().absolute().parent).value.get("mcpServers") or {}
            )
            chosen = {name: entry for name, entry in entries.items() if not only or name in only}
            made = exporting.direct(chosen, format)
        else:
            made = exporting.gateway(url or address.url(), format)
        for one in made.dropped_fields:
            self.say(f"left out: {one['name']}.{one['field']}: {one['reason']}")
        for note in made.notes:
            self.say(note)
        document = {
            "format": format, "document": made.document, "needs_env": made.needs_env, "dropped_fields": made.dropped_fields,
            "notes": made.notes,
        }  # fmt: skip
        return Answer(document, text=made.text)


def _text_of(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.buffer.read(reading.TEXT_MAX + 1).decode()
        return Path(file).expanduser().read_bytes().decode()
    except OSError as error:
        hint = "give the path of a client's configuration, such as ~/.cursor/mcp.json"
        raise GatewayError(
            "not_found", f"{file} cannot be read: {error.strerror}", hint=hint, exit_code=Exit.NOT_FOUND
        ) from None
    except UnicodeDecodeError:
        raise GatewayError(
            "unreadable", f"{file} is not UTF-8 text", hint="save it as UTF-8", exit_code=Exit.CONFIG
        ) from None


def _fault(whole: Mapping[str, Any]) -> importing.Fault:
    """An entry judged alone, as the whole file will be: one that is wrong keeps no other from coming."""

    own = address.url()

    def fault(name: str, entry: Mapping[str, Any]) -> str | None:
        if _is_this_gateway(str(entry.get("url", "")), own):
            return "this is the gateway itself"
        allowed = whole.get("allow_private_networks", False)
        alone = json.dumps({"mcpServers": {name: entry}, "allow_private_networks": allowed})
        errors = load.read(alone, os.environ, config_path().absolute().parent).errors
        return "; ".join(f"{one.path.rpartition('.')[2]}: {one.message}" for one in errors) or None

    return fault


def _is_this_gateway(url: str, own: str) -> bool:
    here = urlsplit(own)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return port == here.port and parts.hostname in _LOOPBACK | {here.hostname} and parts.path in ("/mcp", "/sse")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
