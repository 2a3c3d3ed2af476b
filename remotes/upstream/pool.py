"""One `Upstream` per configured remote. A remote whose spec is unchanged keeps its connection across revisions."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mcpserver.lib.limits import Limits
from remotes.config.snapshot import RemoteSpec, Snapshot
from remotes.upstream.berth import Berth
from remotes.upstream.budget import Budget
from remotes.upstream.client import Upstream
from remotes.upstream.credential import NO_CREDENTIAL, Credential
from remotes.upstream.record import Places

log = logging.getLogger("mcp.upstream")


# Sessions of one remote beside the shared one: by client capabilities, key or client session.
_VARIANTS_MAX = 64
_SIDE_BY_SIDE_MAX = 8
_IDLE_S = 600.0
_NOTHING = b"{}"


def _nothing(spec: RemoteSpec) -> Credential:
    return NO_CREDENTIAL


class Pool:
    def __init__(
        self,
        *,
        budget: Budget,
        max_in_flight: int = Limits().max_in_flight_per_remote,
        max_processes: int = Limits().max_processes,
        credential: Callable[[RemoteSpec], Credential] = _nothing,
        berths: Path | None = None,
    ) -> None:
        """`berths`: the folder in which several workers agree who runs a process; None where there is only one worker."""
        self.on_updated: Callable[[str, str], None] = lambda remote, uri: None
        """Told of each resource that changed at a remote."""
        self.on_completed: Callable[[str, str], None] = lambda remote, elicitation_id: None
        """Told of each elicitation that was completed elsewhere, for the remote that said so."""
        self.on_task: Callable[[str, bytes], None] = lambda remote, params: None
        """Told of each task that changed, for the remote that said so."""
        self.on_heard: Callable[[str, str, str], None] = lambda remote, what, text: None
        """Told of each list and resource that a remote said has changed, where each worker has sessions of its own with it."""
        self._budget = budget
        self._max_in_flight = max_in_flight
        self._credential = credential
        self.places = Places(max_processes)
        self._berths = berths
        self._upstreams: dict[str, Upstream] = {}
        self._variants: dict[tuple[str, bytes, str, int], Upstream] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> Upstream | None:
        """The shared session of a remote, which declares no client capabilities."""
        return self._upstreams.get(name)

    def lease(self, base: Upstream, *, capabilities: bytes, key_id: str, session_id: str) -> Upstream | None:
        """The session of a remote that a call belongs on; None when there are too many of them.

        A 2026-07-28 remote keeps no sessions, so all calls share one. An earlier one was told the client's capabilities when
        its session began: calls whose clients can answer different questions need different sessions, and so do keys or client
        sessions where `isolation` says so.
        """
        whose = {"key": key_id, "session": session_id or key_id}.get(base.spec.isolation, "")
        if (capabilities == _NOTHING and not whose) or (base.greeting is not None and base.greeting.modern):
            return base
        place = self._free_place(base.spec.name, capabilities, whose)
        found = self._variants.pop(place, None)
        if found is None:
            if not self._room(base.spec.name):
                return None
            found = self._new(base.spec, base.era, capabilities, unit=place[2:])
            found.expected = base.greeting
        self._variants[place] = found  # the most recently used last
        found.used_at = asyncio.get_running_loop().time()
        return found

    def _free_place(self, name: str, capabilities: bytes, whose: str) -> tuple[str, bytes, str, int]:
        """Pass by the sessions on which a question waits for a person: another there could not be told from it."""
        places = ((name, capabilities, whose, number) for number in range(_SIDE_BY_SIDE_MAX))
        free = (place for place in places if (one := self._variants.get(place)) is None or not one.is_ambiguous)
        return next(free, (name, capabilities, whose, 0))

    def sweep(self) -> None:
        """Close the sessions that nobody has used for ten minutes."""
        before = asyncio.get_running_loop().time() - _IDLE_S
        for place in [place for place, one in self._variants.items() if one.used_at < before and not one.in_flight]:
            self.retire(self._variants.pop(place))

    def end_session(self, session_id: str) -> None:
        """A client ended its session, and with it those that remotes keep for it alone."""
        for place in [place for place in self._variants if place[2] == session_id]:
            self.retire(self._variants.pop(place))

    def belonging(self, *, capabilities: bytes, key_id: str, session_id: str) -> list[Upstream]:
        """The remotes' sessions that calls of one client session go to, where it declares what it can be asked."""
        whose = ("", key_id, session_id or key_id)
        return [one for place, one in self._variants.items() if place[1] == capabilities and place[2] in whose]

    def shared(self) -> Iterator[Upstream]:
        """The shared session of every remote."""
        yield from self._upstreams.values()

    async def reconnect(self, name: str) -> None:
        """Open all sessions of a remote anew."""
        held = [one for place, one in self._variants.items() if place[0] == name]
        await asyncio.gather(*(one.reconnect() for one in (*held, self._upstreams[name])))

    def follow(self, snapshot: Snapshot, eras: Mapping[str, str]) -> tuple[list[Upstream], list[Upstream]]:
        """Take the remotes of a revision; returns those that are new and those that went, which `retire` ends.

        `eras` holds the revision each remote was last seen to speak.
        """
        wanted = {name: spec for name, spec in snapshot.remotes.items() if spec.enabled and not spec.missing}
        gone = [one for name, one in self._upstreams.items() if not _same(wanted.get(name), one.spec)]
        for one in gone:
            del self._upstreams[one.spec.name]
        outdated = [place for place, one in self._variants.items() if not _same(wanted.get(place[0]), one.spec)]
        gone += [self._variants.pop(place) for place in outdated]
        for one in (*self._upstreams.values(), *self._variants.values()):
            one.spec = wanted[one.spec.name]
        fresh = [
            self._new(spec, eras.get(name, ""), _NOTHING, watches=True)
            for name, spec in wanted.items()
            if name not in self._upstreams
        ]
        self._upstreams |= {one.spec.name: one for one in fresh}
        return fresh, gone

    def retire(self, upstream: Upstream) -> None:
        """Close a remote that is no longer configured once its last call has ended, or its longest deadline passed."""
        upstream.watch.end()
        task = asyncio.ensure_future(self._retired(upstream))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        everyone = [*self._upstreams.values(), *self._variants.values()]
        await asyncio.gather(*(one.close() for one in everyone), *self._closing, return_exceptions=True)
        self._upstreams.clear()
        self._variants.clear()

    def leave(self) -> None:
        """This worker drains: its siblings run the processes from now on."""
        for one in (*self._upstreams.values(), *self._variants.values()):
            one.leave()

    def _new(
        self,
        spec: RemoteSpec,
        era: str,
        capabilities: bytes,
        *,
        unit: tuple[str, int] = ("", -1),
        watches: bool = False,
    ) -> Upstream:
        new = Upstream(
            spec,
            budget=self._budget,
            max_in_flight=self._max_in_flight,
            era=era,
            capabilities=capabilities,
            watches=watches,
            credential=self._credential(spec),
            places=self.places,
            berth=self._berth(spec, capabilities, unit),
        )
        if not watches:  # what a remote says on one of its sessions is true of it
            new.on_change = lambda kind: self._changed(spec.name, kind)
        new.on_updated = lambda uri: self.on_updated(spec.name, uri)
        new.on_completed = lambda elicitation_id: self.on_completed(spec.name, elicitation_id)
        new.on_heard = lambda what, text: self.on_heard(spec.name, what, text)
        new.on_task = lambda params: self.on_task(spec.name, params)
        return new

    def _berth(self, spec: RemoteSpec, capabilities: bytes, unit: tuple[str, int]) -> Berth | None:
        if self._berths is None or spec.transport != "stdio":
            return None
        whole = repr((spec.digest, capabilities, unit)).encode()
        return Berth(self._berths, spec.name, whole, max_bytes=self._budget.read_max_bytes)

    def _changed(self, name: str, kind: str) -> None:
        shared = self._upstreams.get(name)
        if shared is not None and kind != "lost":
            shared.changed(kind)

    def _room(self, name: str) -> bool:
        """Make room for one more session of a remote by closing the one that has been idle longest.

        Where no more processes may run, the idle one may be any remote's: whoever comes next finds its place.
        """
        if self.places.is_full:
            self._retire_idle_process()
        held = [place for place in self._variants if place[0] == name]
        if len(held) < _VARIANTS_MAX:
            return True
        idle = next((place for place in held if not self._variants[place].in_flight), None)
        if idle is not None:
            self.retire(self._variants.pop(idle))
        return idle is not None

    def _retire_idle_process(self) -> None:
        processes = (place for place, one in self._variants.items() if one.spec.transport == "stdio")
        idle = next((place for place in processes if not self._variants[place].in_flight), None)
        if idle is not None:
            self.retire(self._variants.pop(idle))

    async def _retired(self, upstream: Upstream) -> None:
        try:
            async with asyncio.timeout(upstream.spec.timeout_s):
                await upstream.drained()
        except TimeoutError:
            log.warning("%s still had calls open when its time was over", upstream.spec.name)
        finally:
            await upstream.close()


def _same(wanted: RemoteSpec | None, current: RemoteSpec) -> bool:
    return wanted is not None and wanted.digest == current.digest
