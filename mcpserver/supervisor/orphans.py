"""What a dead worker leaves behind: the processes of its stdio remotes, found and ended with their whole groups.

The supervisor is a child subreaper, so on Linux whatever a dead worker had spawned, however deep, becomes the supervisor's own
child. A process that put itself into the background of a living worker becomes one too, so each worker's descendants are
recorded while it lives: theirs are spared. Elsewhere the record is all there is.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterable

import psutil

from mcpserver.lib.processes import descendants, groups, is_alive, send

_PR_SET_CHILD_SUBREAPER = 36
# Between TERM and KILL. Their stdin has ended already.
GRACE_S = 2.0


class Orphans:
    """The record of who spawned what, and the groups that are being ended."""

    def __init__(self) -> None:
        self._recorded: dict[int, list[psutil.Process]] = {}
        self._doomed: list[tuple[float, list[psutil.Process]]] = []

    def record(self, workers: Iterable[int]) -> None:
        """Note the present descendants of every living worker."""
        self._recorded = {pid: descendants(pid) for pid in workers}

    def left_by(self, dead: int, *, living: Iterable[int], now: float) -> int:
        """End what `dead` left; how many processes that were told to go."""
        mine = set(living)
        spared = {group for pid in mine for group in groups(self._recorded.get(pid, []))}
        strangers = [each for each in descendants(os.getpid(), deep=False) if each.pid not in mine]
        found = [each for each in [*self._recorded.pop(dead, []), *strangers] if not groups([each]) & (spared | mine)]
        found += [deeper for each in found for deeper in descendants(each.pid)]
        victims = [each for each in dict.fromkeys(found) if is_alive(each)]
        if victims:
            send(victims, signal.SIGTERM)
            self._doomed.append((now + GRACE_S, victims))
        return len(victims)

    def next_kill(self) -> float | None:
        return min((at for at, _ in self._doomed), default=None)

    def kill_overdue(self, now: float) -> None:
        for at, victims in self._doomed:
            if at <= now:
                send(victims, signal.SIGKILL)
        self._doomed = [(at, victims) for at, victims in self._doomed if at > now]

    def still_ending(self) -> bool:
        """Whether any of the processes told to go is there yet."""
        self._doomed = [(at, rest) for at, victims in self._doomed if (rest := [v for v in victims if is_alive(v)])]
        return bool(self._doomed)


def become_subreaper() -> bool:
    """Whether the orphans of our children will become our children."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
