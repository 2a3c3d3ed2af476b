"""A remote's question on its way to the client of a session: a request on the call's own stream, answered by a POST.

Source: specification 2025-11-25, basic/transports "Sending Messages": requests that relate to a call belong on the call's stream,
never on the session's other one. A question nobody answers ends after a while; one whose client has left, and is not expected
back, at once.
"""

import asyncio
import itertools
from collections.abc import Callable

from gateway.sessions import asking
from gateway.sessions.sessions import Session
from mcpserver.protocol import jsonrpc
from remotes.upstream.envelope import Ask
from remotes.upstream.outcome import Answer, Refusal

_numbers = itertools.count(1)


def asker(session: Session, put: Callable[[bytes], bool], wait_s: float, worker: str) -> Ask | None:
    """How to ask this session's client, or None when it declared nothing to be asked. `put` is False when nobody will read.

    The question's id names this worker, where it waits: the answer may come to another one."""
    if not asking.declared(session.capabilities.encode()):
        return None

    async def ask(method: str, params: bytes | None) -> asking.Reply:
        offered = asking.declared(session.capabilities.encode())
        if not asking.is_offered(asking.Question(method, params), offered):
            return asking.not_offered(method)
        id = b'"ask.%b.%d"' % (worker.encode(), next(_numbers))
        answer: asyncio.Future[asking.Reply] = asyncio.get_running_loop().create_future()
        session.asked[id] = answer
        try:
            if not put(jsonrpc.request(id, method, params)):
                return asking.unanswered(method, "the client has left")
            async with asyncio.timeout(wait_s):
                return await answer
        except TimeoutError:
            put(_withdrawn(id))
            return asking.unanswered(method, "nobody answered in time")
        except asyncio.CancelledError:
            put(_withdrawn(id))
            raise
        finally:
            del session.asked[id]

    return ask


def whose_question(id: bytes) -> str:
    """The worker that asked, by the id of a response; empty for what was never asked."""
    parts = id.decode("utf-8", "replace").strip('"').split(".")
    return parts[1] if len(parts) == 3 and parts[0] == "ask" else ""


def answered(session: Session, response: jsonrpc.Response) -> None:
    """Hand a client's response to whoever asked; one that nobody asked for is ignored."""
    waiting = session.asked.get(response.id) if response.id is not None else None
    if waiting is None or waiting.done():
        return
    if response.error is not None:
        waiting.set_result(Refusal(response.error))
    else:
        waiting.set_result(Answer(response.result or b"{}", modern=False))


def _withdrawn(id: bytes) -> bytes:
    return jsonrpc.notification("notifications/cancelled", b'{"requestId":' + id + b',"reason":"no longer needed"}')
