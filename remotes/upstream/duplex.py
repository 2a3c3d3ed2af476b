"""A channel that carries many requests at once (stdio, HTTP+SSE): ids out, answers matched, the rest handed on.

Written once for both transports, which differ in how bytes travel (`Wire`) and in nothing else. An answer with an id that was
never asked for is dropped and counted; a notification that belongs to no request alone reaches a caller only when exactly one
call is open and none was lately given up, because otherwise nobody can say whose it is.
"""

import asyncio
import itertools
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec

from mcpserver.protocol import jsonrpc
from remotes.upstream import envelope, questions
from remotes.upstream.budget import Held, crowded
from remotes.upstream.connection import ACKNOWLEDGED, LISTEN, Greeting, Listener, as_outcome, heard, lower_level
from remotes.upstream.envelope import Exchange
from remotes.upstream.lines import ENDS_BYTES, Oversized
from remotes.upstream.outcome import Failed, Failure, Fault, Outcome

log = logging.getLogger("mcp.upstream")

# What we tell a remote of our own accord (a cancellation, a pong) may take this long, and so many may be on their way at once:
# a remote that asks and never reads would otherwise have us hoard answers.
_TELL_S = 5.0
_TELLING_MAX = 64


class Wire(Protocol):
    """How bytes travel."""

    async def send(self, message: bytes) -> None:
        """Hand one message over; raises Failed (NOT_SENT when provably none of it left)."""

    async def close(self) -> None: ...


class _Open(msgspec.Struct):
    exchange: Exchange
    answer: asyncio.Future[jsonrpc.Response]
    held: Held | None = None


class Duplex:
    """One open channel. `received` is called by the wire for each message, `broke` once when it ends."""

    def __init__(self, name: str, wire: Wire, listener: Listener) -> None:
        self.greeting = Greeting("", "", {})
        self.strays = 0
        self.starved: Failure | None = None
        """Why nothing is read at the moment, if it is for want of memory."""
        self._name = name
        self._wire = wire
        self._listener = listener
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._departed = questions.Departed()
        self._ended: Failure | None = None
        self._log_level = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def usable(self) -> bool:
        return self._ended is None

    @property
    def is_doubtful(self) -> bool:
        return bool(self._departed)

    async def request(self, exchange: Exchange) -> Outcome:
        try:
            async with asyncio.timeout_at(exchange.deadline) as exchange.timer:
                if exchange.log_level and not self.greeting.modern:
                    await self._lower_log_level(exchange)
                return await self._ask(exchange)
        except TimeoutError:
            return self.starved or Failure(
                Fault.TIMEOUT, "answer", f"{self._name} did not answer {exchange.method} in time"
            )
        except Failed as failed:
            return failed.failure

    async def notify(self, method: str, params: bytes | None = None) -> None:
        await self._wire.send(jsonrpc.notification(method, params))

    async def close(self) -> None:
        self.broke(Failure(Fault.BROKEN, "answer", f"the connection to {self._name} was closed"), tell=False)
        telling = list(self._tasks)
        for task in telling:
            task.cancel()
        await asyncio.gather(*telling, return_exceptions=True)
        await self._wire.close()

    def broke(self, failure: Failure, *, tell: bool = True) -> None:
        """The wire ended: everything in flight fails with `failure`."""
        if self._ended is not None:
            return
        self._ended = failure
        for waiting in self._open.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(Failed(failure))
        if tell:
            self._listener.lost(failure)

    async def afford(self, held: Held, size: int) -> None:
        """For the wire: wait for the memory of a message of which so much was read. Nothing else is read meanwhile."""
        if held.covers(size):
            return
        self.starved = crowded(self._name)
        try:
            await held.grow(size)
        finally:
            self.starved = None

    def received(self, raw: bytes, held: Held | None = None) -> bool:
        """One message from the remote; whether it is an answer somebody waits for. Raises jsonrpc.Malformed for what is none."""
        message = jsonrpc.decode(raw)
        match message:
            case jsonrpc.Response():
                return self._answered(message, held)
            case jsonrpc.Request():
                self._asked(message)
            case jsonrpc.Notification():
                self._notified(message)
        return False

    def failed(self, number: int | None, failure: Failure) -> bool:
        """An answer came that cannot be delivered; whether anybody waited for it. None: it is the only open request's."""
        if number is None and len(self._open) == 1:
            number = next(iter(self._open))
        waiting = self._open.get(number) if number is not None else None
        if waiting is None or waiting.answer.done():
            return False
        waiting.answer.set_exception(Failed(failure))
        return True

    def unreadable(self, raw: bytes, malformed: jsonrpc.Malformed, *, is_meant: bool) -> bool:
        """What came is no message. The call whose answer it was fails, and no other; False where nobody can say whose it was.

        `is_meant`: it was sent as a message, so that it can only be the answer to the one call that is open.
        """
        known = malformed.id if malformed.id is not None and malformed.id.isdigit() and len(malformed.id) < 20 else None
        number = int(known) if known else Oversized(raw[:ENDS_BYTES], raw[-ENDS_BYTES:]).number
        if number is None and not is_meant:
            return False
        why = f"{self._name} sent no valid answer: {malformed.message}"
        return self.failed(number, Failure(Fault.INVALID, "answer", why, raw[:4096]))

    async def _ask(self, exchange: Exchange) -> Outcome:
        if self._ended is not None:
            raise Failed(Failure(Fault.NOT_SENT, "send", self._ended.message))
        number = next(self._numbers)
        waiting = _Open(exchange, asyncio.get_running_loop().create_future())
        self._open[number] = waiting
        exchange.is_over = False
        try:
            await self._wire.send(envelope.message(exchange, number, modern=self.greeting.modern))
            response = await waiting.answer
        except asyncio.CancelledError:
            if questions.may_ask(exchange):
                self._departed.add(number)
            self._cancelled(number, exchange.method)
            raise
        finally:
            del self._open[number]
            if waiting.answer.done() and not waiting.answer.cancelled():
                waiting.answer.exception()
            if exchange.questions:
                await questions.withdraw(exchange)
            exchange.is_over = True
        return as_outcome(self._name, response, modern=self.greeting.modern, held=waiting.held)

    def _cancelled(self, number: int, method: str) -> None:
        """Tell the remote that nobody waits any more; `initialize` must never be cancelled (lifecycle)."""
        if method != "initialize":
            params = jsonrpc.encode({"requestId": number, "reason": "cancelled by the caller"})
            self._tell(jsonrpc.notification("notifications/cancelled", params))

    def _answered(self, response: jsonrpc.Response, held: Held | None) -> bool:
        ours = response.id is not None and len(response.id) < 20 and response.id.isdigit()
        waiting = self._open.get(int(response.id or 0)) if ours else None
        if waiting is None or waiting.answer.done():
            self.strays += 1
            if ours:
                self._departed.answered(int(response.id or 0))
            log.debug("%s answered a request that is not open: %r", self._name, response.id)
            return False
        waiting.held = held and held.taken
        waiting.answer.set_result(response)
        return True

    def _notified(self, message: jsonrpc.Notification) -> None:
        if heard(self._listener, message):
            return
        if message.method == "notifications/progress":
            self._hand_on(envelope.progress_number(message.params), message)
        elif message.method == ACKNOWLEDGED:
            self._hand_on(envelope.subscription_number(message.params), message)
        elif message.method == "notifications/message":
            calls = [number for number, one in self._open.items() if one.exchange.method != LISTEN]
            self._hand_on(calls[0] if len(calls) == 1 and not self._departed else None, message)

    def _hand_on(self, number: int | None, message: jsonrpc.Notification) -> None:
        waiting = self._open.get(number) if number is not None else None
        if waiting is not None:
            envelope.hand_on(waiting.exchange, message.method, message.params)

    def _asked(self, message: jsonrpc.Request) -> None:
        open_requests = [one.exchange for one in self._open.values()]
        exchange = questions.whose(message, open_requests) if not self._departed else None
        if exchange is None:
            self._tell(questions.declined(message))
        else:
            questions.begin(exchange, self._spawn(self._put(exchange, message)))

    async def _put(self, exchange: Exchange, message: jsonrpc.Request) -> None:
        await self._told(await questions.put(exchange, message))

    def _tell(self, message: bytes) -> None:
        self._spawn(self._told(message))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        if self._ended is not None or len(self._tasks) >= _TELLING_MAX:
            work.close()
            return None
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _told(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(_TELL_S):
                await self._wire.send(message)
        except TimeoutError:
            log.debug("%s takes no messages", self._name)
        except Failed as failed:
            log.debug("cannot tell %s: %s", self._name, failed.failure.message)

    async def _lower_log_level(self, exchange: Exchange) -> None:
        request = lower_level(self.greeting, self._log_level, exchange)
        if request is not None:
            self._log_level = exchange.log_level or ""
            await self._ask(request)
