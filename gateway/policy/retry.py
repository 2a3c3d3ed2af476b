"""Whether a call that failed is tried again, and after how long. One deadline holds for all attempts and the waits between them.

What may have been executed is never repeated: only what the remote provably has not seen, what changes nothing by its nature (a
handshake, a ping, a list, a read), and tools that say they may be repeated, where the operator allows it.
"""

from dataclasses import dataclass

import msgspec

from remotes.upstream.outcome import Failure, Fault

# Waits after the first, second and third try; spread, so that callers who failed together do not come back together.
WAITS_S = (1.0, 2.0, 4.0)
SPREAD = 0.2
_READS = frozenset(
    {
        "initialize",
        "server/discover",
        "ping",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
_PASSING = (Fault.NOT_SENT, Fault.TIMEOUT, Fault.BROKEN)
_TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Attempt:
    """The `tried`th try of a call, which failed with `left_s` to the deadline. `may_repeat`: its tool and its operator say so."""

    method: str
    failure: Failure
    tried: int
    left_s: float
    may_repeat: bool = False


def wait_s(attempt: Attempt, chance: float) -> float | None:
    """How long to wait before the next try, None when there is none. `chance` is in [0, 1)."""
    if attempt.tried > len(WAITS_S) or not _is_safe(attempt) or not _may_pass(attempt.failure):
        return None
    wait = WAITS_S[attempt.tried - 1] * (1 + SPREAD * (2 * chance - 1))
    wait = max(wait, attempt.failure.retry_after_s or 0.0)
    return wait if wait < attempt.left_s else None


def is_repeatable(tool: bytes) -> bool:
    """Whether a tool's definition says that calling it twice is like calling it once (server/tools, "Annotations")."""
    try:
        hints = msgspec.json.decode(tool, type=_Tool).annotations
    except msgspec.DecodeError:
        return False
    return hints.idempotentHint or hints.readOnlyHint


def _is_safe(attempt: Attempt) -> bool:
    return attempt.failure.is_unsent or attempt.method in _READS or attempt.may_repeat


def _may_pass(failure: Failure) -> bool:
    """Whether another try may find it better. A program that cannot be started will not be there a second later."""
    if failure.fault is Fault.HTTP_STATUS:
        return failure.status >= 500 or failure.status == _TOO_MANY
    return failure.fault in _PASSING and failure.phase != "spawn"


class _Annotations(msgspec.Struct, frozen=True):
    readOnlyHint: bool = False
    idempotentHint: bool = False


class _Tool(msgspec.Struct, frozen=True):
    annotations: _Annotations = _Annotations()
