"""The worker's HTTP server: Daphne, extended by what it does not have. Life, drain and bookkeeping are told here.

Only this package knows Daphne and Twisted. It never binds a port (the caller hands over listening sockets), never starts a
process, and cancels an application only when the worker's own time is up.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, cast

from gateway.serving import tuning
from mcpserver.lib import lean

tuning.use_uvloop()
tuning.share_arenas()
tuning.leave_out_native_websockets()

# TLS ends at the proxy in front, and nothing here speaks WebSocket: what Twisted and Autobahn load for these stays out.
with lean.without("OpenSSL", "cbor2", "click"):
    from daphne.http_protocol import HTTPFactory
    from daphne.server import Server as DaphneServer
    from twisted.internet import reactor as _reactor
from twisted.internet.defer import gatherResults  # noqa: E402
from twisted.logger import ILogObserver, LogLevel, STDLibLogObserver, globalLogBeginner  # noqa: E402

from gateway.serving import lifecycle as census  # noqa: E402
from gateway.serving.connection import Connection, Transport  # noqa: E402
from gateway.serving.lifecycle import ClientGone, Lifecycle, connections, in_flight  # noqa: E402
from gateway.serving.request import Application, Inbox, Message, Request  # noqa: E402
from gateway.serving.room import Room, Welcome  # noqa: E402
from gateway.serving.rules import WHEN_OVERDUE, Deadlines, is_drained  # noqa: E402
from mcpserver.lib.errors import Exit  # noqa: E402
from mcpserver.lib.limits import Limits  # noqa: E402
from mcpserver.lib.sockets import notice_vanished_clients  # noqa: E402

__all__ = ["ClientGone", "Lifecycle", "connections", "in_flight", "serve"]

log = logging.getLogger(__name__)
reactor: Any = _reactor

# Connections that were made before the listener closed and not yet taken: one last look takes them all.
LAST_ACCEPTS = 4096


def serve(
    application: Application,
    *,
    sockets: list[socket.socket],
    limits: Limits,
    lifecycle: Lifecycle,
    ready: Callable[[], None],
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    spares: Mapping[int, socket.socket] = MappingProxyType({}),
    door: socket.socket | None = None,
) -> int:
    """Serve until SIGTERM and the drain after it; the exit code. Once per process: Twisted's reactor runs but once.

    `sockets` are bound and listening, and so are `spares`, the siblings' sockets, on which nothing is accepted before it is
    adopted; all belong to the server from here on. `door` is a unix socket on which the other workers of this machine send
    requests: it stays open through the drain. What `on_start` raises is raised here.
    """
    server = Server(application, sockets, limits, lifecycle, ready, deadlines, spares, door)
    census.count_with(server)
    try:
        return server.run()
    finally:
        census.count_with(None)


class Factory(HTTPFactory):  # type: ignore[misc]
    """Makes our connections. Twisted's own access log, which Daphne discards after formatting it, is off."""

    def buildProtocol(self, address: object) -> Connection | None:
        """None closes what was accepted, at once."""
        welcome = self.server.room.welcome()
        if welcome is Welcome.IS_NOT_TAKEN:
            return None
        connection: Any = Connection(self.server, is_told_full=welcome is Welcome.IS_TOLD_FULL)
        connection.factory = self
        connection.requestFactory = Request
        connection.callLater = reactor.callLater
        return cast("Connection", connection)

    def log(self, request: Request) -> None:
        """Called by Twisted for every answer. The gateway writes its own line, with what an operator asks for."""

    def startFactory(self) -> None:
        """Nothing to open: the parent would format the date for the access log, each second."""

    def stopFactory(self) -> None:
        pass


class Server(DaphneServer):  # type: ignore[misc]
    """Daphne's server with its own bookkeeping: sets that forget at once, instead of a registry swept once a second.

    Daphne's `run` is not used, so neither its websocket half nor its timers ever start.
    """

    def __init__(
        self,
        application: Application,
        sockets: list[socket.socket],
        limits: Limits,
        lifecycle: Lifecycle,
        ready: Callable[[], None],
        deadlines: Deadlines,
        spares: Mapping[int, socket.socket],
        door: socket.socket | None,
    ) -> None:
        super().__init__(
            application,
            endpoints=[f"fd:{each.fileno()}" for each in sockets],
            signal_handlers=False,
            # One more than the cap: Daphne then hands over any body as one message.
            request_buffer_size=limits.max_request_size + 1,
            verbosity=0,
            server_name="",
        )
        self.limits = limits
        self.deadlines = deadlines
        self.is_draining = False
        self.room = Room(limits.max_open_files, deadlines)
        self._sockets = sockets
        self._spares = dict(spares)
        self._door = door
        self._adopted: dict[int, Any] = {}
        self._lifecycle = lifecycle
        self._ready = ready
        self._ports: list[Any] = []
        self._factory = Factory(self)
        self._running: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()
        self._hurried = asyncio.Event()
        self._quiet = asyncio.Event()

    # Counts.

    def connections(self) -> int:
        return len(self.room.connected)

    def unsent_bytes(self) -> int:
        return sum(connection.unsent_bytes for connection in tuple(self.room.connected))

    def in_flight(self) -> int:
        return len(self._running)

    def allow(self, connections: int) -> None:
        self.room.connections_max = connections

    def follow(self, limits: Limits) -> None:
        self.limits = limits
        for port in (*self._ports, *self._adopted.values()):
            notice_vanished_clients(port.socket, limits.stale_s)

    # A sibling's connections, while it cannot take them.

    def adopt(self, number: int) -> None:
        spare = self._spares.get(number)
        if spare is not None and number not in self._adopted and not self.is_draining:
            self._adopted[number] = self._listen_on(spare)
            log.warning("accepting the connections of worker %d", number)

    def release(self, number: int) -> None:
        port = self._adopted.pop(number, None)
        if port is not None:
            port.stopListening()
            log.info("worker %d accepts its connections again", number)

    def adopted(self) -> list[int]:
        return list(self._adopted)

    def _listen_on(self, listener: socket.socket) -> Any:
        """Twisted listens on a copy of the socket."""
        listener.setblocking(False)
        notice_vanished_clients(listener, self.limits.stale_s)
        port = reactor.adoptStreamPort(listener.fileno(), listener.family, self._factory)
        port.transport = Transport
        return port

    # Life.

    def run(self) -> int:
        self._loop = tuning.loop_of(reactor)
        asyncio.set_event_loop(self._loop)
        tuning.use_monotonic_time(reactor)
        globalLogBeginner.beginLoggingTo([cast("ILogObserver", _report)], redirectStandardIO=False, discardBuffer=True)
        self._loop.add_signal_handler(signal.SIGTERM, self._asked_to_end)
        # Ctrl-C reaches the whole foreground group; who supervises us says what it means. A handler, as children would
        # inherit an ignored signal.
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)
        life = self._loop.create_task(self._live())
        life.add_done_callback(lambda _: reactor.stop())
        reactor.run(installSignalHandlers=False)
        return life.result()

    def _asked_to_end(self) -> None:
        (self._hurried if self._ending.is_set() else self._ending).set()

    async def _live(self) -> int:
        ending = asyncio.create_task(self._ending.wait())
        started = asyncio.ensure_future(self._lifecycle.on_start())
        await asyncio.wait({started, ending}, return_when=asyncio.FIRST_COMPLETED)
        if started.done():
            started.result()
            self._open()
            await ending
            await self._drain()
        else:
            started.cancel()
            await asyncio.wait({started}, timeout=self.deadlines.cancelled_s)
        await self._call(self._lifecycle.on_stop(), timeout_s=self.deadlines.stop_s)
        return Exit.INTERRUPTED if self._hurried.is_set() else Exit.DONE

    def _open(self) -> None:
        for each in self._sockets:
            self._ports.append(self._listen_on(each))
            # While this one is open too the kernel would go on accepting after the drain.
            each.close()
        if self._door is not None:
            self._door.setblocking(False)
            self._loop.add_reader(self._door, self._accept_neighbour)
        tuning.relax_garbage_collection()
        tuning.tidy(self._loop)
        self._sweep()
        self._ready()

    def _accept_neighbour(self) -> None:
        assert self._door is not None
        with suppress(BlockingIOError, ConnectionError):
            peer, _ = self._door.accept()
            reactor.adoptStreamConnection(peer.fileno(), socket.AF_UNIX, self._factory)
            peer.close()

    def _close_door(self) -> None:
        if self._door is not None:
            self._loop.remove_reader(self._door)
            self._door.close()
            self._door = None

    def _sweep(self) -> None:
        # First, so that no failure below can end the sweeping.
        self._loop.call_later(self.deadlines.sweep_s, self._sweep)
        allowed = self.deadlines.allowed_s(draining=self.is_draining)
        now = time.monotonic()
        for connection in tuple(self.room.connected):
            if now - connection.since >= allowed[connection.phase]:
                connection.obey(WHEN_OVERDUE[connection.phase])

    # Drain.

    async def _drain(self) -> None:
        self.is_draining = True
        log.info("draining: %d connections, %d requests in flight", len(self.room.connected), len(self._running))
        await self._stop_listening()
        await self._unless_hurried(self._emptied(), timeout_s=self.limits.shutdown_grace_s)
        await self._cancel_requests()

    async def _emptied(self) -> None:
        self._note_quiet()
        await self._call(self._lifecycle.on_drain(), timeout_s=self.limits.shutdown_grace_s)
        await self._quiet.wait()

    async def _stop_listening(self) -> None:
        for spare in self._spares.values():
            spare.close()
        self._ports += self._adopted.values()
        self._adopted.clear()
        for port in self._ports:
            port.numberAccepts = LAST_ACCEPTS
            port.doRead()
        await gatherResults([port.stopListening() for port in self._ports]).asFuture(self._loop)

    async def _cancel_requests(self) -> None:
        self._close_door()
        running = tuple(self._running)
        if running:
            log.warning("cancelling %d requests that did not end in time", len(running))
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=self.deadlines.cancelled_s)
        for connection in tuple(self.room.connected):
            connection.loseConnection()
        await self._unless_hurried(self._quiet.wait(), timeout_s=self.deadlines.cancelled_s)

    async def _call(self, hook: Awaitable[None], *, timeout_s: float) -> None:
        """One hook of the lifecycle: whatever it does, the worker ends."""
        try:
            if not await self._unless_hurried(hook, timeout_s=timeout_s):
                log.error("a shutdown hook did not end within %g s", timeout_s)
        except Exception:
            log.exception("a shutdown hook failed")

    async def _unless_hurried(self, work: Awaitable[object], *, timeout_s: float) -> bool:
        """Wait for `work`; False, and it is cancelled, when the time is up or a second SIGTERM says so.

        What is cut short still gets a moment to tidy up, and what begins after the second SIGTERM has only that moment.
        """
        moment_s = self.deadlines.cancelled_s
        task = asyncio.ensure_future(work)
        if self._hurried.is_set():
            await asyncio.wait({task}, timeout=moment_s)
        else:
            hurried = asyncio.create_task(self._hurried.wait())
            await asyncio.wait({task, hurried}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=moment_s)
        if not task.done() or task.cancelled():
            return False
        task.result()
        return True

    def _note_quiet(self) -> None:
        if self.is_draining and is_drained(connections=len(self.room.connected), requests=len(self._running)):
            self._quiet.set()

    def forget_connection(self, connection: Connection) -> None:
        self.room.forget(connection)
        self._note_quiet()

    def forget_request(self, request: Request) -> None:
        self._running.discard(request.task)
        self._note_quiet()

    # What Daphne's requests call.

    def create_application(self, protocol: Request, scope: Message) -> Inbox:
        scope["asgi"] = {"version": "3.0"}
        inbox = Inbox()
        protocol.task = self._loop.create_task(protocol.run(self.application, scope, inbox))
        self._running.add(protocol.task)
        return inbox

    def protocol_connected(self, protocol: Request) -> None:
        """Connections count themselves, and requests only once they run."""

    def protocol_disconnected(self, protocol: Request) -> None:
        pass


def _report(event: Any) -> None:
    """Twisted's log, of which only what went wrong is of interest."""
    if event.get("log_level") in (LogLevel.error, LogLevel.critical):
        _twisted_log(event)


_twisted_log = STDLibLogObserver("twisted")
