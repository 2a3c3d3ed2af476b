"""The worker that runs a stdio remote's process, serving its siblings over a socket of its own.

Their requests go through the same door as ours (`Upstream.exchange`), so one limit holds for all of them together. What a sibling
asked for ends with its link. Resource subscriptions belong to the process: one ends when nobody here or there wants it any more.
"""

import asyncio
import itertools
from collections.abc import Coroutine, Hashable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mcpserver.lib import control
from mcpserver.protocol.versions import LISTS
from remotes.upstream import frames
from remotes.upstream.connection import LISTEN, Connection, Greeting
from remotes.upstream.envelope import Exchange
from remotes.upstream.frames import (
    Asked,
    Frame,
    Heard,
    Leaving,
    Link,
    Notified,
    Occupied,
    Question,
    Replied,
    Told,
    Unasked,
    Unavailable,
    Withdrawn,
)
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Outcome, Refusal

_SUBSCRIBE, _UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"
# Siblings' calls that are under way when this worker stops have this long to end.
_GRACE_S = 20.0
# What a sibling was told of its neighbours' questions is looked at again after so long.
_DOUBTED_S = 10.0


class Upstream(Protocol):
    """What is served."""

    used_at: float
    in_flight: int

    @property
    def is_ambiguous(self) -> bool: ...

    async def connected(self, deadline: float) -> Connection: ...
    async def exchange(self, exchange: Exchange) -> Outcome: ...


class _Visitor(msgspec.Struct, eq=False):
    """A sibling: what it has under way, and the questions it was asked."""

    link: Link
    calls: dict[int, asyncio.Task[None]] = {}
    questions: dict[int, asyncio.Future[Answer | Refusal]] = {}


class Host:
    def __init__(self, name: str, upstream: Upstream, *, max_bytes: int, max_in_flight: int, connect_s: float) -> None:
        """`max_in_flight`: siblings' calls beyond it are refused; each worker has a queue for its own."""
        self._name = name
        self._upstream = upstream
        self._max_bytes = max_bytes
        self._max_in_flight = max_in_flight
        self._connect_s = connect_s
        self._numbers = itertools.count(1)
        self._visitors: dict[Link, _Visitor] = {}
        self._serving: dict[asyncio.Task[None], _Visitor] = {}
        self._holders: dict[bytes, set[Hashable]] = {}
        self._server: asyncio.AbstractServer | None = None
        self._said_occupied = False
        self._look_again: asyncio.TimerHandle | None = None

    async def open(self, path: Path) -> None:
        self._server = await asyncio.start_unix_server(self._accept, sock=control.bound(path))

    @property
    def is_open(self) -> bool:
        return self._server is not None

    def leave(self) -> None:
        """Take no more siblings, and tell those who are here to go on elsewhere. What they have under way runs on."""
        if self._look_again is not None:
            self._look_again.cancel()
        if self._server is not None:
            self._server.close()
            self._server = None
        self.lost(Failure(Fault.BROKEN, "answer", f"{self._name} is taken over by another worker"))

    def lost(self, failure: Failure) -> None:
        """The process ended: every link to it does."""
        self._holders.clear()
        self._say(Leaving(failure))

    async def close(self) -> None:
        """Siblings close their links themselves, each after its last answer; those who do not in time are cut off."""
        self.leave()
        serving = dict(self._serving)
        for task, visitor in serving.items():
            if visitor.link not in self._visitors:  # it waits for a process that will not come
                task.cancel()
        if serving:
            await asyncio.wait(serving, timeout=_GRACE_S)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def heard(self, what: str, text: str = "", params: bytes = b"") -> None:
        """What the remote said outside any request, for every sibling."""
        self._say(Heard(what, text, params))

    def stir(self) -> None:
        """Something was asked, answered or ended: siblings begin no call here that could be asked something meanwhile."""
        is_occupied = self._upstream.is_ambiguous
        if is_occupied != self._said_occupied:
            self._said_occupied = is_occupied
            self._say(Occupied(is_occupied))
        if is_occupied and self._look_again is None:  # a doubt ends by itself, after a while
            self._look_again = asyncio.get_running_loop().call_later(_DOUBTED_S, self._stir_again)

    def _stir_again(self) -> None:
        self._look_again = None
        if self._visitors:
            self.stir()

    def shared(self, connection: Connection) -> Connection:
        """The same connection for our own subscriptions, which end no sibling's."""
        return _Shared(self, connection)

    async def watched(self, holder: Hashable, connection: Connection, exchange: Exchange) -> Outcome:
        """A request of a watch."""
        if exchange.method == LISTEN:
            return await connection.request(exchange)
        uri = bytes(exchange.params.get("uri", b""))
        holders = self._holders.setdefault(uri, set())
        if exchange.method == _SUBSCRIBE:
            holders.add(holder)
        else:
            holders.discard(holder)
            if holders:
                return Answer(b"{}", connection.greeting.modern)
        if not holders:
            self._holders.pop(uri, None)
        return await connection.request(exchange)

    def _say(self, frame: Frame) -> None:
        for link in self._visitors:
            link.say(frame)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitor = _Visitor(Link(reader, writer, max_bytes=self._max_bytes))
        task = asyncio.create_task(self._serve(visitor))
        self._serving[task] = visitor
        task.add_done_callback(lambda done: self._serving.pop(done, None))

    async def _serve(self, visitor: _Visitor) -> None:
        try:
            await self._receive(visitor)
            async for frame in visitor.link.frames():
                self._took(visitor, frame)
        except Failed:
            return  # it left before it was greeted
        finally:
            await self._part(visitor)

    async def _receive(self, visitor: _Visitor) -> None:
        deadline = asyncio.get_running_loop().time() + self._connect_s
        try:
            connection = await self._upstream.connected(deadline)
        except Failed as failed:
            await visitor.link.send(Unavailable(failed.failure))
            raise
        self._visitors[visitor.link] = visitor
        if self._said_occupied:
            visitor.link.say(Occupied(True))
        await visitor.link.send(frames.greeted(connection.greeting))

    async def _part(self, visitor: _Visitor) -> None:
        visitor.link.close()
        self._visitors.pop(visitor.link, None)
        for uri in [uri for uri, holders in self._holders.items() if visitor.link in holders]:
            self._holders[uri].discard(visitor.link)
        calls = list(visitor.calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _took(self, visitor: _Visitor, frame: Frame) -> None:
        match frame:
            case Asked(number):
                self._spawn(visitor, number, self._asked(visitor, frame))
            case Withdrawn(number):
                if (call := visitor.calls.get(number)) is not None:
                    call.cancel()
            case Replied(question, result, error, modern):
                waiting = visitor.questions.get(question)
                if waiting is not None and not waiting.done():
                    waiting.set_result(Answer(result, modern) if result is not None else Refusal(error))
            case Notified():
                self._spawn(visitor, -next(self._numbers), self._notified(frame))

    def _spawn(self, visitor: _Visitor, number: int, work: Coroutine[Any, Any, None]) -> None:
        call = asyncio.ensure_future(work)
        visitor.calls[number] = call
        call.add_done_callback(lambda _: visitor.calls.pop(number, None))

    async def _asked(self, visitor: _Visitor, frame: Asked) -> None:
        now = asyncio.get_running_loop().time()
        exchange = frames.exchange(frame, now)
        self._upstream.used_at = now
        if frame.notified:
            exchange.notify = lambda method, params: visitor.link.say(Told(frame.number, method, params))
        if frame.may_ask:
            exchange.ask = lambda method, params: self._ask(visitor, frame.number, method, params)
        try:
            if frame.method in (LISTEN, _SUBSCRIBE, _UNSUBSCRIBE):
                connection = await self._upstream.connected(exchange.deadline)
                outcome = await self.watched(visitor.link, connection, exchange)
            elif self._upstream.in_flight >= self._max_in_flight and frame.method not in LISTS:
                outcome = Failure(Fault.BUSY, "lease", f"{self._upstream.in_flight} calls are open", retry_after_s=1.0)
            else:
                outcome = await self._upstream.exchange(exchange)
            await visitor.link.send(frames.answered(frame.number, outcome))
        except Failed as failed:
            visitor.link.say(frames.answered(frame.number, failed.failure))

    async def _ask(self, visitor: _Visitor, number: int, method: str, params: bytes | None) -> Answer | Refusal:
        question = next(self._numbers)
        waiting: asyncio.Future[Answer | Refusal] = asyncio.get_running_loop().create_future()
        visitor.questions[question] = waiting
        try:
            await visitor.link.send(Question(number, question, method, params))
            return await waiting
        except asyncio.CancelledError:
            visitor.link.say(Unasked(question))
            raise
        finally:
            del visitor.questions[question]

    async def _notified(self, frame: Notified) -> None:
        connection = await self._upstream.connected(asyncio.get_running_loop().time() + self._connect_s)
        await connection.notify(frame.method, frame.params)


class _Shared:
    def __init__(self, host: Host, connection: Connection) -> None:
        self.greeting: Greeting = connection.greeting
        self._host = host
        self._connection = connection

    @property
    def usable(self) -> bool:
        return self._connection.usable

    @property
    def is_doubtful(self) -> bool:
        return self._connection.is_doubtful

    async def request(self, exchange: Exchange) -> Outcome:
        return await self._host.watched(self._host, self._connection, exchange)

    async def notify(self, method: str, params: bytes | None = None) -> None:
        await self._connection.notify(method, params)

    async def close(self) -> None:
        await self._connection.close()
