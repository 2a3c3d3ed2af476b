"""Which changes of a remote's status are worth a line in the log: each one, until it flips so often that only that is news.

Pure; times are handed in. Whoever watches keeps one `Damper` and tells it every word it hears, and the one before.
"""

from dataclasses import dataclass
from enum import StrEnum

# So many changes within the window are flapping; one that has not changed for the quiet time has settled.
CHANGES_MAX = 5
WINDOW_S = 600.0
QUIET_S = 300.0


class News(StrEnum):
    NOTHING = "nothing"
    CHANGED = "changed"
    FLAPPING = "flapping"  # said once; its changes are not said any more
    SETTLED = "settled"


@dataclass(slots=True)
class _Seen:
    changes: tuple[float, ...] = ()
    is_flapping: bool = False


class Damper:
    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def heard(self, name: str, before: str, word: str, now: float) -> News:
        seen = self._seen.setdefault(name, _Seen())
        if word == before:
            return self._unchanged(seen, now)
        seen.changes = (*(at for at in seen.changes if now - at < WINDOW_S), now)[-CHANGES_MAX - 1 :]
        if seen.is_flapping:
            return News.NOTHING
        seen.is_flapping = len(seen.changes) > CHANGES_MAX
        return News.FLAPPING if seen.is_flapping else News.CHANGED

    def _unchanged(self, seen: _Seen, now: float) -> News:
        if not seen.is_flapping or now - seen.changes[-1] < QUIET_S:
            return News.NOTHING
        seen.is_flapping, seen.changes = False, ()
        return News.SETTLED


def words(name: str, word: str, news: News, why: str = "") -> str:
    """The line for the log."""
    is_said = why.startswith(f"{name} is {word}")
    said = f": {why.removeprefix(f'{name}: ')}" if why else ""
    match news:
        case News.FLAPPING:
            return f"{name} keeps changing, now {word}{said}; no more is said of it until it has settled"
        case News.SETTLED:
            return f"{name} has settled: {word}"
        case _:
            return why if is_said else f"{name} is {word}{said}"
