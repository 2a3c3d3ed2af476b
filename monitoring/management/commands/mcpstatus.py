"""`mcpstatus`: everything there is to know about the gateway of this machine, running or not."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.db import DatabaseError, InterfaceError

from mcpserver.lib import control, usage
from mcpserver.lib.command import Answer, JsonCommand
from mcpserver.lib.errors import Exit, GatewayError
from monitoring import facts, status
from monitoring.backups import folder
from remotes.config.snapshot import RemoteSpec

# Each worker is asked in turn: a stalled one must not make a person wait.
ASK_S = 1.0
_WELL = {"healthy"}
_WELL_ENOUGH = {"healthy", "degraded"}


class Command(JsonCommand):
    help = "Show the state of the gateway and its remotes, whether it runs or not."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="exit 1 unless the gateway is healthy or degraded")
        parser.add_argument("--strict", action="store_true", help="--check, and degraded is not good enough either")

    def run(self, *, check: bool = False, strict: bool = False) -> Answer:
        gathered = gather(Path(settings.MCP_RUN_DIR))
        word = status.word(gathered)
        document = status.document(gathered) | {"backups": folder.summary(settings.MCP_BACKUP_DIR)}
        if word == "stopped":
            return Answer(_not_running() | document, Exit.NOT_RUNNING)
        if (check or strict) and word not in (_WELL if strict else _WELL_ENOUGH):
            found = {"error": "unhealthy", "message": f"the gateway is {word}"}
            return Answer(found | document, Exit.FAILED)
        return Answer(document)


def gather(run: Path) -> status.Gathered:
    """Ask everybody once. Whoever does not answer is left out, and named when it should have."""
    workers, silent = _ask_workers(run)
    stored = _stored()
    live = status.merged(workers)
    if not live:  # What was written down of a remote that went is nobody's concern.
        stored = replace(stored, remotes=_configured(stored.remotes))
    return status.Gathered(
        facts=facts.assemble(live, stored, _process(workers)),
        workers=workers,
        silent=silent,
        supervisor=_answer(run / "supervisor.sock"),
        remotes=stored.remotes,
        beat_age_s=stored.beat_age_s,
    )


def _ask_workers(run: Path) -> tuple[list[dict[str, Any]], list[str]]:
    answered: list[dict[str, Any]] = []
    silent: list[str] = []
    for path in sorted(run.glob("gateway-*.sock")):
        try:
            answered.append(control.ask(path, {"op": "status"}, timeout_s=ASK_S))
        except GatewayError as error:
            # `not_running`: the socket of one that was killed. Anything else: it lives and says nothing.
            silent += [] if error.code == "not_running" else [path.stem]
    return answered, silent


def _answer(path: Path) -> dict[str, Any] | None:
    try:
        return control.ask(path, {"op": "status"}, timeout_s=ASK_S)
    except GatewayError:
        return None


def _stored() -> facts.Stored:
    try:
        stored = facts.read_stored()
    except (DatabaseError, InterfaceError):
        stored = facts.without_database()
    return facts.with_redis(stored)


def _process(workers: list[dict[str, Any]]) -> usage.Process:
    """The hungriest worker: limits are per worker."""
    seen = [usage.of(int(one["pid"])) for one in workers if one.get("pid")]
    return max((one for one in seen if one is not None), key=lambda one: one.rss_mb, default=usage.Process())


def _configured(stored: Any) -> dict[str, dict[str, Any]]:
    """With no gateway to ask: the remotes of the file, as far as it can be read, with what was last known of them."""
    # Imported here: the schema costs more time than all the rest of a status.
    from remotes.config import load

    path = Path(settings.MCP_CONFIG)
    try:
        snapshot, _ = load.parse(path.read_text(encoding="utf-8"), os.environ, path.parent)
    except (OSError, UnicodeDecodeError):
        snapshot = None
    if snapshot is None:
        return dict(stored)
    return {name: {**stored.get(name, {}), **_said_by(spec)} for name, spec in snapshot.remotes.items()}


def _said_by(spec: RemoteSpec) -> dict[str, Any]:
    said: dict[str, Any] = {"transport": spec.transport}
    if spec.missing:
        said |= {"status": "misconfigured", "missing_env": [one.variable for one in spec.missing]}
    return said if spec.enabled else said | {"status": "disabled"}


def _not_running() -> dict[str, Any]:
    return {
        "error": "not_running",
        "message": "the gateway is not running; this is what its files and database tell",
        "hint": "start it with: mcpserver start",
    }
