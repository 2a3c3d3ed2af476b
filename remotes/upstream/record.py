"""What the processes of one stdio remote have been through: how many, how the last one ended, and when the next may start.

Pure but for its own fields: times are handed in. One death is an accident, and the next call starts another process at once; one
that keeps dying young waits 1, 2, 4 … 60 s between starts, so that a program that cannot run costs nearly nothing.
"""

import msgspec

from remotes.upstream.outcome import Failed, Failure, Fault

BACKOFF_FIRST_S, BACKOFF_MAX_S = 1.0, 60.0
# A process that lived this long has proven that it can run: its end counts as the first one again.
FORGIVEN_AFTER_S = 60.0


class Places:
    """How many processes may run at once, those of all remotes together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    @property
    def is_full(self) -> bool:
        return self.taken >= self.most

    def take(self, name: str) -> None:
        """Raises Failed when there is none; whoever takes one calls `give_back` once."""
        if self.is_full:
            why = f"{name} cannot be started: {self.taken} processes run already"
            raise Failed(
                Failure(Fault.BUSY, "spawn", why, retry_after_s=1.0, detail="MCP_MAX_PROCESSES allows no more")
            )
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1


class Record(msgspec.Struct):
    """Times are the loop's seconds. `noise` counts lines on stdout that were no messages, `strays` answers to nobody."""

    places: Places
    pid: int | None = None
    starts: int = 0
    deaths_in_a_row: int = 0
    born_at: float = 0.0
    next_start: float = 0.0
    last_exit: str = ""
    last_words: str = ""
    noise: int = 0
    strays: int = 0
    too_large: int = 0

    def admit(self, name: str, now: float) -> None:
        """Raises Failed while the next process may not be started yet."""
        wait_s = self.next_start - now
        if wait_s > 0:
            why = f"{name} keeps ending soon after it was started: it is started again in {max(1, round(wait_s))} s"
            detail = ": ".join(word for word in (self.last_exit, self.last_words) if word)
            raise Failed(Failure(Fault.NOT_SENT, "spawn", why, retry_after_s=wait_s, detail=detail))

    def born(self, pid: int) -> None:
        self.pid = pid
        self.starts += 1

    def greeted(self, now: float) -> None:
        """It speaks MCP: its life counts from now."""
        self.born_at = now

    def died(self, now: float, *, was_greeted: bool) -> None:
        """It ended by itself, or came to nothing before it was greeted."""
        proven = was_greeted and now - self.born_at >= FORGIVEN_AFTER_S
        self.deaths_in_a_row = 1 if proven else self.deaths_in_a_row + 1
        self.next_start = now + backoff_s(self.deaths_in_a_row)

    def forgive(self) -> None:
        """An operator has mended it: the next process may start now."""
        self.deaths_in_a_row, self.next_start = 0, 0.0

    def facts(self, now: float) -> dict[str, object]:
        """For status: an operator's view."""
        return {
            "pid": self.pid,
            "restarts": max(0, self.starts - 1),
            "deaths_in_a_row": self.deaths_in_a_row,
            "next_start_in_s": round(self.next_start - now, 1) if self.next_start > now else None,
            "last_exit": self.last_exit or None,
            "last_words": self.last_words or None,
            "noise": self.noise,
            "strays": self.strays,
            "too_large": self.too_large,
        }


def backoff_s(deaths_in_a_row: int) -> float:
    """0, 1, 2, 4 … 60 s."""
    if deaths_in_a_row < 2:
        return 0.0
    return float(min(BACKOFF_FIRST_S * 2 ** min(deaths_in_a_row - 2, 10), BACKOFF_MAX_S))
