"""Who is connected, and who may still come: descriptors are few, and whoever asks for nothing must not keep them all.

Decides nothing about how long is too long (`rules`), and closes no connection that is being answered.
"""

import time
from enum import Enum, auto
from typing import TYPE_CHECKING

from gateway.serving.rules import LOOKS_APART_S, TOLD_FULL, Deadlines, give_way

if TYPE_CHECKING:
    from gateway.serving.connection import Connection


class Welcome(Enum):
    """What a newcomer meets."""

    STAYS = auto()
    IS_TOLD_FULL = auto()
    IS_NOT_TAKEN = auto()  # what is only taken to be cut off later would hold a descriptor meanwhile


class Room:
    """The connections of one worker. Those that are told to go hold no place, and are too few to matter while they linger."""

    def __init__(self, connections_max: int, deadlines: Deadlines) -> None:
        self.connections_max = connections_max
        self._gives_way_s = deadlines.gives_way_s
        self.connected: set[Connection] = set()
        self._leaving: set[Connection] = set()
        self._told_full: set[Connection] = set()
        self._looked_at = 0.0

    def welcome(self) -> Welcome:
        """Asked before a connection is made. Others may have to give way to it."""
        if self._has_place() or self._make_place():
            return Welcome.STAYS
        return Welcome.IS_TOLD_FULL if len(self._told_full) < TOLD_FULL else Welcome.IS_NOT_TAKEN

    def enter(self, connection: "Connection", *, is_told_full: bool) -> None:
        self.connected.add(connection)
        if is_told_full:
            self._told_full.add(connection)

    def forget(self, connection: "Connection") -> None:
        self.connected.discard(connection)
        self._leaving.discard(connection)
        self._told_full.discard(connection)

    def _has_place(self) -> bool:
        return len(self.connected) - len(self._leaving) - len(self._told_full) < self.connections_max

    def _make_place(self) -> bool:
        now = time.monotonic()
        if self._leaving or now - self._looked_at < LOOKS_APART_S:
            return False
        leaving = give_way(self.connected, now, self._gives_way_s)
        if not leaving:
            self._looked_at = now
        self._leaving.update(leaving)
        for connection in leaving:
            connection.give_way()
        return self._has_place()
