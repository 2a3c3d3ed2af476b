"""One remote tried once: a fresh connection, a handshake, the list of its tools, and then what was found, or what failed.

It uses no warm connection, writes nothing down and leaves the breaker alone, so that `mcp remote test` works with or without
a gateway. Time is up after `timeout_s`, and CLOSING_S later everything is closed: a child that does not leave by itself is
killed then. A name server that hangs costs no more than that either (`run`).
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import msgspec
from msgspec import Raw

from mcpserver.lib.limits import Limits
from mcpserver.protocol import jsonrpc
from remotes import status
from remotes.config.snapshot import RemoteSpec
from remotes.diagnosis import Phase, diagnose, overrun
from remotes.journey import Journey
from remotes.status import Status
from remotes.upstream.budget import Budget
from remotes.upstream.connect import connect
from remotes.upstream.connection import Connection
from remotes.upstream.credential import NO_CREDENTIAL, Credential
from remotes.upstream.envelope import Exchange
from remotes.upstream.origin import Origin
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Refusal
from remotes.upstream.secrets import masked_failure

log = logging.getLogger("mcp.probes")

# Ten seconds of probing, starting Python and tidying up: `mcp remote test` ends within eleven.
CLOSING_S = 0.1
_KILLING_S = 0.3
# Probes at the same time. Addresses are waited for side by side; processes are started a few at a time, or each would be slow.
AT_ONCE = 64
PROCESSES_AT_ONCE = 8
_PAGES_MAX = 1000
_MAX_BYTES = Limits().read_max_bytes

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. `error` is empty when all is well; `latency_ms` is None when nobody was asked."""

    name: str
    status: Status
    error: str = ""
    latency_ms: float | None = None
    phase: str = ""
    message: str = ""
    hint: str = ""
    transport: str = ""
    era: str = ""
    tools: int | None = None
    tool_names: tuple[str, ...] = ()
    steps: tuple[dict[str, Any], ...] = ()

    @property
    def ok(self) -> bool:
        return not self.error

    def document(self) -> dict[str, Any]:
        """The same keys whatever came of it; null where there is nothing to say."""
        return {
            "ok": self.ok,
            "name": self.name,
            "status": str(self.status),
            "error": self.error or None,
            "latency_ms": self.latency_ms,
            "phase": self.phase or None,
            "message": self.message or None,
            "hint": self.hint or None,
            "transport": self.transport or None,
            "era": self.era or None,
            "tools": self.tools,
        }


async def probe(
    spec: RemoteSpec,
    *,
    timeout_s: float | None = None,
    max_bytes: int = _MAX_BYTES,
    credential: Credential = NO_CREDENTIAL,
) -> Report:
    """Try `spec` once within `timeout_s` (its own list_timeout by default). One that cannot be called is not contacted."""
    if (why := status.refusal(spec)) is not None:
        return _uncalled(spec, why)
    attempt = _Attempt(spec, spec.list_timeout_s if timeout_s is None else timeout_s, max_bytes, credential)
    try:
        era, transport, names = await attempt.run()
        steps = attempt.steps(None)
    except Failed as failed:
        return _failed(spec, failed.failure, attempt)
    except (OSError, ValueError) as error:  # such as a header that cannot be sent
        what = f"{spec.name} cannot be asked as it is configured ({type(error).__name__})"
        return _failed(spec, Failure(Fault.NOT_SENT, "", what), attempt)
    else:
        await credential.accepted()
    finally:
        await attempt.close()
        await credential.close()
    return Report(
        spec.name,
        Status.HEALTHY,
        latency_ms=attempt.latency_ms,
        transport=transport,
        era=era,
        tools=len(names),
        tool_names=names,
        steps=steps,
    )


async def probe_all(
    specs: Iterable[RemoteSpec],
    *,
    timeout_s: float | None = None,
    max_bytes: int = _MAX_BYTES,
    credential: Callable[[RemoteSpec], Credential] = lambda spec: NO_CREDENTIAL,
) -> list[Report]:
    """Each of `specs`, some at the same time; in their order."""
    gate = asyncio.Semaphore(PROCESSES_AT_ONCE)

    async def one(spec: RemoteSpec) -> Report:
        async with gate if spec.transport == "stdio" else contextlib.nullcontext():
            return await probe(spec, timeout_s=timeout_s, max_bytes=max_bytes, credential=credential(spec))

    return await at_once(one(spec) for spec in specs)


async def at_once(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all `works` in their order, never more than AT_ONCE of them under way."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def let_in(work: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await work

    return await asyncio.gather(*(let_in(work) for work in works))


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` that does not wait for its helper threads: a lookup that hangs must not keep the process from ending."""
    with asyncio.Runner(loop_factory=_loop) as runner:
        return runner.run(work)


def _uncalled(spec: RemoteSpec, why: str) -> Report:
    word = status.of(spec, reached=False, failure=None)
    hint = "set `enabled: true` in the configuration"
    if word is Status.MISCONFIGURED:
        hint = f"set {', '.join(missing.variable for missing in spec.missing)} in .env or the environment, and restart"
    return Report(spec.name, word, str(word), message=why, hint=hint, transport=spec.transport)


def _failed(spec: RemoteSpec, failure: Failure, attempt: "_Attempt") -> Report:
    failure = masked_failure(spec, failure)
    found = diagnose(spec, failure, attempt.journey.phase, noise=attempt.journey.record.noise)
    word = status.of(spec, reached=False, failure=failure)
    return Report(
        spec.name,
        word,
        found.error,
        attempt.latency_ms,
        found.phase,
        found.message,
        found.hint,
        spec.transport,
        steps=attempt.steps(found.phase),
    )


class _Attempt:
    """The one try: `run` raises Failed, `close` ends whatever it had opened."""

    def __init__(self, spec: RemoteSpec, timeout_s: float, max_bytes: int, credential: Credential) -> None:
        self._spec = spec
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._credential = credential
        self.latency_ms = 0.0
        self._loop = asyncio.get_running_loop()
        self.journey = Journey(spec, self._loop.time)
        self._began = self._loop.time()
        self._origin: Origin | None = None
        self._connection: Connection | None = None

    def steps(self, failed: Phase | None) -> tuple[dict[str, Any], ...]:
        return tuple(self.journey.steps(failed))

    async def run(self) -> tuple[str, str, tuple[str, ...]]:
        """Era, transport and the names of its tools; once more with a renewed credential after a 401."""
        await self._within(self._timeout_s, self._admitted())
        used = self._credential.serial
        try:
            return await self._run()
        except Failed as failed:
            if failed.failure.fault is not Fault.UNAUTHORIZED:
                raise
            await self._within(self._left_s, self._renewed(used, failed.failure))
        await self.close()
        return await self._run()

    async def _admitted(self) -> None:
        if (unready := await self._credential.ready(self._loop.time() + self._timeout_s)) is not None:
            raise Failed(unready)

    async def _renewed(self, used: int, failure: Failure) -> None:
        if (refused := await self._credential.renew(used, failure, self._loop.time() + self._timeout_s)) is not None:
            raise Failed(refused)

    @property
    def _left_s(self) -> float:
        return max(0.0, self._began + self._timeout_s - self._loop.time())

    async def _run(self) -> tuple[str, str, tuple[str, ...]]:
        limit_s = min(self._spec.connect_timeout_s, self._left_s)
        self._connection = await self._within(limit_s, self._connected(limit_s))
        greeting = self._connection.greeting
        self.journey.reach(Phase.LIST)
        tools: tuple[str, ...] = ()
        if "tools" in greeting.capabilities:
            left_s = self._left_s
            tools = await self._within(left_s, _offered(self._connection, self._spec, self._loop.time() + left_s + 1))
        return greeting.revision, greeting.transport, tools

    async def close(self) -> None:
        """As politely as the time that is left allows; then, by cancelling, at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._ended(asyncio.ensure_future(connection.close()))
        if self._origin is not None:
            self._origin.close()

    async def _connected(self, limit_s: float) -> Connection:
        if self._spec.transport != "stdio":
            self._origin = Origin(self._spec.url, self._spec.reach, watch=lambda step: self.journey.reach(Phase(step)))
        # One second more than it gets: its own deadline must not pass before the watch was looked at.
        spec = replace(self._spec, connect_timeout_s=limit_s + 1)
        return await connect(
            spec,
            self._origin,
            _Deaf(),
            era="",
            budget=Budget(2 * self._max_bytes, read_max_bytes=self._max_bytes),
            credential=self._credential,
            record=self.journey.record,
        )

    async def _within(self, limit_s: float, work: Coroutine[Any, Any, T]) -> T:
        """A deadline that looks before it cancels: afterwards the sockets are gone and nobody can tell where it was."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=limit_s)
            taken_s = self._loop.time() - self._began
            self.latency_ms = round(taken_s * 1000, 1)
            if done:
                return task.result()
            raise Failed(overrun(self._spec.name, self.journey.phase, taken_s))
        finally:
            if not task.done():
                task.cancel()
                await self._ended(task)

    async def _ended(self, task: asyncio.Future[Any]) -> None:
        """Wait for it while there is time, then cancel it (once more, where it is tidying up already)."""
        left_s = self._began + self._timeout_s + CLOSING_S - self._loop.time()
        await asyncio.wait({task}, timeout=max(0.0, left_s))
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_KILLING_S)
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            log.debug("closing %s: %s", self._spec.name, error)


class _Deaf:
    """Listens to nothing: a probe ends before anything could change."""

    def changed(self, kind: str) -> None:
        pass

    def updated(self, uri: str) -> None:
        pass

    def completed(self, elicitation_id: str) -> None:
        pass

    def task_changed(self, params: bytes) -> None:
        pass

    def lost(self, failure: Failure) -> None:
        pass


class _Page(msgspec.Struct, rename="camel"):
    tools: list[Raw]
    next_cursor: str | None = None


class _Tool(msgspec.Struct):
    name: str


async def _offered(connection: Connection, spec: RemoteSpec, deadline: float) -> tuple[str, ...]:
    """The tools it lists that its configuration leaves switched on, by its own names; raises Failed."""
    names, cursors = list[str](), set[str]()
    params: jsonrpc.Fields = {}
    while len(cursors) < _PAGES_MAX:
        page = _page(await connection.request(Exchange("tools/list", params, deadline=deadline)), spec.name)
        names += [name for raw in page.tools if (name := _offered_name(raw, spec)) is not None]
        if page.next_cursor is None:
            return tuple(names)
        if page.next_cursor in cursors:
            break
        cursors.add(page.next_cursor)
        params = {"cursor": Raw(jsonrpc.encode(page.next_cursor))}
    why = "the same cursor came again" if len(cursors) < _PAGES_MAX else f"there are more than {_PAGES_MAX} pages"
    raise Failed(Failure(Fault.INVALID, "list", f"{spec.name} never ends its tools/list: {why}"))


def _page(outcome: Answer | Refusal | Failure, name: str) -> _Page:
    match outcome:
        case Answer():
            try:
                return msgspec.json.decode(outcome.result, type=_Page)
            except jsonrpc.UNREADABLE as error:
                why = f"{name} answered tools/list with what is no list of tools ({error})"
                raise Failed(Failure(Fault.INVALID, "list", why)) from None
        case Refusal():
            said = jsonrpc.error_body(outcome.error)
            raise Failed(Failure(Fault.INVALID, "list", f"{name} refused tools/list: {said.message} ({said.code})"))
        case Failure():
            raise Failed(outcome)


def _offered_name(raw: Raw, spec: RemoteSpec) -> str | None:
    try:
        tool = msgspec.json.decode(raw, type=_Tool).name
    except jsonrpc.UNREADABLE:
        return None
    return tool if spec.disabled_by(tool) is None else None


# A loop that waits for nobody.


def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_Forsaken())
    return loop


class _Forsaken(ThreadPoolExecutor):
    """A daemon thread for each piece of work: `getaddrinfo` cannot be interrupted, and a pool's threads are waited for."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  It is the waiter's, as in every executor.
                future.set_exception(error)

        threading.Thread(target=work, name="probe-helper", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to end: the threads end with the process."""
