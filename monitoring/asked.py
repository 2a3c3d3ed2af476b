"""Everything that can be found out from outside about the gateway, for commands: workers, supervisor, database, Redis, and what
the workers of other machines left word of there.

All are asked at the same time, and nobody is waited for longer than half a second: who wants to know what is wrong must not
hang with it. What does not answer is said to be down; the thread that still waits for it ends with the command.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections

from gateway.cluster import said
from mcpserver.lib import control, node, usage
from mcpserver.lib.errors import GatewayError
from monitoring import facts, health, nodes, siblings, status
from remotes.config.snapshot import RemoteSpec

WAIT_S = 0.45
# The database and Redis answer sooner, or something is wrong with them.
STORES_WAIT_S = 0.4
# Who asks a socket says itself, after `WAIT_S`, that nobody answered.
_SPARE_S = 0.05

T = TypeVar("T")


def gather(run: Path, *, local: bool = False) -> status.Gathered:
    """Ask everybody once. Whoever does not answer is left out, and named when it should have. `local`: this machine alone."""
    workers = _Asked(lambda: siblings.ask(run, {"op": "status"}, timeout_s=WAIT_S), WAIT_S + _SPARE_S)
    supervisor = _Asked(lambda: control.ask(run / "supervisor.sock", {"op": "status"}, timeout_s=WAIT_S), WAIT_S)
    stored = _Asked(facts.read_stored, STORES_WAIT_S)
    redis = _Asked(_asking_redis(), STORES_WAIT_S)
    heard = workers.answer(siblings.Heard())
    here = status.merged(heard.answers)
    of_file = {} if here else _configured()  # Read while the others are waited for.
    known = stored.answer(facts.without_database())
    if not here:  # What was written down of a remote that went is nobody's concern.
        known = replace(known, remotes=_known_of(of_file, known.remotes))
    word, spoken = redis.answer(("down", ()))
    others = [] if local else nodes.elsewhere(spoken, node.known(run), node.CHARS)
    live = nodes.across(here, others)
    supervised = supervisor.answer(None)
    own = nodes.Node(
        node.known(run) or "local",
        0.0,
        heard.answers,
        len(heard.silent),
        is_local=True,
        is_supervised=supervised is not None,
    )
    return status.Gathered(
        facts=facts.assemble(live, _with_redis(known, word), _process(heard.answers)),
        workers=heard.answers,
        silent=heard.silent,
        live=live,
        nodes=nodes.documents([own, *others], settings.LIMITS),
        elsewhere=nodes.warnings(others),
        supervisor=supervised,
        remotes=known.remotes,
        beat_age_s=known.beat_age_s,
    )


class _Asked(Generic[T]):
    """A question under way in a thread of its own, which nobody has to wait for."""

    def __init__(self, ask: Callable[[], T], wait_s: float) -> None:
        self._said: list[T] = []
        self._ended = threading.Event()
        self._ask = ask
        self._until = time.monotonic() + wait_s
        threading.Thread(target=self._run, name="asked", daemon=True).start()

    def answer(self, otherwise: T | None) -> Any:
        """What was said, or `otherwise` when nothing was in time."""
        self._ended.wait(max(0.0, self._until - time.monotonic()))
        return self._said[0] if self._said else otherwise

    def _run(self) -> None:
        try:
            self._said.append(self._ask())
        except (GatewayError, OSError, DatabaseError, InterfaceError):  # whatever the file is: a database, or none
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


def _asking_redis() -> Callable[[], tuple[health.Dependency, Sequence[said.Said]]]:
    """Redis is only asked for where one is configured; what was said there tells that it is."""
    if not settings.REDIS_URL:
        return lambda: ("not_configured", ())
    import redis  # noqa: F401  Loading it takes longer than its answer: not inside the wait for that.

    return lambda: ("ok", said.read(settings.REDIS_URL, settings.SECRET_KEY.encode(), timeout_s=STORES_WAIT_S))


def _configured() -> dict[str, dict[str, Any]] | None:
    """With no gateway to ask: the remotes of the file, as far as it can be read."""
    # Imported here: the schema costs more time than all the rest of a status.
    from remotes.config import load

    path = Path(settings.MCP_CONFIG)
    try:
        snapshot, _ = load.parse(path.read_text(encoding="utf-8"), os.environ, path.parent)
    except (OSError, UnicodeDecodeError):
        snapshot = None
    return None if snapshot is None else {name: _said_by(spec) for name, spec in snapshot.remotes.items()}


def _known_of(of_file: Mapping[str, dict[str, Any]] | None, stored: Mapping[str, Mapping[str, Any]]) -> Any:
    """With what was last known of them."""
    return stored if of_file is None else {name: {**stored.get(name, {}), **row} for name, row in of_file.items()}


def _said_by(spec: RemoteSpec) -> dict[str, Any]:
    said: dict[str, Any] = {"transport": spec.transport}
    if spec.missing:
        said |= {"status": "misconfigured", "missing_env": [one.variable for one in spec.missing]}
    return said if spec.enabled else said | {"status": "disabled"}
