"""A process that a sibling worker runs, as a connection like any other: requests out, answers in, over a socket between us.

The owner's limits and deadlines hold; ours are the same and run beside them. When the owner dies, what was under way fails and is
never repeated: it may have been executed. The next call finds the next owner, which may be ourselves.
"""

import asyncio
import itertools

import msgspec

from remotes.upstream import envelope, frames, questions
from remotes.upstream.connection import LISTEN, Greeting, Listener
from remotes.upstream.envelope import Exchange
from remotes.upstream.frames import (
    Answered,
    Frame,
    Greeted,
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
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Outcome


class _Open(msgspec.Struct):
    exchange: Exchange
    answer: asyncio.Future[Outcome]


class Guest:
    def __init__(self, name: str, link: Link, listener: Listener) -> None:
        self.greeting = Greeting("", "", {})
        self._name = name
        self._link = link
        self._listener = listener
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._departed = questions.Departed()
        self._is_occupied = False
        self._ended: Failure | None = None
        self._greeted: asyncio.Future[Greeting] = asyncio.get_running_loop().create_future()
        self._pump = asyncio.create_task(self._read())

    @classmethod
    async def joined(cls, name: str, link: Link, listener: Listener, deadline: float) -> "Guest":
        """Once the owner has said who is there; raises Failed with its reason when nobody is."""
        guest = cls(name, link, listener)
        try:
            async with asyncio.timeout_at(deadline):
                guest.greeting = await guest._greeted
        except BaseException as error:
            await guest.close()
            if isinstance(error, TimeoutError):
                raise Failed(
                    Failure(Fault.NOT_SENT, "connect", f"{name} cannot be reached: it is still connecting")
                ) from None
            raise
        return guest

    @property
    def usable(self) -> bool:
        return self._ended is None

    @property
    def is_doubtful(self) -> bool:
        return self._is_occupied or bool(self._departed)

    async def request(self, exchange: Exchange) -> Outcome:
        if self._ended is not None:
            return Failure(Fault.NOT_SENT, "send", self._ended.message)
        number = next(self._numbers)
        waiting = _Open(exchange, asyncio.get_running_loop().create_future())
        self._open[number] = waiting
        exchange.is_over = False
        try:
            async with asyncio.timeout_at(exchange.deadline) as exchange.timer:
                return await self._ask(number, waiting)
        except TimeoutError:
            self._give_up(number, exchange)
            return Failure(Fault.TIMEOUT, "answer", f"{self._name} did not answer {exchange.method} in time")
        except asyncio.CancelledError:
            self._give_up(number, exchange)
            raise
        except Failed as failed:
            return failed.failure
        finally:
            del self._open[number]
            await questions.withdraw(exchange)
            if not self.usable and not self._open:
                self._link.close()

    async def notify(self, method: str, params: bytes | None = None) -> None:
        await self._link.send(Notified(method, params))

    async def close(self) -> None:
        """Where the owner has left already, what is under way there ends first; `request` closes after the last."""
        if self._ended is not None and self._open:
            return
        self._ended = self._ended or self._broken("the connection was closed")
        self._link.close()
        if self._pump is not asyncio.current_task():
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self._fail(self._ended)

    async def _ask(self, number: int, waiting: _Open) -> Outcome:
        left_s = waiting.exchange.deadline - asyncio.get_running_loop().time()
        await self._link.send(frames.asked(number, waiting.exchange, left_s))
        return await waiting.answer

    def _give_up(self, number: int, exchange: Exchange) -> None:
        if questions.may_ask(exchange):
            self._departed.add(number)
        self._link.say(Withdrawn(number))

    async def _read(self) -> None:
        async for frame in self._link.frames():
            self._took(frame)
        failure = self._broken("the worker that ran it is gone")
        self._end(failure)
        self._fail(failure)

    def _took(self, frame: Frame) -> None:
        match frame:
            case Answered(number):
                if (waiting := self._open.get(number)) is not None and not waiting.answer.done():
                    waiting.answer.set_result(frames.outcome(frame))
                self._departed.answered(number)
            case Told(number, method, params):
                if (waiting := self._open.get(number)) is not None:
                    envelope.hand_on(waiting.exchange, method, params)  # the caller's token may be another one by now
            case Question():
                self._put(frame)
            case Unasked(question):
                if (asking := self._asking.get(question)) is not None:
                    asking.cancel()
            case Heard():
                self._heard(frame)
            case Occupied(is_so):
                self._is_occupied = is_so
            case Greeted():
                if not self._greeted.done():
                    self._greeted.set_result(frames.greeting(frame))
            case Unavailable(failure):
                self._end(failure)
            case Leaving(failure):
                self._left(failure)

    def _left(self, failure: Failure) -> None:
        """Calls run on; a stream of changes would for ever."""
        self._end(failure)
        for waiting in self._open.values():
            if waiting.exchange.method == LISTEN and not waiting.answer.done():
                waiting.answer.set_result(failure)
        if not self._open:
            self._link.close()

    def _heard(self, frame: Heard) -> None:
        match frame.what:
            case "changed":
                self._listener.changed(frame.text)
            case "updated":
                self._listener.updated(frame.text)
            case "completed":
                self._listener.completed(frame.text)
            case "task_changed":
                self._listener.task_changed(frame.params)

    def _put(self, frame: Question) -> None:
        waiting = self._open.get(frame.number)
        if waiting is None:
            self._link.say(Replied(frame.question, error=questions.not_offered(frame.method).error))
            return
        task = asyncio.create_task(self._answer(frame, waiting.exchange))
        self._asking[frame.question] = task
        task.add_done_callback(lambda _: self._asking.pop(frame.question, None))
        questions.begin(waiting.exchange, task)

    async def _answer(self, frame: Question, exchange: Exchange) -> None:
        reply = await questions.asked(exchange, frame.method, frame.params)
        try:
            if isinstance(reply, Answer):
                await self._link.send(Replied(frame.question, result=reply.result, modern=reply.modern))
            else:
                await self._link.send(Replied(frame.question, error=reply.error))
        except Failed:
            return  # the owner is gone, and its question with it

    def _end(self, failure: Failure) -> None:
        """No further request goes this way."""
        if self._ended is not None:
            return
        self._ended = failure
        if self._greeted.done():
            self._listener.lost(failure)
        else:
            self._greeted.set_exception(Failed(failure))

    def _fail(self, failure: Failure) -> None:
        for waiting in self._open.values():
            if not waiting.answer.done():
                waiting.answer.set_result(failure)

    def _broken(self, why: str) -> Failure:
        return Failure(Fault.BROKEN, "answer", f"{self._name}: {why}")
