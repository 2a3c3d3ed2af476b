"""What the gateway and the server underneath agree on, whichever ASGI server that is. No Daphne, no Twisted, no I/O."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from mcpserver.lib.limits import Limits


class ClientGone(Exception):
    """Raised by `await send(...)`: the client left, or read nothing for so long that it was cut off.

    Deliberately no OSError: what catches the errors of a remote's connection must not mistake this for one.
    """


@dataclass(frozen=True)
class Lifecycle:
    """What a server calls around the requests: before the first, once no connection is taken any more, after the last."""

    on_start: Callable[[], Awaitable[None]]
    on_drain: Callable[[], Awaitable[None]]
    on_stop: Callable[[], Awaitable[None]]


class Census(Protocol):
    """What runs underneath, as far as others may know it and steer it."""

    def connections(self) -> int:
        """Sockets of clients that are open."""

    def unsent_bytes(self) -> int:
        """What was written for clients that have not read it."""

    def in_flight(self) -> int:
        """Requests whose application has not ended, streams included."""

    def allow(self, connections: int) -> None:
        """Refuse connections beyond so many."""

    def follow(self, limits: Limits) -> None:
        """Take other limits from now on: the configuration changed."""

    def adopt(self, number: int) -> None:
        """Accept on a sibling's socket too, until it is released; nothing new when that is so already."""

    def release(self, number: int) -> None: ...

    def adopted(self) -> list[int]: ...


_census: Census | None = None


def count_with(census: Census | None) -> None:
    """The server that runs in this process reports itself; there is at most one."""
    global _census
    _census = census


def connections() -> int:
    return _census.connections() if _census else 0


def unsent_bytes() -> int:
    return _census.unsent_bytes() if _census else 0


def in_flight() -> int:
    return _census.in_flight() if _census else 0


def allow(connections: int) -> None:
    if _census:
        _census.allow(connections)


def follow(limits: Limits) -> None:
    if _census:
        _census.follow(limits)


def adopt(number: int) -> None:
    if _census:
        _census.adopt(number)


def release(number: int) -> None:
    if _census:
        _census.release(number)


def adopted() -> list[int]:
    return _census.adopted() if _census else []
