"""Which worker a session is at home in: the one that opened it, and once that one leaves or dies, exactly one other.

Whatever a session leaves in memory is in its home alone (its stream, what it subscribed to, its log level, the calls that it can
cancel), so all workers must agree where that is, also while some have heard of a newcomer and others have not. The first who
needs to know says it in Redis, and it stays so for as long as that worker serves. Without Redis, or while it is away, everybody
computes the same from those who are there. What a worker once learnt costs it two lookups.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

from gateway.cluster.neighbours import Neighbours

if TYPE_CHECKING:
    from gateway.cluster.shared import Cluster

_REMEMBERED = 10_000
# Each time one that was named turns out to be gone; then this worker's own opinion has to do.
_TRIES = 3


class Homes:
    def __init__(self, neighbours: Neighbours, cluster: "Cluster | None") -> None:
        self._neighbours = neighbours
        self._cluster = cluster
        self._moved: OrderedDict[str, str] = OrderedDict()

    async def of(self, id: str, owner: str) -> str:
        """The worker that serves a session now; `owner` opened it. Empty when it has ended."""
        if self._neighbours.serves(owner):
            return owner
        known = self._moved.get(id)
        if known is not None and self._neighbours.serves(known):
            return known
        found = await self._settled(id, owner)
        self._moved[id] = found
        self._moved.move_to_end(id)
        if len(self._moved) > _REMEMBERED:
            self._moved.popitem(last=False)
        return found

    def ended(self, id: str) -> None:
        """A session ended: whoever is asked for it later shall know."""
        self._moved.pop(id, None)
        if self._cluster is not None:
            self._cluster.moves.end(id)

    async def _settled(self, id: str, owner: str) -> str:
        gone = ""
        for _ in range(_TRIES if self._cluster is not None else 0):
            assert self._cluster is not None
            named = await self._cluster.moves.home(id, owner, gone, self._neighbours.heir(owner, id))
            if named is None:
                break
            if not named or await self._lives(named):
                return named
            gone = named
        return self._neighbours.heir(owner, id)

    async def _lives(self, instance: str) -> bool:
        """Whether a worker serves that another one named, perhaps before we heard of it."""
        if not self._neighbours.serves(instance) and self._cluster is not None:
            await self._cluster.tick()
        return self._neighbours.serves(instance)
