"""Who is told when a resource changes: streams and sessions of clients on one side, the remotes' own URIs on the other.

Counted per resource: a remote is asked once however many listen, and told to stop when the last one has gone. What a remote
says reaches the subscribers of that URI, and those of one above it (2025-11-25 schema: an update may name a sub-resource).
Subscriptions belong to a remote's shared session. Nothing here outlives this worker: clients subscribe again.

Source: specification 2025-11-25, server/resources "Subscriptions"; 2026-07-28, basic/patterns/subscriptions.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from mcpserver.protocol import jsonrpc
from remotes.upstream.outcome import Refusal
from remotes.upstream.pool import Pool
from remotes.upstream.watch import offers

# Resources that one stream or session, and all of one key, may watch.
URIS_MAX = 256
_PER_KEY_MAX = 4096
# A session that has had no stream for so long is not waited for.
_UNREAD_S = 3600.0
_PARENTS_MAX = 64
# What a remote told us so long before or after another worker, it told all.
_BEFORE_S, _AFTER_S = 0.1, 0.2
_SAID_MAX = 1024

Place = tuple[str, str]
"""A remote and a URI of its own."""


class TooMany(Exception):
    """More resources than one subscriber, or one key, may watch."""


class Subscriber(msgspec.Struct, eq=False):
    """A client's way to hear of what happens outside its requests. `put` is False when nobody reads, or reads too slowly.

    `waiting` holds what changed meanwhile: once each, however often it did.
    """

    key_id: str
    put: Callable[[bytes], bool]
    reads: Callable[[], bool]
    meta: Mapping[str, object] = {}
    places: dict[str, Place] = {}
    waiting: dict[str, None] = {}
    unread_since: float | None = None

    def tell(self, uri: str) -> None:
        if len(self.waiting) < URIS_MAX:
            self.waiting[uri] = None
        self.catch_up()

    def catch_up(self) -> None:
        """Say what waits, to whoever may read again."""
        for uri in list(self.waiting):
            told = {"_meta": self.meta, "uri": uri} if self.meta else {"uri": uri}
            if not self.put(jsonrpc.notification("notifications/resources/updated", jsonrpc.encode(told))):
                return
            del self.waiting[uri]


class Subscriptions:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._watched: dict[str, dict[str, dict[Subscriber, str]]] = {}
        self._subscribers: set[Subscriber] = set()
        self._said: OrderedDict[tuple[str, str], float] = OrderedDict()
        pool.on_updated = self.updated

    async def add(self, subscriber: Subscriber, places: Mapping[str, Place]) -> dict[str, Refusal | None]:
        """Watch resources, by exposed URI. Returns those that their remote will not tell of, with its words if it had any.

        Raises TooMany. What a remote that is down has to say is learnt when it is back.
        """
        fresh = {uri: place for uri, place in places.items() if uri not in subscriber.places}
        held = sum(len(one.places) for one in self._subscribers if one.key_id == subscriber.key_id)
        if len(subscriber.places) + len(fresh) > URIS_MAX or held + len(fresh) > _PER_KEY_MAX:
            raise TooMany
        for uri, place in fresh.items():
            self._enter(subscriber, uri, place)
        remotes = {remote for remote, _ in fresh.values()}
        self._want(remotes)
        try:
            await asyncio.gather(*(one.watch.settled() for name in remotes if (one := self._pool.get(name))))
        except BaseException:
            self._leave(subscriber, fresh)
            raise
        refused = dict(self._refused(fresh))
        self._leave(subscriber, refused)
        return refused

    def remove(self, subscriber: Subscriber, uri: str) -> None:
        self._leave(subscriber, [uri])

    def keep(self, key_id: str, allowed: Callable[[Place], bool]) -> None:
        """A key may use other things than before: it hears of nothing else."""
        for one in [one for one in self._subscribers if one.key_id == key_id]:
            self._leave(one, [uri for uri, place in one.places.items() if not allowed(place)])

    def close(self, subscriber: Subscriber) -> None:
        """The subscriber is gone, and what it alone was told of is asked for no more."""
        self._leave(subscriber, list(subscriber.places))

    def updated(self, remote: str, uri: str) -> None:
        """A remote says that one of its resources has changed."""
        watched = self._watched.get(remote)
        if watched is None:
            return
        self._said[remote, uri] = time.monotonic()
        if len(self._said) > _SAID_MAX:
            self._said.popitem(last=False)
        for own in _and_above(uri):
            for subscriber, exposed in list(watched.get(own, {}).items()):
                subscriber.tell(exposed + uri[len(own) :])

    def hinted(self, remote: str, uri: str) -> None:
        """Another worker was told so. A remote that tells all its sessions tells ours within a moment of that: once is enough."""
        now = time.monotonic()
        if remote in self._watched and not self._was_told(remote, uri, now - _BEFORE_S):
            asyncio.get_running_loop().call_later(_AFTER_S, self._catch_up, remote, uri, now)

    def _catch_up(self, remote: str, uri: str, since: float) -> None:
        if not self._was_told(remote, uri, since):
            self.updated(remote, uri)

    def _was_told(self, remote: str, uri: str, since: float) -> bool:
        return self._said.get((remote, uri), -math.inf) >= since

    def follow(self) -> None:
        """The remotes are other ones now."""
        self._want(self._watched)

    def sweep(self, now: float) -> None:
        """Say what slow readers still wait for; let go of what nobody has come to read for an hour."""
        for one in list(self._subscribers):
            if one.reads():
                one.unread_since = None
                one.catch_up()
            elif one.unread_since is None:
                one.unread_since = now
            elif now - one.unread_since > _UNREAD_S:
                self.close(one)

    def _refused(self, places: Mapping[str, Place]) -> Iterator[tuple[str, Refusal | None]]:
        for uri, (remote, own) in places.items():
            upstream = self._pool.get(remote)
            if upstream is None:
                continue
            if own in upstream.watch.refused:
                yield uri, upstream.watch.refused[own]
            elif upstream.greeting is not None and not offers(upstream.greeting, "resources", "subscribe"):
                yield uri, None

    def _enter(self, subscriber: Subscriber, uri: str, place: Place) -> None:
        remote, own = place
        subscriber.places[uri] = place
        self._subscribers.add(subscriber)
        self._watched.setdefault(remote, {}).setdefault(own, {})[subscriber] = uri

    def _leave(self, subscriber: Subscriber, uris: Iterable[str]) -> None:
        remotes = set()
        for uri in uris:
            place = subscriber.places.pop(uri, None)
            subscriber.waiting.pop(uri, None)
            if place is None:
                continue
            remote, own = place
            remotes.add(remote)
            listeners = self._watched[remote][own]
            listeners.pop(subscriber, None)
            if not listeners:
                del self._watched[remote][own]
        if not subscriber.places:
            self._subscribers.discard(subscriber)
        self._want(remotes)

    def _want(self, remotes: Iterable[str]) -> None:
        for name in remotes:
            upstream = self._pool.get(name)
            if upstream is not None:
                upstream.watch.want(frozenset(self._watched.get(name, {})))


def _and_above(uri: str) -> Iterator[str]:
    """The URI, and what it lies in: with and without the separator."""
    yield uri
    ends = [at for at, letter in enumerate(uri[:-1]) if letter in "/?#"]
    for at in reversed(ends[-_PARENTS_MAX:]):
        yield uri[: at + 1]
        yield uri[:at]
