"""The other workers, of this machine and of others: which of them live, which are leaving, and where each takes requests.

A session, an open question or a kept event lives in one worker's memory. Its id names that worker, so that any other can send a
request on to it (`relay`); nobody needs a load balancer that remembers. On one machine a worker is a unix socket in the run
folder, whose name says whether it is leaving; across machines Redis holds who lives and at which address (`registry`).
Never waits: what is known is a second old at most, and a door that turns out to be closed is forgotten.
"""

import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from mcpserver.lib import control, node

_NONCE_CHARS = 8
# A machine that was not heard of for a while may only be slow: who took over from it too soon would split a session in two. So
# what names it is sent there for so long; when nobody opens, it is gone.
_REMEMBERED_S = 90.0
# Who died is named by Redis for as long as its last sign of life counts; what was seen at its door counts more.
_DEAD_S = 30.0
_DOOR = re.compile(r"peer-([A-Za-z0-9_-]{8})(\.leaving)?\.sock")


class Place(msgspec.Struct, frozen=True):
    """Where a worker takes requests: a unix socket of this machine, or another machine's address."""

    path: str = ""
    url: str = ""
    is_leaving: bool = False


class Neighbours:
    """`own` names this worker in every id that it makes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.node = node.name(folder)
        self.own = self.node + secrets.token_urlsafe(_NONCE_CHARS)[:_NONCE_CHARS]
        self.is_leaving = False
        self._here: dict[str, Place] = {}
        self._elsewhere: dict[str, Place] = {}
        self._machines: dict[str, tuple[Place, float]] = {}
        self._dead: dict[str, float] = {}
        self.is_blind = False
        """Nobody says at present who lives on other machines: one that is not known here may well live."""

    def open_door(self) -> socket.socket:
        """The socket on which the others' requests come in; it listens."""
        door = control.bound(self._door(self.own))
        door.listen(128)
        return door

    def leave(self) -> None:
        """Say so to all who look: nothing new is sent here, only what nobody else can answer."""
        self.is_leaving = True
        door = self._door(self.own)
        with suppress(OSError):
            door.rename(door.with_suffix(".leaving.sock"))

    def close(self) -> None:
        for door in (self._door(self.own), self._door(self.own).with_suffix(".leaving.sock")):
            door.unlink(missing_ok=True)

    def look(self) -> None:
        """See who is there now, on this machine."""
        found = (match for entry in os.listdir(self._folder) if (match := _DOOR.fullmatch(entry)))
        self._here = {
            self.node + match[1]: Place(path=str(self._folder / match[0]), is_leaving=match[2] is not None)
            for match in found
        }

    def heard(self, urls: Mapping[str, str]) -> None:
        """Who lives on other machines, by what they are called in ids."""
        self.is_blind = False
        now = time.monotonic()
        self._dead = {name: until for name, until in self._dead.items() if until > now}
        self._elsewhere = {
            name: Place(url=url)
            for name, url in urls.items()
            if not name.startswith(self.node) and name not in self._dead
        }
        self._machines = {name: known for name, known in self._machines.items() if known[1] > now}
        for name, place in self._elsewhere.items():
            self._machines[name[: node.CHARS]] = (place, now + _REMEMBERED_S)

    def find(self, instance: str) -> Place | None:
        """Where a worker is; None when it is this one, or gone. Another machine is sent even what names a worker that
        died there a moment ago: it knows better."""
        if instance == self.own:
            return None
        if instance.startswith(self.node):
            if instance not in self._here:
                self.look()  # it may be younger than the last look; taking over from one that lives would split what it has
            return self._here.get(instance)
        return self._elsewhere.get(instance) or self._machine(instance[: node.CHARS])

    def is_unheard_of(self, instance: str) -> bool:
        """Whether a name may be that of a machine which came a moment ago."""
        is_name = len(instance) == node.CHARS + _NONCE_CHARS and not instance.startswith(self.node)
        return is_name and instance not in self._dead and self.find(instance) is None

    def serves(self, instance: str) -> bool:
        """Whether a worker lives, and takes what is new. One of a machine that fell silent altogether is believed to."""
        if instance == self.own:
            return not self.is_leaving
        if instance.startswith(self.node):
            if instance not in self._here:
                self.look()
            place = self._here.get(instance)
            return place is not None and not place.is_leaving
        machine = instance[: node.CHARS]
        is_silent = machine in self._machines and not any(name.startswith(machine) for name in self._elsewhere)
        return instance in self._elsewhere or (is_silent and instance not in self._dead)

    def heir(self, owner: str, key: str) -> str:
        """Who takes over what a worker that is gone had: one of its own machine, as long as that has any. All workers that know
        the same ones come to the same answer."""
        able = {name for name, place in (self._here | self._elsewhere).items() if not place.is_leaving} - {self.own}
        if not self.is_leaving:
            able.add(self.own)
        near = {name for name in able if name.startswith(owner[: node.CHARS])}
        return max(near or able or {self.own}, key=lambda name: hashlib.blake2b(f"{name} {key}".encode()).digest())

    def forget(self, place: Place) -> None:
        """Nobody opens there any more: a worker that was killed leaves its door behind."""
        dead_until = time.monotonic() + _DEAD_S
        for known in (self._here, self._elsewhere):
            for name in [name for name, one in known.items() if one == place]:
                del known[name]
                self._dead[name] = dead_until
        for name in [name for name, (one, _) in self._machines.items() if one == place]:
            del self._machines[name]
        if place.path:
            Path(place.path).unlink(missing_ok=True)

    def cannot_tell(self, instance: str) -> bool:
        """Whether a worker that is not found may live all the same."""
        return self.is_blind and not instance.startswith(self.node)

    def count(self) -> tuple[int, int]:
        """Workers of this machine, this one included; machines, this one included."""
        machines = {name[: node.CHARS] for name in self._elsewhere}
        return len({*self._here, self.own}), len(machines) + 1

    def _machine(self, name: str) -> Place | None:
        return self._machines[name][0] if name in self._machines else None

    def _door(self, instance: str) -> Path:
        return self._folder / f"peer-{instance[node.CHARS :]}.sock"
