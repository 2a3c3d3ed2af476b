"""What a remote asks in the middle of a request, handed to whoever made that request.

Source: specification 2025-11-25, client/elicitation, client/sampling, client/roots. A question reaches a caller only when there
is no doubt whose it is: it came on the request's own stream, or exactly one call is open on the channel. Everything else is told
that nobody here offers that, because an answer from the wrong person is worse than none.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from mcpserver.protocol import codes, jsonrpc
from mcpserver.protocol.versions import ROUTED
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Refusal

log = logging.getLogger("mcp.upstream")

# How long a remote is given to notice that a call was cancelled.
_DOUBT_S = 60.0

ASKABLE = frozenset(("elicitation/create", "sampling/createMessage", "roots/list"))


def whose(message: jsonrpc.Request, open_requests: Iterable[Exchange]) -> Exchange | None:
    """The one open call that a question can belong to, if it can be asked."""
    if message.method not in ASKABLE:
        return None
    calls = [one for one in open_requests if may_ask(one)]
    return calls[0] if len(calls) == 1 and calls[0].ask is not None else None


def may_ask(exchange: Exchange) -> bool:
    """Whether a remote may ask something while it works on this request."""
    return exchange.method in ROUTED or exchange.method == "tasks/result"


def declined(message: jsonrpc.Request) -> bytes:
    """The answer to what nobody here can be asked; a ping is answered, it only asks for a sign of life."""
    if message.method == "ping":
        return jsonrpc.result(message.id, b"{}")
    return jsonrpc.raw_error(message.id, not_offered(message.method).error)


def not_offered(method: str) -> Refusal:
    return Refusal(jsonrpc.encode({"code": codes.METHOD_NOT_FOUND, "message": f"{method} is not offered here"}))


class Departed:
    """Requests that were given up while the remote may still work on them: for a while, what it says may be theirs.

    Cancelling is a notification, which a remote reads late or never; its answer, if one comes, ends the doubt.
    """

    def __init__(self) -> None:
        self._doubted_until: dict[int, float] = {}

    def add(self, number: int) -> None:
        now = asyncio.get_running_loop().time()
        still = {one: until for one, until in self._doubted_until.items() if until > now}
        self._doubted_until = still | {number: now + _DOUBT_S}

    def answered(self, number: int) -> None:
        self._doubted_until.pop(number, None)

    def __bool__(self) -> bool:
        if not self._doubted_until:
            return False
        return max(self._doubted_until.values()) > asyncio.get_running_loop().time()


def begin(exchange: Exchange, asking: "asyncio.Task[None] | None") -> None:
    """Remember the task that is about to put a question of this request."""
    if asking is not None:
        exchange.questions.add(asking)
        asking.add_done_callback(exchange.questions.discard)


async def withdraw(exchange: Exchange) -> None:
    """The request has ended: a question that is still open is taken back from whoever was asked."""
    exchange.is_over = True
    asking = [task for task in exchange.questions if not task.done()]
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def put(exchange: Exchange, message: jsonrpc.Request) -> bytes:
    """Ask the caller and return the response for the remote."""
    reply = await asked(exchange, message.method, message.params)
    if isinstance(reply, Answer):
        return jsonrpc.result(message.id, reply.result)
    return jsonrpc.raw_error(message.id, reply.error)


async def asked(exchange: Exchange, method: str, params: bytes | None) -> Answer | Refusal:
    """Ask the caller. The time a person takes does not count towards the deadline."""
    if exchange.ask is None or exchange.is_over:
        return not_offered(method)
    loop = asyncio.get_running_loop()
    if not exchange.asking:
        exchange.left_s = exchange.deadline - loop.time()
        _reschedule(exchange, None)
    exchange.asking += 1
    try:
        return await exchange.ask(method, params)
    finally:
        exchange.asking -= 1
        if not exchange.asking:
            exchange.deadline = loop.time() + exchange.left_s
            _reschedule(exchange, exchange.deadline)


def _reschedule(exchange: Exchange, when: float | None) -> None:
    """Move the end of the call; one that has ended meanwhile, with its question still open, has none to move."""
    if exchange.timer is not None:
        with contextlib.suppress(RuntimeError):
            exchange.timer.reschedule(when)
