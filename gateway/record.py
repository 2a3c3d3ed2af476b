"""How each call ended: told to the log, and kept in memory until it is written down in the database.

On the path of a call this is an append to a list. Every second what came together goes to the database in bulk, in one of its
threads. It is never more important than serving: a database that is away, locked or full makes calls wait here, as many as
there is room for, and what comes beyond them is dropped and counted. A worker that is killed takes its last second with it.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gateway import access, metrics
from mcpserver.lib import log
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import GatewayError
from mcpserver.protocol import inbound, jsonrpc, versions
from remotes.config.snapshot import Audit

if TYPE_CHECKING:
    from gateway.calls import Visit

logger = logging.getLogger("mcp.calls")

# Ten seconds of a database that is away at a thousand calls a second: about 10 MB.
WAITING_MAX = 10_000
# Of arguments that wait, where they are recorded: beyond it calls are recorded without.
ARGUMENTS_MAX_BYTES = 8 * 1024 * 1024
ARGUMENTS_EACH_BYTES = 4096
# A name is a client's, and may be as long as a body.
NAME_MAX = 1024
# One statement: large enough that its own cost is spread, small enough that nobody waits for the lock that it holds.
BATCH = 500
EVERY_S = 1.0
AGAIN_S = 5.0
# SQLite's own patience with a lock ends before it, so that nothing is written after it was given up.
WRITE_S = 25.0
STOP_S = 2.0

# By method, the word for what was called.
KINDS = {"tools/call": "tool", "prompts/get": "prompt", "resources/read": "resource"}


class Verdict(StrEnum):
    """How a request ended, for the log line and the counters."""

    OK = "ok"
    TOOL_ERROR = "tool_error"
    INPUT_REQUIRED = "input_required"
    REFUSED = "refused"  # the remote, or we, said no in JSON-RPC
    FAILED = "failed"  # the remote gave no usable answer
    CANCELLED = "cancelled"


class Call(msgspec.Struct, frozen=True, gc=False):
    """One call as it ended. `fields` are those of its line in the log, which nobody changes any more."""

    at: float
    request: str
    fields: dict[str, Any]
    ms: float
    key_name: str
    answer_bytes: int
    arguments: bytes | None


Write = Callable[[Sequence[Call]], None]


class Record:
    def __init__(self, write: Write | None) -> None:
        """`write` stores calls, blocking; without it nothing is recorded."""
        self.mode: Audit = "calls"
        self.dropped = 0
        self.stopped = ""
        """Why nothing can be written at present; empty while all is well."""
        self._write = write
        self._waiting: deque[Call] = deque()
        self._argument_bytes = 0
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def tell(
        self, visit: "Visit", transport: str, verdict: Verdict, code: int, answer_bytes: int, seconds: float
    ) -> None:
        """The facts of one call, made once: for its line in the log, and for the record."""
        call, about, ms, at = visit.call, access.current(), round(seconds * 1000, 2), time.time()
        about.is_told = True
        fields: dict[str, Any] = {
            "method": call.method,
            "key": visit.principal.key_id,
            "remote": visit.remote,
            "name": (visit.name or _named(call))[:NAME_MAX],
            "era": call.revision,
            "transport": transport,
            "outcome": verdict.value,
            "code": code,
            "source": about.source,
        }
        if about.is_gone:
            fields["client"] = "gone"
        log.access(fields, request=about.id, ms=ms, at=at)
        if call.method in KINDS and self.mode != "off" and self._write is not None:
            self.note(Call(at, about.id, fields, ms, visit.principal.name, answer_bytes, self._arguments(call)))

    def note(self, call: Call) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._drop(1)
            return
        if call.arguments is not None:
            self._argument_bytes += len(call.arguments)
            if self._argument_bytes > ARGUMENTS_MAX_BYTES:
                self._argument_bytes -= len(call.arguments)
                call = replace(call, arguments=None)
        self._waiting.append(call)

    def start(self) -> None:
        if self._write is not None:
            self._task = asyncio.create_task(self._run(), name="record")

    async def close(self) -> None:
        """Write what waits a last time; a database that does not answer is not waited for."""
        self._ending.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=STOP_S)
            self._task.cancel()

    def facts(self) -> dict[str, Any]:
        return {"mode": self.mode, "waiting": len(self._waiting), "dropped": self.dropped, "stopped": self.stopped}

    async def _run(self) -> None:
        is_ending = False
        while not is_ending:
            is_ending = await self._pause()
            await self._flush()

    async def _pause(self) -> bool:
        """Until the next time is due; True when that is the last one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S if self.stopped else EVERY_S):
                await self._ending.wait()
        return self._ending.is_set()

    async def _flush(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if not await self._written(batch):
                return

    async def _written(self, batch: list[Call]) -> bool:
        """False when it makes no sense to go on now."""
        assert self._write is not None
        try:
            await in_database(self._write, batch, timeout_s=WRITE_S)
        except GatewayError as error:
            if not self.stopped:
                logger.warning("calls cannot be recorded, and wait: %s", error.message)
            self.stopped = error.code
            self._put_back(batch)
            return False
        except Exception:
            logger.exception("%d calls could not be recorded", len(batch))
            self._drop(len(batch))
        else:
            self.stopped = ""
        self._forget(batch)
        return True

    def _put_back(self, batch: list[Call]) -> None:
        """The newest stay, where there is no room for all."""
        over = max(0, len(batch) + len(self._waiting) - WAITING_MAX)
        self._drop(over)
        self._forget(batch[:over])
        self._waiting.extendleft(reversed(batch[over:]))

    def _arguments(self, call: inbound.Call) -> bytes | None:
        """JSON: what it was called with, or how much that was."""
        raw = call.params.get("arguments") if self.mode == "arguments" else None
        if raw is None:
            return None
        given = bytes(raw)  # a copy: it is a view of the whole body
        return given if len(given) <= ARGUMENTS_EACH_BYTES else b'"%d bytes"' % len(given)

    def _drop(self, count: int) -> None:
        self.dropped += count
        metrics.UNRECORDED.inc(count)

    def _forget(self, batch: list[Call]) -> None:
        self._argument_bytes -= sum(len(call.arguments) for call in batch if call.arguments is not None)


def _named(call: inbound.Call) -> str:
    """What a request names that was refused before anybody looked."""
    named = versions.ROUTED.get(call.method)
    return (named and jsonrpc.text(call.params.get(named))) or ""
