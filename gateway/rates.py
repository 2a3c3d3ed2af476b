"""How many requests a minute a key may make, in all and to one remote. Only keys that were given such a limit are counted.

A minute begins with its first request and ends sixty seconds later, whatever came in between: what is left and when it is whole
again are then two numbers that a client can plan with. They go out with every answer to such a key, in the fields of the IETF's
draft-ietf-httpapi-ratelimit-headers ("RateLimit-Policy", "RateLimit"). Counts live in this worker's memory.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec

from gateway.slots import Full
from keys.grant import Grant
from keys.principal import Principal

MINUTE_S = 60.0
# Of keys and remotes that have not been heard of for long, the oldest are forgotten first: theirs are over.
_REMEMBERED = 10_000

Header = tuple[bytes, bytes]


class Window(msgspec.Struct):
    """One minute of one key, in all or to one remote. Monotonic seconds."""

    began: float
    used: int = 0

    def left_s(self, now: float) -> float:
        return self.began + MINUTE_S - now


class TooOften(Exception):
    """A key has asked one remote as often as it may; `full` says so."""

    def __init__(self, full: Full) -> None:
        super().__init__(full.message)
        self.full = full


class Rates:
    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._windows: OrderedDict[tuple[str, str], Window] = OrderedDict()
        self.refused = 0

    def take(self, principal: Principal) -> Full | None:
        """Count one request of a key, or say why it is one too many."""
        most = principal.grant.rate
        return None if most is None else self._count(principal, "", most)

    def take_for(self, principal: Principal, remote: str) -> None:
        """Count one request to a remote; raises TooOften."""
        most = principal.grant.rate_for(remote)
        full = None if most is None else self._count(principal, remote, most)
        if full is not None:
            raise TooOften(full)

    def headers(self, principal: Principal) -> tuple[Header, ...]:
        """What is left to a key at this moment; nothing for one without such limits."""
        if not principal.grant.is_limited:
            return ()
        now = self._monotonic()
        policies, left = [], []
        for remote, most in _limits(principal.grant):
            window = self._windows.get((principal.key_id, remote))
            open_s = window.left_s(now) if window is not None else 0.0
            used = window.used if window is not None and open_s > 0 else 0
            name = f"mcp:{remote}" if remote else "key"
            policies.append(f'"{name}";q={most};w={MINUTE_S:.0f}')
            left.append(f'"{name}";r={max(0, most - used)};t={max(0, math.ceil(open_s))}')
        return (b"ratelimit-policy", ", ".join(policies).encode()), (b"ratelimit", ", ".join(left).encode())

    def _count(self, principal: Principal, remote: str, most: int) -> Full | None:
        now = self._monotonic()
        at = (principal.key_id, remote)
        window = self._windows.get(at)
        if window is None or window.left_s(now) <= 0:
            window = self._windows[at] = Window(now)
            self._windows.move_to_end(at)
            if len(self._windows) > _REMEMBERED:
                self._windows.popitem(last=False)
        if window.used >= most:
            self.refused += 1
            wait_s = max(1, math.ceil(window.left_s(now)))
            to = f" to {remote}" if remote else ""
            return Full(429, wait_s, f"this key may make {most} requests{to} a minute: try again in {wait_s} s")
        window.used += 1
        return None


def _limits(grant: Grant) -> Iterator[tuple[str, int]]:
    if grant.rate is not None:
        yield "", grant.rate
    yield from grant.rates
