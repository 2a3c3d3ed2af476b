"""How many requests a minute a key may make, in all and to one remote. Only keys that were given such a limit are counted.

A minute begins with its first request and ends sixty seconds later, whatever came in between: what is left and when it is whole
again are then two numbers that a client can plan with. They go out with every answer to such a key, in the fields of the IETF's
draft-ietf-httpapi-ratelimit-headers ("RateLimit-Policy", "RateLimit").

One worker alone counts in its memory. Where there is a `tally` all workers count together; a minute that is known to be used up
is refused here, without asking. While that is away this worker counts on from what it knew, for itself.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from gateway import metrics
from gateway.admission.slots import Full
from keys.grant import Grant
from keys.principal import Principal

MINUTE_S = 60.0
# Of keys and remotes that have not been heard of for long, the oldest are forgotten first: theirs are over.
_REMEMBERED = 10_000

Header = tuple[bytes, bytes]
Limits = tuple[tuple[str, int], ...]
"""Requests a minute by remote."""


class Window(msgspec.Struct):
    """One minute of one key, in all or to one remote, as far as this worker knows. Monotonic seconds."""

    name: str
    began: float
    used: int = 0
    untold: int = 0
    """Granted here while the others could not be told."""

    def left_s(self, now: float) -> float:
        return max(0.0, self.began + MINUTE_S - now)

    def is_full(self, most: int, now: float) -> bool:
        return self.used >= most and self.left_s(now) > 0

    def take(self, now: float) -> None:
        if not self.left_s(now):
            self.began, self.used, self.untold = now, 0, 0
        self.used += 1


class Question(NamedTuple):
    """Whether there is room for one more, which is then counted; `most` 0: only how full it is."""

    window: Window
    most: int


class Tally(Protocol):
    """Requests counted among all workers (`gateway.cluster.tally`)."""

    async def ask(self, questions: Sequence[Question]) -> list[bool] | None: ...


class TooOften(Exception):
    """A key has asked one remote as often as it may; `full` says so."""

    def __init__(self, full: Full) -> None:
        super().__init__(full.message)
        self.full = full


class Rates:
    def __init__(self, monotonic: Callable[[], float], tally: Tally | None = None) -> None:
        self._monotonic = monotonic
        self._tally = tally
        self._windows: OrderedDict[tuple[str, str], Window] = OrderedDict()
        self.refused = 0
        self.counted_alone = 0

    async def take(self, principal: Principal) -> Full | None:
        """Count one request of a limited key, or say why it is one too many."""
        grant = principal.grant
        if grant.rate is not None:
            return await self._count(principal.key_id, "", grant.rate, beside=grant.rates)
        if self._tally is not None:
            await self._tally.ask(self._looks(principal.key_id, grant.rates))
        return None

    async def take_for(self, principal: Principal, remote: str) -> None:
        """Count one request to a remote; raises TooOften."""
        most = principal.grant.rate_for(remote)
        full = None if most is None else await self._count(principal.key_id, remote, most)
        if full is not None:
            raise TooOften(full)

    def headers(self, principal: Principal) -> tuple[Header, ...]:
        """What is left to a key at this moment; nothing for one without such limits."""
        if not principal.grant.is_limited:
            return ()
        now = self._monotonic()
        policies, left = [], []
        for remote, most in _limits(principal.grant):
            window = self._window(principal.key_id, remote)
            open_s = window.left_s(now)
            used = window.used if open_s else 0
            name = f"mcp:{remote}" if remote else "key"
            policies.append(f'"{name}";q={most};w={MINUTE_S:.0f}')
            left.append(f'"{name}";r={max(0, most - used)};t={math.ceil(open_s)}')
        return (b"ratelimit-policy", ", ".join(policies).encode()), (b"ratelimit", ", ".join(left).encode())

    async def _count(self, key_id: str, remote: str, most: int, *, beside: Limits = ()) -> Full | None:
        """`beside`: limits that are only looked at, for the headers."""
        window = self._window(key_id, remote)
        if window.is_full(most, self._monotonic()):
            return self._refused(remote, most, window)
        if self._tally is not None:
            granted = await self._tally.ask([Question(window, most), *self._looks(key_id, beside)])
            if granted is not None:
                return None if granted[0] else self._refused(remote, most, window)
        return self._count_alone(remote, most, window)

    def _count_alone(self, remote: str, most: int, window: Window) -> Full | None:
        if window.is_full(most, self._monotonic()):
            return self._refused(remote, most, window)
        window.take(self._monotonic())
        if self._tally is not None:
            window.untold += 1
            self.counted_alone += 1
            metrics.RATE_UNSHARED.inc()
        return None

    def _looks(self, key_id: str, limits: Limits) -> list[Question]:
        return [Question(self._window(key_id, remote), 0) for remote, _ in limits]

    def _refused(self, remote: str, most: int, window: Window) -> Full:
        self.refused += 1
        wait_s = max(1, math.ceil(window.left_s(self._monotonic())))
        to = f" to {remote}" if remote else ""
        return Full(429, wait_s, f"this key may make {most} requests{to} a minute: try again in {wait_s} s")

    def _window(self, key_id: str, remote: str) -> Window:
        at = (key_id, remote)
        window = self._windows.get(at)
        if window is None:
            window = self._windows[at] = Window(f"{key_id}:{remote}", -math.inf)
            if len(self._windows) > _REMEMBERED:
                self._windows.popitem(last=False)
        self._windows.move_to_end(at)
        return window


def _limits(grant: Grant) -> Iterator[tuple[str, int]]:
    if grant.rate is not None:
        yield "", grant.rate
    yield from grant.rates
