"""Calls that wait for a person: an earlier-revision remote asks in the middle of a call of a 2026-07-28 client.

Such a client is not asked on a stream; it gets an `input_required` result and calls again with the answers. The remote knows
nothing of that: its call stays open here, parked, and the client's second request attaches to it. Parked calls are bounded per
key and in all and in time, and end by telling the remote. They live in this worker's memory; the sealed state names one.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from gateway.calls import Served
from gateway.sessions import asking
from gateway.sessions.asking import Question, Reply
from mcpserver.protocol import jsonrpc
from remotes.upstream.envelope import Exchange, Notify
from remotes.upstream.outcome import Answer

# Questions that a remote asks at the same moment reach the client together.
_SIBLINGS_S = 0.03
# A remote that was told "cancelled" may still end its call in its own words before it is cut off.
_GOODBYE_S = 0.5
_PER_KEY_MAX = 10
_TOTAL_MAX = 100


class _Pending(msgspec.Struct):
    question: Question
    reply: asyncio.Future[Reply]


class Parked:
    """One call that goes on while clients come and go."""

    def __init__(self, id: str, key_id: str, first_id: bytes, life_s: float) -> None:
        self.id = id
        self.life_s = life_s
        self.first_id = first_id
        self.key_id = key_id
        self.notify: Notify | None = None
        self.pending: dict[str, _Pending] = {}
        self.waits = False  # from its first question to its end
        self.task: asyncio.Task[Served] | None = None
        self.exchange: Exchange | None = None
        self._numbers = 0
        self._asked = asyncio.Event()

    async def ask(self, question: Question) -> Reply:
        """Put a question to the client; the answer comes with a later request, or never."""
        self._numbers += 1
        key = f"q{self._numbers}"
        pending = _Pending(asking.for_modern(question), asyncio.get_running_loop().create_future())
        self.pending[key] = pending
        self._asked.set()
        try:
            async with asyncio.timeout(self.life_s):
                return await pending.reply
        except TimeoutError:
            return asking.unanswered(question.method, "nobody answered in time")
        finally:
            self.pending.pop(key, None)

    def tell(self, method: str, params: bytes | None) -> None:
        if self.notify is not None:
            self.notify(method, params)

    def answer(self, responses: jsonrpc.Fields) -> None:
        """Hand on what the client answered; keys that nobody asked for are ignored."""
        for key, raw in responses.items():
            pending = self.pending.get(key)
            if pending is not None and not pending.reply.done():
                pending.reply.set_result(Answer(bytes(raw), modern=False))
                del self.pending[key]

    async def until_it_asks_or_ends(self) -> Served | dict[str, Question]:
        """The call's end, or the questions that are open."""
        assert self.task is not None
        while not self.task.done():
            if self.pending:
                await asyncio.sleep(
                    _SIBLINGS_S
                )  # siblings are a matter of scheduling, not of hope: late ones come next round
                return {key: one.question for key, one in self.pending.items()}
            self._asked.clear()
            asked = asyncio.ensure_future(self._asked.wait())
            try:
                await asyncio.wait({self.task, asked}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
        return self.task.result()


class Parking:
    def __init__(self, life_s: float, worker: str = "") -> None:
        """`worker` begins the ids of calls that are parked here."""
        self.life_s = life_s
        self.worker = worker
        self._parked: dict[str, Parked] = {}
        self._expiry: dict[str, asyncio.TimerHandle] = {}

    def open(self, key_id: str, first_id: bytes, work: Callable[[Parked], Coroutine[Any, Any, Served]]) -> Parked:
        """Start a call that may come to wait for a person; most never do, and are bounded like any other request."""
        parked = Parked(f"{self.worker}.{secrets.token_urlsafe(12)}", key_id, first_id, self.life_s)
        parked.task = asyncio.create_task(work(parked))
        self._parked[parked.id] = parked
        return parked

    def find(self, id: str, key_id: str) -> Parked | None:
        parked = self._parked.get(id)
        return parked if parked is not None and parked.key_id == key_id else None

    async def attend(self, parked: Parked, notify: Notify) -> Served | dict[str, Question] | None:
        """Wait with one request for what comes next; None when too many calls wait for a person, which ended this one.

        A request that is cancelled while it waits cancels the call.
        """
        if (timer := self._expiry.pop(parked.id, None)) is not None:
            timer.cancel()
        parked.notify = notify
        try:
            ended = await parked.until_it_asks_or_ends()
        except BaseException:
            self._end(parked)
            raise
        finally:
            if parked.notify is notify:
                parked.notify = None
        if isinstance(ended, Served):
            self._parked.pop(parked.id, None)
        elif not parked.waits and self._is_full(parked.key_id):
            self._end(parked)
            return None
        elif parked.id not in self._expiry:
            parked.waits = True
            self._expiry[parked.id] = asyncio.get_running_loop().call_later(self.life_s, self._end, parked)
        return ended

    def _is_full(self, key_id: str) -> bool:
        waiting = [one.key_id for one in self._parked.values() if one.waits]
        return len(waiting) >= _TOTAL_MAX or waiting.count(key_id) >= _PER_KEY_MAX

    def end_of(self, key_id: str) -> None:
        """A key was revoked: nothing of it goes on."""
        for parked in list(self._parked.values()):
            if parked.key_id == key_id:
                self._end(parked)

    async def close(self) -> None:
        tasks = [one.task for one in self._parked.values() if one.task is not None]
        for parked in list(self._parked.values()):
            self._end(parked)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, parked: Parked) -> None:
        """Tell the remote: its questions are answered with a cancellation, then its call is cancelled."""
        self._parked.pop(parked.id, None)
        if (timer := self._expiry.pop(parked.id, None)) is not None:
            timer.cancel()
        for pending in parked.pending.values():
            if not pending.reply.done():
                pending.reply.set_result(asking.unanswered(pending.question.method, "the call was cancelled"))
        if parked.task is not None and not parked.task.done():
            asyncio.get_running_loop().call_later(_GOODBYE_S, parked.task.cancel)
