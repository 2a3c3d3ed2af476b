"""One remote, kept warm: connected when first needed, reconnected when lost, shared by every call.

Many callers may wait for one connect; each waits no longer than its own deadline, and the connect goes on for the others.
A session that the remote has forgotten is opened again once, and the request repeated, because it provably was not executed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec

from mcpserver.lib.limits import Limits
from mcpserver.protocol.versions import NEWEST_HANDSHAKE
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.berth import Berth
from remotes.upstream.budget import Budget
from remotes.upstream.connect import connect
from remotes.upstream.connection import Connection, Greeting
from remotes.upstream.credential import NO_CREDENTIAL, Credential
from remotes.upstream.envelope import Ask, Exchange
from remotes.upstream.guest import Guest
from remotes.upstream.host import Host
from remotes.upstream.origin import Origin
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Outcome, Refusal, untold
from remotes.upstream.record import Places, Record
from remotes.upstream.secrets import masked, masked_failure
from remotes.upstream.watch import Watch

log = logging.getLogger("mcp.upstream")

Told = Callable[[str], None]
# What we tell a remote of our own accord may take this long.
_TELL_S = 5.0
_TELLING_MAX = 8


class Upstream:
    """The seam: `exchange` is all that the gateway needs of a remote."""

    def __init__(
        self,
        spec: RemoteSpec,
        *,
        budget: Budget,
        max_in_flight: int = Limits().max_in_flight_per_remote,
        era: str = "",
        capabilities: bytes = b"{}",
        watches: bool = False,
        credential: Credential = NO_CREDENTIAL,
        places: Places | None = None,
        berth: Berth | None = None,
    ) -> None:
        """`watches`: this session is the one that the remote tells of changes. `places`: where its processes may run.

        `berth`: which of several workers runs the process of a stdio remote; without one this one does.
        """
        self.spec = spec
        self._credential = credential
        self.record = Record(Places(2) if places is None else places)
        self._berth = berth
        self._host: Host | None = None
        self._watches = watches
        self.capabilities = capabilities
        self.in_flight = 0
        self.last_failure: Failure | None = None
        self.on_change: Told = lambda kind: None
        self.on_updated: Told = lambda uri: None
        self.on_completed: Told = lambda elicitation_id: None
        self.on_task: Callable[[bytes], None] = lambda params: None
        self.on_heard: Callable[[str, str], None] = lambda what, text: None
        self.watch = Watch(self)
        self._budget = budget
        self._max_in_flight = max_in_flight
        self.era = era
        self.expected: Greeting | None = None
        """What the remote said on another session of the same kind, until it says it on this one."""
        self.used_at = 0.0
        self._origin: Origin | None = None
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._closed = False
        self._asking = 0
        self._drained: asyncio.Future[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def greeting(self) -> Greeting | None:
        return self._connection.greeting if self._connection is not None else self.expected

    async def exchange(self, exchange: Exchange) -> Outcome:
        """Send one request to the remote and wait for its outcome, no longer than the exchange's deadline."""
        if self._credential.blocked is not None:
            return self._credential.blocked
        self.in_flight += 1
        if exchange.ask is not None:
            exchange.ask = self._counted(exchange.ask)
        try:
            connection = self._connection
            if connection is None or not connection.usable:
                connection = await self.connected(exchange.deadline)
            used = self._credential.serial
            outcome = await connection.request(exchange)
            if isinstance(outcome, Failure) and await self._may_repeat(outcome, connection, used, exchange.deadline):
                connection = await self.connected(exchange.deadline)
                outcome = await connection.request(exchange)
        except Failed as failed:  # in connecting, shaking hands or getting a credential
            outcome = msgspec.structs.replace(failed.failure, before_request=True)
        finally:
            self.in_flight -= 1
            if self._host is not None:
                self._host.stir()
            if self._drained is not None and not self.in_flight and not self._drained.done():
                self._drained.set_result(None)
        if isinstance(outcome, Answer):
            return outcome
        outcome = masked(self.spec, outcome, self._credential.headers)
        if isinstance(outcome, Failure):
            outcome = untold(outcome, (*self.spec.headers.values(), *self._credential.headers.values()))
            self.last_failure = outcome
        return outcome

    async def _may_repeat(self, failure: Failure, connection: Connection, used: int, deadline: float) -> bool:
        """Once, after what was provably not executed: a session that is forgotten, a credential that was renewed since."""
        if failure.fault is Fault.UNAUTHORIZED:
            refused = await self._credential.renew(used, failure, deadline)
            if refused is not None:
                raise Failed(refused)
            return True
        return not connection.usable and failure.status == 404

    @property
    def is_ambiguous(self) -> bool:
        """Whether a further call's question could not be told from another's, where the transport does not say whose it is."""
        connection = self._connection
        if connection is None or connection.greeting.transport == "http":
            return False
        return self._asking > 0 or connection.is_doubtful

    def _counted(self, ask: Ask) -> Ask:
        async def counted(method: str, params: bytes | None) -> Answer | Refusal:
            self._count_asking(1)
            try:
                return await ask(method, params)
            finally:
                self._count_asking(-1)

        return counted

    @property
    def is_unmet(self) -> bool:
        """Whether only connecting shows if siblings' questions are open there: another worker may run the process."""
        return self._berth is not None and (self._connection is None or not self._connection.usable)

    def _count_asking(self, more: int) -> None:
        self._asking += more
        if self._host is not None:
            self._host.stir()

    async def connected(self, deadline: float) -> Connection:
        """The open connection, opened now if need be; raises Failed."""
        if self._connection is not None and self._connection.usable:
            return self._connection
        if self._closed:
            raise Failed(self._gone())
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())
            self._connecting.add_done_callback(_noticed)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(self._connecting)
        except TimeoutError:
            raise Failed(self._still_connecting()) from None
        except asyncio.CancelledError:
            if self._connect_was_cancelled():
                raise Failed(self._gone()) from None
            raise

    def _still_connecting(self) -> Failure:
        """With what was last wrong: where each try takes longer than its callers wait, nobody would ever hear of it."""
        last = self.last_failure
        detail = "" if last is None else last.detail if last.phase == "connect" else last.told
        if not detail and self.record.noise:
            detail = "it writes to stdout what is no MCP"
        why = f"{self.spec.name} cannot be reached: it is still connecting"
        return Failure(Fault.NOT_SENT, "connect", why, detail=detail)

    def _connect_was_cancelled(self) -> bool:
        """Whether the connect was cancelled by us, and not by somebody the caller who waits for it."""
        caller = asyncio.current_task()
        return caller is not None and not caller.cancelling()

    def tell(self, method: str) -> None:
        """Send a notification to a remote that is there; one that is not has nothing to miss."""
        connection = self._connection
        if connection is None or not connection.usable or len(self._telling) >= _TELLING_MAX:
            return
        task = asyncio.create_task(self._tell(connection, method))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, connection: Connection, method: str) -> None:
        with contextlib.suppress(Failed, TimeoutError):
            async with asyncio.timeout(_TELL_S):
                await connection.notify(method)

    async def drained(self) -> None:
        """Wait for the last open call to end."""
        if self.in_flight:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    async def reconnect(self) -> None:
        """Leave what connection there is, and forget what was held against the remote; the next request opens another."""
        self.record.forgive()
        self.last_failure = None
        if self._host is not None:
            self._host.lost(Failure(Fault.BROKEN, "answer", f"{self.spec.name} is being connected anew"))
        await self._disconnect()

    async def close(self) -> None:
        if self._host is not None:
            await self._host.close()
        self._closed = True
        await self.watch.close()
        for task in list(self._telling):
            task.cancel()
        await self._disconnect()
        if self._berth is not None:
            self._berth.release()
        if self._origin is not None:
            self._origin.close()

    async def _disconnect(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError, Failed):
                await self._connecting
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def leave(self) -> None:
        """This worker is about to end: a sibling runs the next process, and this one ends with what it has under way."""
        if self._host is not None and self._berth is not None:
            self._host.leave()
            self._berth.release()

    @property
    def is_elsewhere(self) -> bool:
        """Whether another worker runs the process."""
        return isinstance(self._connection, Guest)

    def _gone(self) -> Failure:
        why = "is no longer configured" if self._closed else "is being connected anew"
        return Failure(Fault.NOT_SENT, "connect", f"{self.spec.name} {why}")

    # Listener: what the connection tells outside any request.

    def changed(self, kind: str) -> None:
        self.on_change(kind)
        self._heard("changed", kind)

    def updated(self, uri: str) -> None:
        self.on_updated(uri)
        self._heard("updated", uri)

    def _heard(self, what: str, text: str) -> None:
        """Tell those who share the process, or those who have sessions of their own; another machine's process is another."""
        if self._host is not None:
            self._host.heard(what, text)
        elif self.spec.transport != "stdio":
            self.on_heard(what, text)

    def completed(self, elicitation_id: str) -> None:
        self.on_completed(elicitation_id)
        if self._host is not None:
            self._host.heard("completed", elicitation_id)

    def task_changed(self, params: bytes) -> None:
        self.on_task(params)
        if self._host is not None:
            self._host.heard("task_changed", params=params)

    def lost(self, failure: Failure) -> None:
        self.last_failure = failure
        if self._host is not None:
            self._host.lost(failure)
        if (
            self._connection is not None and not self.is_elsewhere
        ):  # before it was greeted: counted with the failed connect
            self.record.died(asyncio.get_running_loop().time(), was_greeted=True)
        log.info("lost %s: %s", self.spec.name, failure.told, extra={"remote": self.spec.name})
        self.on_change("lost")

    async def _open(self) -> Connection:
        try:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None
            if self._origin is None and self.spec.transport != "stdio":
                self._origin = Origin(self.spec.url, self.spec.reach)
            self._connection = await (self._process() if self.spec.transport == "stdio" else self._let_in())
        except Failed as failed:
            self.last_failure = masked_failure(self.spec, failed.failure, self._credential.headers)
            raise Failed(self.last_failure) from None
        finally:
            self._connecting = None
        self.era = _to_remember(self._connection.greeting)
        self.last_failure = None
        if self._watches:
            shares = self._host is not None and not self.is_elsewhere
            self.watch.begin(self._host.shared(self._connection) if self._host and shares else self._connection)
        return self._connection

    async def _let_in(self) -> Connection:
        """Find out who is there, with a credential that was renewed once if the first was refused."""
        deadline = asyncio.get_running_loop().time() + self.spec.connect_timeout_s
        unready = await self._credential.ready(deadline)
        if unready is not None:
            raise Failed(unready)
        used = self._credential.serial
        try:
            return await self._found_out()
        except Failed as failed:
            if failed.failure.fault is not Fault.UNAUTHORIZED:
                raise
            refused = await self._credential.renew(used, failed.failure, deadline)
        if refused is not None:
            raise Failed(refused)
        return await self._found_out()

    async def _found_out(self) -> Connection:
        """Connect as remembered; when the remote has changed its era meanwhile, find out anew."""
        try:
            return await self._connect()
        except Failed as failed:
            if not self.era or self.spec.era != "auto" or failed.failure.fault in (Fault.NOT_SENT, Fault.UNAUTHORIZED):
                raise
            self.era = ""
            if failed.failure.fault is Fault.TIMEOUT:  # no time is left; the next connect finds out
                raise
        return await self._connect()

    async def _connect(self) -> Connection:
        return await connect(
            self.spec,
            self._origin,
            self,
            era=self.era,
            budget=self._budget,
            capabilities=self.capabilities,
            credential=self._credential,
            record=self.record,
        )

    async def _process(self) -> Connection:
        """A process: another worker's, or one of ours if the last ones have not ended too soon one after the other."""
        loop = asyncio.get_running_loop()
        if self._berth is not None:
            deadline = loop.time() + self.spec.connect_timeout_s
            if (link := await self._berth.settle(deadline)) is not None:
                return await Guest.joined(self.spec.name, link, self, deadline)
            await self._receive(self._berth)
        self.record.admit(self.spec.name, loop.time())
        try:
            connection = await self._found_out()
        except Failed as failed:
            if failed.failure.fault is not Fault.BUSY:
                self.record.died(loop.time(), was_greeted=False)
            raise
        self.record.greeted(loop.time())
        if self._berth is not None:
            self._berth.note(self.record.pid)
        return connection

    async def _receive(self, berth: Berth) -> None:
        """Be there for the siblings, before the process is: they wait for it with us."""
        if self._host is None or not self._host.is_open:
            connect_s = self.spec.connect_timeout_s
            self._host = Host(
                self.spec.name,
                self,
                max_bytes=self._budget.read_max_bytes,
                max_in_flight=self._max_in_flight,
                connect_s=connect_s,
            )
            await self._host.open(berth.socket)


def _noticed(connecting: asyncio.Task[Connection]) -> None:
    """A connect that fails when its last caller has left is in `last_failure`, and no surprise to asyncio."""
    if not connecting.cancelled():
        connecting.exception()


def _to_remember(greeting: Greeting) -> str:
    """2024-11-05 stands for its transport; over another one the next handshake may as well propose the newest."""
    if greeting.revision == "2024-11-05" and greeting.transport == "http":
        return NEWEST_HANDSHAKE
    return greeting.revision
