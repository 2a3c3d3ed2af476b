"""The other workers of this machine, asked for what only their memory knows, all at the same time.

Whoever does not answer in time is left out and named: a worker that hangs must not keep anybody else's state from being seen.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcpserver.lib import control
from mcpserver.lib.errors import GatewayError

# Asked for a page that is due within a second.
ASK_S = 0.5
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Heard:
    """`silent`: the names of those whose socket is there, and who say nothing."""

    answers: Sequence[dict[str, Any]] = ()
    silent: Sequence[str] = ()


def places(run_dir: Path) -> list[Path]:
    """The control sockets of this machine's workers."""
    return sorted(run_dir.glob("gateway-*.sock"))


def ask(run_dir: Path, request: dict[str, Any], *, timeout_s: float = ASK_S) -> Heard:
    """Everybody's answer; a worker that drains in a rolling restart has given its socket away."""
    found = places(run_dir)
    if not found:
        return Heard()
    with ThreadPoolExecutor(min(len(found), _AT_ONCE), thread_name_prefix="siblings") as threads:
        heard = list(threads.map(lambda path: _answer(path, request, timeout_s), found))
    answers = [one for one in heard if isinstance(one, dict)]
    return Heard(answers, [one for one in heard if isinstance(one, str)])


def _answer(path: Path, request: dict[str, Any], timeout_s: float) -> dict[str, Any] | str | None:
    try:
        return control.ask(path, request, timeout_s=timeout_s)
    except GatewayError as error:
        # `not_running`: the socket of one that was killed. Anything else: it lives and says nothing.
        return None if error.code == "not_running" else path.stem
