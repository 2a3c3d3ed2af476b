"""Everything that can be found out from outside about this machine's gateway, for commands: workers, supervisor, database, Redis.

All are asked at the same time, and nobody is waited for longer than half a second: who wants to know what is wrong must not
hang with it. What does not answer is said to be down; the thread that still waits for it ends with the command.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.db import connections

from mcpserver.lib import control, usage
from mcpserver.lib.database import UNUSABLE
from mcpserver.lib.errors import GatewayError
from monitoring import facts, health, siblings, status
from remotes.config.snapshot import RemoteSpec

WAIT_S = 0.5
# Who asks a socket says itself, after `WAIT_S`, that nobody answered.
_SPARE_S = 0.2

T = TypeVar("T")


def gather(run: Path) -> status.Gathered:
    """Ask everybody once. Whoever does not answer is left out, and named when it should have."""
    workers = _Asked(lambda: siblings.ask(run, {"op": "status"}, timeout_s=WAIT_S))
    supervisor = _Asked(lambda: control.ask(run / "supervisor.sock", {"op": "status"}, timeout_s=WAIT_S))
    stored, redis = _Asked(facts.read_stored), _Asked(lambda: facts.redis_word(settings.REDIS_URL))
    heard = workers.answer(siblings.Heard())
    live = status.merged(heard.answers)
    known = _with_redis(stored.answer(facts.without_database()), redis.answer("down"))
    if not live:  # What was written down of a remote that went is nobody's concern.
        known = replace(known, remotes=_configured(known.remotes))
    return status.Gathered(
        facts=facts.assemble(live, known, _process(heard.answers)),
        workers=heard.answers,
        silent=heard.silent,
        supervisor=supervisor.answer(None),
        remotes=known.remotes,
        beat_age_s=known.beat_age_s,
    )


class _Asked(Generic[T]):
    """A question under way in a thread of its own, which nobody has to wait for."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._said: list[T] = []
        self._ended = threading.Event()
        self._ask = ask
        self._until = time.monotonic() + WAIT_S + _SPARE_S
        threading.Thread(target=self._run, name="asked", daemon=True).start()

    def answer(self, otherwise: T | None) -> Any:
        """What was said, or `otherwise` when nothing was in time."""
        self._ended.wait(max(0.0, self._until - time.monotonic()))
        return self._said[0] if self._said else otherwise

    def _run(self) -> None:
        try:
            self._said.append(self._ask())
        except (GatewayError, OSError, *UNUSABLE):
            return  # The same as no answer: the caller says what that means.
        finally:
            self._ended.set()
            connections.close_all()  # This thread's own: whoever asks again and again would pile them up.


def _with_redis(stored: facts.Stored, word: health.Dependency) -> facts.Stored:
    return replace(stored, dependencies={**stored.dependencies, "redis": word})


def _process(workers: Any) -> usage.Process:
    """As the system sees them: a worker says what it last measured, not what it uses while it hangs."""
    seen = [usage.of(int(one["pid"]), over_s=0) for one in workers if one.get("pid")]
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
