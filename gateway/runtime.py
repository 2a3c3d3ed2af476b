"""One worker's memory: everything a request may touch, made once, handed to whoever needs it.

`start` loads, a watcher follows what changes outside (the configuration, the keys), `drain` ends streams, `stop` closes.
Nothing here knows a transport or a server.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import metrics, report, serving
from gateway.admission import guards
from gateway.admission.leases import Leases
from gateway.admission.rates import Rates
from gateway.admission.slots import Full, Slots
from gateway.attempts import Attempts
from gateway.catalog.catalog import Catalog, Kept
from gateway.catalog.pins import KnownPins
from gateway.catalog.remembered import Remembered
from gateway.circuits import Circuits
from gateway.cluster.homes import Homes
from gateway.cluster.moves import Asked
from gateway.cluster.neighbours import Neighbours
from gateway.cuts import Cuts, Rests
from gateway.metrics import Recent
from gateway.pipeline import Pipeline
from gateway.record import Record, Write
from gateway.rounds.parking import Parking
from gateway.rounds.rounds import Rounds
from gateway.rounds.state import Sealer
from gateway.rounds.tasks import TaskIds
from gateway.sessions import asking
from gateway.sessions.elicitations import Elicitations
from gateway.sessions.outbox import Outbox
from gateway.sessions.resumption import Trail, Trails
from gateway.sessions.sessions import Session, Sessions
from gateway.sessions.subscriptions import Subscriptions, TooMany
from gateway.tracing import switch as tracing
from keys.authenticate import Authenticator
from keys.principal import Principal
from mcpserver.lib.clock import Clock, instant
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import GatewayError
from mcpserver.lib.limits import MIB, Limits, configured
from mcpserver.lib.usage import Process, Usage
from mcpserver.protocol import jsonrpc
from remotes import selectors, services, status
from remotes.config.snapshot import Snapshot
from remotes.tokens import credentials
from remotes.upstream.budget import Budget
from remotes.upstream.outcome import Failure
from remotes.upstream.pool import Pool

if TYPE_CHECKING:
    from gateway.cluster.shared import Cluster
    from gateway.tracing.spans import Tracing

log = logging.getLogger("mcp.gateway")

_WATCH_S = 1.0
_GUARD_S = 1.0
_FLUSH_EVERY = 5
_FAILED_PROBES = frozenset({status.Status.UNHEALTHY, status.Status.AUTH_EXPIRED})
# What a client can be told to list anew.
KINDS = ("prompts", "resources", "tools")
# A call that claims the next try of a circuit waits for the database, but not longer.
_SHARE_S = 1.0
_SHARE_EVERY_S = 2.0


class Runtime:
    def __init__(
        self,
        *,
        limits: Limits,
        clock: Clock,
        secret: bytes,
        config: Path,
        environment: Mapping[str, str],
        run_dir: Path,
        data_dir: Path,
        berths: Path | None = None,
        share: "Callable[[Neighbours], Cluster] | None" = None,
        record: Write | None = None,
    ) -> None:
        """`share` makes what several workers and machines have in common. `berths`: where several workers agree which of them
        runs a stdio remote's process; None: there is one worker. `record` stores calls."""
        self.limits = limits
        self._started_with = limits
        self.clock = clock
        self.authenticator = Authenticator(clock)
        self.slots = Slots(limits)
        self.neighbours = Neighbours(run_dir)
        self.cluster = share(self.neighbours) if share is not None else None
        self.rates = Rates(clock.monotonic, self.cluster.tally if self.cluster is not None else None)
        self.slots.cluster = self.cluster
        self.sessions = Sessions(secret, self.neighbours.own)
        self.homes = Homes(self.neighbours, self.cluster)
        self.recent = Recent(clock.monotonic)
        self.record = Record(record)
        self.credentials = credentials.for_gateway(clock, self._credential_changed)
        self.budget = Budget(limits.max_payload_memory_mb * MIB, read_max_bytes=limits.read_max_bytes)
        self.pool = Pool(
            budget=self.budget,
            max_in_flight=limits.max_in_flight_per_remote,
            max_processes=limits.max_processes,
            berths=berths,
            credential=self.credentials.of,
        )
        self.circuits = Circuits(clock, partial(in_database, timeout_s=_SHARE_S), self._degraded)
        self.leases = Leases(limits)
        self.pins = KnownPins()
        self.remembered = Remembered(data_dir / "listings")
        self.catalog = Catalog(self._published, self._contacted, self.pins, self.remembered)
        self.parking = Parking(limits.answer_wait_s, self.neighbours.own)
        self.subscriptions = Subscriptions(self.pool)
        tasks = TaskIds(secret)
        self.pool.on_task = tasks.changed
        if self.cluster is not None:
            self.catalog.shelf, tasks.shelf = self.cluster.links, self.cluster.tasks
        self.tracing: Tracing | None = None
        self._attempts = Attempts(self.circuits, self.leases, clock.monotonic)
        self.rounds = Rounds(
            self.pool,
            self._attempts,
            self.catalog,
            self.parking,
            tasks,
            Elicitations(self.pool),
            Sealer(secret),
            self._loop_time,
            partial(instant, clock),
        )
        self.cuts = Cuts(limits.max_tool_response_size, Rests(clock.monotonic), self.neighbours.own)
        self.pipeline = Pipeline(self.catalog, self.pool, self.rounds, tasks, self.subscriptions, self.rates, self.cuts)
        self.trails = Trails(clock.monotonic, self.neighbours.own)
        self.budget.keepers = [self.trails, self.cuts.rests]
        self.trails.on_growth = self.cuts.rests.on_growth = self.budget.settle
        self.streams: dict[Outbox | Trail, tuple[str, Callable[[str], bytes | None]]] = {}
        self.draining = False
        self.on_drain: list[Callable[[], None]] = []
        self.shedding: tuple[str, ...] = ()
        self.used = Process()
        self.snapshot = Snapshot(0, "", {})
        self.loaded_at: datetime | None = None
        self._config = config
        self._following = asyncio.Lock()
        self._environment = environment
        self.started_at: datetime | None = None
        self.began = clock.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._contacts: dict[str, dict[str, Any]] = {}
        self._streams_ended = 0

    async def start(self, *, last_known_good: bool = False) -> None:
        """Load keys and configuration; raises GatewayError with what is wrong. `last_known_good`: see `bootstrap`."""
        self.started_at = self.clock.now()
        self.tracing = tracing.begin(self._environment)
        if self.tracing is not None:
            self._attempts.send = self.tracing.attempt
        await self.authenticator.start()
        self.authenticator.on_revoked.append(self._revoked)
        self.authenticator.on_changed.append(self._changed)
        bootstrap = partial(services.bootstrap, last_known_good=last_known_good)
        snapshot = await in_database(bootstrap, self._config, self._environment, timeout_s=20)
        health = await in_database(selectors.health)
        await self.pins.start()
        self._swap(snapshot, {name: str(row.get("era") or "") for name, row in health.items()})
        self._tasks = [
            asyncio.create_task(self._watch(), name="watch"),
            asyncio.create_task(self._stay_within_limits(), name="guards"),
        ]
        self.record.start()
        if self.cluster is not None:
            await self.cluster.tick()  # before a session of another worker can come here
            self._tasks.append(asyncio.create_task(self._share(self.cluster), name="cluster"))
            self.pool.on_heard = self.cluster.news.say
            self.cluster.news.on_heard = self._heard
            self.cluster.news.start()
        await self.catalog.ready()  # a client that lists once, as many do, shall find what is there

    @property
    def started(self) -> bool:
        return bool(self._tasks)

    async def drain(self) -> None:
        """End every stream, in the words of its era, a busy one after its last answer; requests run on."""
        self.draining = True
        self.pool.leave()
        self.neighbours.leave()
        if self.cluster is not None:
            await self.cluster.leave()
        for stream in list(self.streams):
            stream.finish()
        for leave in self.on_drain:
            leave()

    async def stop(self) -> None:
        await self.record.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.parking.close()
        await self.catalog.close()
        await self.remembered.close()
        await self.circuits.close()
        await self.pool.close()
        await self.credentials.close()
        await self.authenticator.close()
        self.cuts.close()
        if self.tracing is not None:
            await self.tracing.close()
        self.neighbours.close()
        if self.cluster is not None:
            await self.cluster.close()

    def open_stream(self, key_id: str, announce: Callable[[str], bytes | None]) -> Outbox:
        """A new stream of one key. `announce` turns `tools`, `prompts` or `resources` into the message it wants, or None."""
        stream = Outbox()
        self.tell(stream, key_id, announce)
        return stream

    def tell(self, stream: Outbox | Trail, key_id: str, announce: Callable[[str], bytes | None]) -> None:
        """Put announcements on a stream until `close_stream`, and end it when the gateway drains or the key is revoked."""
        self.streams[stream] = (key_id, announce)
        if self.draining:
            stream.finish()  # it came over a connection that was open already

    def close_stream(self, stream: Outbox | Trail) -> None:
        self.streams.pop(stream, None)

    def status(self) -> dict[str, Any]:
        """The live facts, for the control socket and health; cheap, and safe to call from another thread."""
        return report.document(self)

    def _swap(self, snapshot: Snapshot, eras: Mapping[str, str]) -> None:
        """One reference: whoever read the old snapshot keeps it."""
        _, gone = self.pool.follow(snapshot, eras)
        self.snapshot = snapshot
        self.loaded_at = self.clock.now()
        self.credentials.keep(snapshot.remotes)
        self.limits = configured(self._started_with, snapshot.gateway.limits, self._environment)
        self.slots.follow(self.limits)
        serving.follow(self.limits)
        self.record.mode = snapshot.gateway.audit
        self.cuts.max_bytes = self.limits.max_tool_response_size
        self.budget.max_bytes = self.limits.max_payload_memory_mb * MIB
        self.budget.read_max_bytes = self.limits.read_max_bytes
        self.leases.follow(self.limits)
        self.circuits.follow(snapshot, self.limits)
        self.pool.places.most = self.limits.max_processes
        self.subscriptions.follow()
        upstreams = {name: one for name in snapshot.remotes if (one := self.pool.get(name)) is not None}
        self.catalog.follow(snapshot, upstreams)
        for upstream in gone:
            self.pool.retire(upstream)

    async def _watch(self) -> None:
        """Follow the configuration and the keys; a database that is away changes nothing here."""
        rounds = 0
        while True:
            await asyncio.sleep(_WATCH_S)
            rounds += 1
            self.neighbours.look()
            self.trails.sweep()
            self.cuts.rests.sweep()
            self.subscriptions.sweep(self._loop_time())
            try:
                await self.credentials.tend()
                await self.authenticator.refresh()
                await self._follow(services.follow_file)
                await self.circuits.sync()
                if await self.pins.follow():
                    self.catalog.judge_again()
                self.pool.sweep()
                if rounds % _FLUSH_EVERY == 0:
                    await self.authenticator.usage.flush()
                    await self._record_contacts()
                    await self._heed_probes()
            except GatewayError as error:
                log.warning("cannot follow what changes: %s", error.message)
            except Exception:
                log.exception("following what changes failed")

    async def _share(self, cluster: "Cluster") -> None:
        while True:
            try:
                await cluster.tick()
                await cluster.say(self.status())
            except Exception:
                log.exception("telling the other workers failed")
            await asyncio.sleep(_SHARE_EVERY_S)

    async def _stay_within_limits(self) -> None:
        usage = Usage()
        self.used = replace(usage.read(), cpu_percent=0.0)  # of which nothing is known before some time has passed
        while True:
            await asyncio.sleep(_GUARD_S)
            limits = guards.as_the_system_has_it(self.limits)
            used = self.used = guards.measured(usage, self.used, limits)
            before, self.shedding = self.shedding, guards.shedding(self.shedding, used, limits)
            serving.allow(guards.room(used, serving.connections(), limits))
            if self.shedding != before:
                self._shed(before)

    def _shed(self, before: tuple[str, ...]) -> None:
        if "memory" in self.shedding and "memory" not in before:
            guards.give_back_memory()
        self.slots.streams.shut = _short_of(self.shedding) if self.shedding else None
        log.warning("short of %s", ", ".join(self.shedding)) if self.shedding else log.info("short of nothing")

    async def reload(self) -> dict[str, Any]:
        """Take the configuration now, with what the files that it names hold now, instead of within a second."""
        before = self.snapshot.revision
        await self._follow(services.reload)
        return {"ok": True, "pid": os.getpid(), "revision_before": before, "revision": self.snapshot.revision}

    async def reset(self, name: str) -> None:
        """An operator says that a remote is mended: nothing is held against it, and it is connected to anew."""
        await self.circuits.reset(name)
        self.catalog.leave(name)
        facts = {"status": str(status.Status.UNKNOWN), "phase": "", "error": ""}
        with contextlib.suppress(GatewayError):  # the next contact overwrites it anyway
            await in_database(partial(services.record_health, name, **facts))
        try:
            await self.pool.reconnect(name)
        finally:
            self.catalog.take_up(name)
        await self.catalog.tried(name)

    async def _follow(self, look: Callable[[Path], Snapshot | None]) -> None:
        async with self._following:  # What was read first is swapped in first.
            changed = await in_database(look, self._config)
            if changed is not None:
                self._swap(changed, {})
                log.info("configuration revision %d is served", changed.revision)

    def _credential_changed(self, name: str) -> None:
        """A login came or went: whoever keeps the remote finds out at once what that means."""
        upstream = self.pool.get(name)
        if upstream is not None:
            upstream.last_failure = None
            upstream.changed("credential")

    def _contacted(self, kept: Kept) -> None:
        """A keeper was in touch with its remote, or failed to be; written down with the next flush."""
        name = kept.upstream.spec.name
        self.circuits.contacted(name, ok=kept.failure is None)
        failure: Failure | None = kept.failure
        metrics.HIDDEN_CHARACTERS.labels(name).set(kept.listing.notes.stripped if kept.listing is not None else 0)
        facts: dict[str, Any] = {"status": str(kept.status), "checked_at": self.clock.now()}
        if failure is None and kept.listing is not None:
            facts |= {
                "latency_ms": kept.latency_ms,
                "era": kept.listing.greeting.revision,
                "transport": kept.listing.greeting.transport,
                "tools": len(kept.listing.entries.get("tools/list", ())),
                "phase": "",
                "error": "",
                "last_ok_at": self.clock.now(),
            }
        elif failure is not None:
            facts |= {"phase": failure.phase, "error": failure.told}
        self._contacts[name] = facts

    def _heard(self, name: str, what: str, text: str) -> None:
        """Another worker was told by a remote that something changed there, which need not have told us."""
        if what == "updated":
            self.subscriptions.hinted(name, text)
            return
        for one in [name] if name else list(self.snapshot.remotes):
            self.catalog.look_at(one)

    def _degraded(self, name: str) -> None:
        """A circuit has opened: its keeper looks whether the remote is ill altogether."""
        self.catalog.look_at(name)

    async def _record_contacts(self) -> None:
        contacts, self._contacts = self._contacts, {}
        for name, facts in contacts.items():
            await in_database(lambda name=name, facts=facts: services.record_health(name, **facts))

    async def _heed_probes(self) -> None:
        """Where a probe failed since our own last contact, we look ourselves: nothing else tells of an idle remote that died."""
        for name, row in (await in_database(selectors.health)).items():
            kept = self.catalog.kept(name)
            if kept is not None and kept.is_reached and kept.failure is None and row["status"] in _FAILED_PROBES:
                self.catalog.look_at(name)

    def _published(self, kinds: set[str]) -> None:
        for name in self.snapshot.remotes:
            metrics.TOOLS_WITHHELD.labels(name).set(len(self.catalog.withheld(name)))
        for stream, (_, announce) in list(self.streams.items()):
            for kind in sorted(kinds):
                message = announce(kind)
                if message is not None:
                    stream.put(message)

    def _revoked(self, key_id: str) -> None:
        for stream, (owner, _) in list(self.streams.items()):
            if owner == key_id:
                stream.end()
                self._streams_ended += 1
        self.parking.end_of(key_id)
        for session in self.sessions:
            if session.key_id == key_id:
                self.end_session(session)

    async def reread_keys(self) -> int:
        """Follow the keys now rather than within the second; how many streams that ended."""
        before = self._streams_ended
        await self.authenticator.refresh()
        return self._streams_ended - before

    def _changed(self, principal: Principal) -> None:
        """A key may use other things than before: it is told that its lists changed, and of nothing that it lost."""
        self.subscriptions.keep(principal.key_id, lambda place: principal.allows("resource", *place))
        for stream, (owner, announce) in list(self.streams.items()):
            if owner == principal.key_id:
                for message in filter(None, map(announce, KINDS)):
                    stream.put(message)

    def asked(self, session: Session) -> None:
        """A session asked for something that outlasts its request: whoever takes it over is to know."""
        if self.cluster is not None and session.id:
            self.cluster.moves.note(session.id, Asked(session.log_level, list(session.subscriber.places)))

    async def take_over(self, session: Session, principal: Principal) -> None:
        """Go on with what a session had asked of the worker that is gone; what may have changed meanwhile counts as changed."""
        session.is_taken_over = False
        asked = await self.cluster.moves.noted(session.id) if self.cluster is not None else None
        if asked is None:
            return
        session.log_level = asked.log_level
        await self.catalog.ready()
        located = ((uri, self.catalog.located(uri, principal)) for uri in asked.uris)
        places = {uri: place for uri, place in located if place is not None}
        with contextlib.suppress(TooMany):
            refused = await self.subscriptions.add(session.subscriber, places)
            for uri in places:
                if uri not in refused:
                    session.subscriber.tell(uri)

    def end_session(self, session: Session) -> None:
        """The session is unknown from now on, and nothing of it goes on."""
        self.sessions.end(session)
        self.trails.end_of(session.id)
        self.pool.end_session(session.id)
        self.subscriptions.close(session.subscriber)

    def roots_changed(self, session: Session) -> None:
        """A client's roots are other ones: the remotes' sessions that were told it has roots hear of it."""
        capabilities = asking.carried(session.capabilities.encode())
        if "roots" in asking.declared(capabilities):
            for upstream in self.pool.belonging(
                capabilities=capabilities, key_id=session.key_id, session_id=session.id
            ):
                upstream.tell("notifications/roots/list_changed")

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()


def _short_of(shedding: tuple[str, ...]) -> Full:
    what = " and ".join(shedding)
    return Full(503, guards.RETRY_AFTER_S, f"the gateway is short of {what} and takes no new streams for a while")


def list_changed(kind: str) -> bytes:
    """The notification that a list is no longer what it was."""
    return jsonrpc.notification(f"notifications/{kind}/list_changed", None)
