"""The circuit breakers of this worker: one for each remote, one more for each of its tools that keeps its callers waiting.

What decides is `policy.breaker`; here it is remembered, and told to the other workers. A call through a closed circuit costs a
comparison before and a count after. Only changes go through the database, never calls: a circuit that opens does so here at once
and everywhere within the second in which the others look; a next try is claimed there first, so that of all workers and nodes one
makes it. While the database is away each worker's own view decides, and what it has to tell is told later.

Circuits of tools stay in their worker: each finds out for itself, and a remote that is ill altogether is everybody's affair.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from gateway import metrics
from gateway.policy.breaker import (
    CLOSED,
    Circuit,
    Event,
    Refuse,
    Rule,
    State,
    Weight,
    Window,
    is_silence,
    judge,
    move,
    weigh,
)
from mcpserver.lib.clock import Clock
from mcpserver.lib.errors import GatewayError
from mcpserver.lib.limits import Limits
from remotes import circuits as shared
from remotes.circuits import SharedCircuit
from remotes.config.snapshot import RemoteSpec, Snapshot
from remotes.upstream.outcome import Failure, Fault, Outcome

log = logging.getLogger("mcp.circuits")

# A try is anybody's again when its call should have ended and it has not been heard of.
_CLAIM_SPARE_S = 5.0
# Tools of one remote that are watched on their own; the one that failed longest ago makes room.
_TOOLS_MAX = 256

Database = Callable[..., Awaitable[Any]]


class Breaker:
    """One circuit and the calls it is judged by."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.circuit = CLOSED
        self.window = Window(rule)

    def move(self, event: Event, now: float, *, claim_s: float = 0.0, failure: Failure | None = None) -> bool:
        before = self.circuit
        self.circuit = move(before, event, now, self.rule, claim_s=claim_s, failure=failure)
        if self.circuit.is_closed and not before.is_closed:
            self.window = Window(self.rule)
        return self.circuit is not before

    def count(self, now: float, failure: Failure | None) -> bool:
        """Count one call; whether that opened the circuit."""
        if not self.circuit.is_closed:
            return False  # it was under way already
        self.window.count(now, failed=failure is not None)
        if failure is None or not self.window.is_tripped(now, self.rule):
            return False
        return self.move(Event.TRIPPED, now, failure=failure)

    def settle(self, weight: Weight, now: float, failure: Failure | None) -> bool:
        """What came of the try that this circuit let through; whether that moved it."""
        event = {Weight.GOOD: Event.SUCCEEDED, Weight.BAD: Event.FAILED, Weight.NOTHING: Event.RELEASED}[weight]
        return self.move(event, now, failure=failure)


class Guard(Breaker):
    """A remote's own circuit, those of its tools, and how the shared row stands to it."""

    def __init__(self, spec: RemoteSpec, rule: Rule) -> None:
        super().__init__(rule)
        self.name = spec.name
        self.digest = spec.digest
        self.claim_s = spec.timeout_s + _CLAIM_SPARE_S
        self.tools: dict[str, Breaker] = {}
        self.answered_at = 0.0
        """When it last answered anybody anything."""
        self.mark = shared.NO_MARK
        self.is_told = True
        self.telling = asyncio.Lock()

    @property
    def is_plain(self) -> bool:
        """Whether every call may go."""
        return self.circuit.is_closed and not self.tools

    def tool(self, name: str) -> Breaker:
        """The circuit of a tool that has just kept a caller waiting in vain."""
        found = self.tools.pop(name, None)
        if found is None:
            found = Breaker(self.rule)
            if len(self.tools) >= _TOOLS_MAX:
                del self.tools[next(iter(self.tools))]
        self.tools[name] = found
        return found

    def forget_tools(self, now: float) -> None:
        """Those that kept nobody waiting lately need no watching."""
        for name in [name for name, one in self.tools.items() if one.circuit.is_closed and not one.window.seen(now)[1]]:
            del self.tools[name]

    def worst(self) -> tuple[Circuit, list[str]]:
        """What an operator is shown: the remote's own circuit, or that of the tool tried next, and which tools that is about."""
        ill = {name: one.circuit for name, one in tuple(self.tools.items()) if not one.circuit.is_closed}
        if not self.circuit.is_closed or not ill:
            return self.circuit, []
        return min(ill.values(), key=lambda one: one.until), sorted(ill)


class Circuits:
    def __init__(self, clock: Clock, database: Database, on_opened: Callable[[str], None]) -> None:
        """`database` runs a blocking function as `in_database` does. `on_opened`: somebody should look how the remote is."""
        self._clock = clock
        self._database = database
        self._on_opened = on_opened
        self._guards: dict[str, Guard] = {}
        self._telling: set[asyncio.Task[bool]] = set()
        self._is_alone = False

    def follow(self, snapshot: Snapshot, limits: Limits) -> None:
        """Guard the remotes of a revision by its numbers. One that is reached in another way is another remote."""
        for name in [name for name, one in self._guards.items() if not _is_same(snapshot.remotes.get(name), one)]:
            self._drop(self._guards.pop(name))
        for name, spec in snapshot.remotes.items():
            rule = rule_for(spec, limits)
            guard = self._guards.get(name)
            if guard is None:
                guard = self._guards[name] = Guard(spec, rule)
                metrics.show_circuit(name, State.CLOSED)
            elif guard.rule != rule:
                self._reruled(guard, rule)
            guard.claim_s = spec.timeout_s + _CLAIM_SPARE_S

    def guard(self, spec: RemoteSpec) -> Guard:
        found = self._guards.get(spec.name)
        return found if found is not None else Guard(spec, Rule(enabled=False))  # a revision took it away meanwhile

    # A call.

    def refusal(self, guard: Guard, tool: str) -> Failure | None:
        """Why a call must not go now; decided at once, claims nothing."""
        for breaker in (guard.tools.get(tool), guard):
            if breaker is not None and isinstance(judge(breaker.circuit, self._now()), Refuse):
                return self._refusal(guard, breaker, tool)
        return None

    async def admit(self, guard: Guard, tool: str) -> tuple[Breaker, ...] | Failure:
        """The circuits whose one try this call is, none as a rule; or why it must not go. Needed where a guard is not plain."""
        if (refused := self.refusal(guard, tool)) is not None:
            return refused
        breakers = [one for one in (guard.tools.get(tool), guard) if one is not None and not one.circuit.is_closed]
        for breaker in breakers:
            breaker.move(Event.CLAIMED, self._now(), claim_s=guard.claim_s)
        if guard in breakers and not await self._claimed(guard, breakers):
            self.release(guard, [one for one in breakers if one is not guard])
            return await self.admit(guard, tool)  # by what another worker has made of it
        return tuple(breakers)

    async def _claimed(self, guard: Guard, breakers: list[Breaker]) -> bool:
        try:
            return await self._tell(guard)
        except asyncio.CancelledError:
            self.release(guard, breakers)
            raise

    def release(self, guard: Guard, tries: Iterable[Breaker]) -> None:
        """A try ended without a verdict: the next call makes it."""
        self._settle(guard, tries, Weight.NOTHING, None)

    def record(self, guard: Guard, tool: str, outcome: Outcome, began: float, tries: tuple[Breaker, ...]) -> None:
        """Count what came of one call, whatever number of attempts it took."""
        now = self._now()
        weight = weigh(outcome)
        if weight is Weight.GOOD and guard.is_plain:
            guard.answered_at = now
            guard.window.count(now, failed=False)
            return
        failure = outcome if isinstance(outcome, Failure) and weight is Weight.BAD else None
        is_slow = self._record_of_tool(guard, tool, weight, failure, tries)
        if is_slow and guard.answered_at > began:
            weight, failure = Weight.GOOD, None  # it answers others: the tool is slow, the remote is not ill
        elif weight is Weight.GOOD:
            guard.answered_at = now
        if guard in tries:
            self._settle(guard, (guard,), weight, failure)
        elif weight is not Weight.NOTHING and guard.count(now, failure):
            metrics.CIRCUIT_OPENED.labels(guard.name).inc()
            self._moved(guard)
            self._on_opened(guard.name)

    def _record_of_tool(
        self, guard: Guard, tool: str, weight: Weight, failure: Failure | None, tries: tuple[Breaker, ...]
    ) -> bool:
        """Count it for the tool, where it says something of the tool; whether that kept its caller waiting in vain."""
        is_slow = bool(tool) and failure is not None and is_silence(failure)
        own_tries = [one for one in tries if one is not guard]
        if own_tries:
            # A connection that was refused says nothing of the tool.
            self._settle(guard, own_tries, Weight.NOTHING if failure is not None and not is_slow else weight, failure)
        elif is_slow and guard.rule.enabled:
            if guard.tool(tool).count(self._now(), failure):
                self._tool_opened(guard, tool)
        elif weight is Weight.GOOD and tool in guard.tools:
            guard.tools[tool].count(self._now(), None)
        return is_slow

    def contacted(self, name: str, *, ok: bool) -> None:
        """Its keeper was in touch with a remote, or failed to be."""
        guard = self._guards.get(name)
        if guard is None:
            return
        if ok:
            guard.answered_at = self._now()
            if guard.circuit.contact_closes and guard.move(Event.SUCCEEDED, self._now()):
                self._moved(guard)
        elif not guard.circuit.is_closed and not guard.circuit.contact_closes:
            guard.circuit = replace(guard.circuit, contact_closes=True)  # ill altogether, and so it will be well again
            self._share(guard)

    async def reset(self, name: str) -> None:
        """Forget all failures of a remote and of its tools; everywhere, whoever found them."""
        guard = self._guards[name]
        guard.tools.clear()
        guard.window = Window(guard.rule)
        if guard.move(Event.SUCCEEDED, self._now()):
            self._report(guard)
        async with guard.telling:
            try:
                await self._database(shared.close, name)
            except GatewayError as error:
                self._alone(error)
                guard.is_told = False
            else:
                guard.mark, guard.is_told = shared.NO_MARK, True

    # What is shown.

    def is_closed(self, name: str) -> bool:
        guard = self._guards.get(name)
        return guard is None or guard.worst()[0].is_closed

    def document(self, name: str) -> dict[str, Any]:
        guard = self._guards[name]
        circuit, tools = guard.worst()
        failures = guard.window.seen(self._now())[1] if circuit.is_closed else circuit.failures
        document: dict[str, Any] = {"state": str(circuit.state), "since": None, "next_try_s": None}
        if not circuit.is_closed:
            document["since"] = self._wall(circuit.since).isoformat(timespec="seconds")
            document["next_try_s"] = round(max(0.0, circuit.until - self._now()), 1)
        return document | {"failures": failures, "reason": circuit.reason or None, "tools": tools or None}

    # Moves.

    def _refusal(self, guard: Guard, breaker: Breaker, tool: str) -> Failure:
        metrics.CIRCUIT_REFUSED.labels(guard.name).inc()
        circuit = breaker.circuit
        who = guard.name if breaker is guard else f"{tool} of {guard.name}"
        wait_s = max(1, round(circuit.until - self._now()))
        next_try = f"next try in {wait_s} s"
        if circuit.state is State.HALF_OPEN:
            wait_s, next_try = 1, "it is being tried right now, ask again in a moment"
        why = f"{who} is degraded after {circuit.failures} failed calls: {circuit.reason}; {next_try}"
        return Failure(Fault.DEGRADED, "circuit", why, retry_after_s=wait_s)

    def _settle(self, guard: Guard, tries: Iterable[Breaker], weight: Weight, failure: Failure | None) -> None:
        for breaker in tries:
            if breaker.settle(weight, self._now(), failure) and breaker is guard:
                self._moved(guard)
        for name in [name for name, one in guard.tools.items() if one in tries and one.circuit.is_closed]:
            del guard.tools[name]

    def _tool_opened(self, guard: Guard, tool: str) -> None:
        metrics.CIRCUIT_OPENED.labels(guard.name).inc()
        circuit = guard.tools[tool].circuit
        log.warning("%s of %s is left alone: %s", tool[:100], guard.name, circuit.reason, extra={"remote": guard.name})
        self._on_opened(guard.name)

    def _reruled(self, guard: Guard, rule: Rule) -> None:
        guard.rule, guard.window = rule, Window(rule)
        guard.tools.clear()
        if not rule.enabled and guard.move(Event.SUCCEEDED, self._now()):
            self._moved(guard)

    def _drop(self, guard: Guard) -> None:
        metrics.forget_circuit(guard.name)
        if guard.mark:
            guard.circuit = CLOSED
            self._share(guard)

    def _moved(self, guard: Guard) -> None:
        self._report(guard)
        self._share(guard)

    def _report(self, guard: Guard) -> None:
        circuit = guard.circuit
        metrics.show_circuit(guard.name, circuit.state)
        extra = {"remote": guard.name}
        if circuit.is_closed:
            log.info("%s is called again", guard.name, extra=extra)
        elif circuit.state is State.OPEN:
            wait_s = max(0.0, circuit.until - self._now())
            log.warning("%s is degraded for %.0f s: %s", guard.name, wait_s, circuit.reason, extra=extra)

    # Sharing.

    async def sync(self) -> None:
        """Take over what other workers changed, and tell what could not be told. Called each second."""
        marks = {name: guard.mark for name, guard in self._guards.items()}
        rows = await self._database(shared.everyone)
        for row in rows.values():
            if not self._is_known(row):
                await self._database(partial(shared.swap, row.name, expected=row.mark, new=None))
        for name, guard in list(self._guards.items()):
            guard.forget_tools(self._now())
            if guard.telling.locked() or marks.get(name) != guard.mark:
                continue  # what was read is older than what happened here meanwhile
            if not guard.is_told:
                await self._tell(guard)
            else:
                self._adopt(guard, rows.get(name))

    async def close(self) -> None:
        """Wait a moment for what is being told."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=1)

    def _share(self, guard: Guard) -> None:
        guard.is_told = False
        telling = asyncio.ensure_future(self._tell(guard))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self, guard: Guard) -> bool:
        """Bring the shared row to this worker's circuit; False when another worker was faster, whose circuit is taken over."""
        async with guard.telling:
            told = guard.circuit
            try:
                mark = await self._database(partial(shared.swap, guard.name, expected=guard.mark, new=self._row(guard)))
                rows = {} if mark is not None else await self._database(shared.everyone)
            except GatewayError as error:
                self._alone(error)
                guard.is_told = False
                return True
            self._is_alone = False
            row = rows.get(guard.name)
            if mark is None and row is not None and not self._is_known(row):
                return True  # in its way is what was known of another address: `sync` clears it away, then tells again
            guard.is_told = guard.circuit is told
            if mark is None:
                self._adopt(guard, row)
                return False
            guard.mark = mark
            return True

    def _alone(self, error: GatewayError) -> None:
        metrics.CIRCUIT_UNSHARED.inc()
        if not self._is_alone:
            log.warning("circuits are this worker's own for now: %s", error.message)
        self._is_alone = True

    def _is_known(self, row: SharedCircuit) -> bool:
        """Not of a remote that went, or that is reached in another way now."""
        guard = self._guards.get(row.name)
        return guard is not None and guard.digest == row.digest

    def _adopt(self, guard: Guard, row: SharedCircuit | None) -> None:
        if row is not None and row.digest != guard.digest:
            row = None  # it is about another address
        mark = row.mark if row is not None else shared.NO_MARK
        if mark == guard.mark:
            return
        guard.mark = mark
        guard.is_told = True
        before, guard.circuit = guard.circuit, self._local(row) if row is not None else CLOSED
        if guard.circuit.is_closed:
            guard.window = Window(guard.rule)
        if guard.circuit.state is not before.state:
            self._report(guard)

    def _row(self, guard: Guard) -> SharedCircuit | None:
        one = guard.circuit
        if one.is_closed:
            return None
        about = (self._wall(one.since), one.until - one.since, one.wait_s, one.failures, one.reason, one.contact_closes)
        return SharedCircuit(guard.name, guard.digest, str(one.state), *about)

    def _local(self, row: SharedCircuit) -> Circuit:
        """A row in this worker's time. However the clocks of two nodes differ, it lasts no longer than it says from now on."""
        age_s = min(max(0.0, (self._clock.now() - row.since).total_seconds()), row.lasts_s)
        since = self._now() - age_s
        until = since + row.lasts_s
        return Circuit(State(row.state), since, until, row.wait_s, row.failures, row.reason, row.contact_closes)

    def _wall(self, monotonic: float) -> datetime:
        return self._clock.now() - timedelta(seconds=self._now() - monotonic)

    def _now(self) -> float:
        return self._clock.monotonic()


def rule_for(spec: RemoteSpec, limits: Limits) -> Rule:
    """The gateway's numbers, and what differs for one remote."""
    own = spec.breaker
    return Rule(
        failures=own.failures or limits.breaker_failures,
        window_s=own.window_s or limits.breaker_window_s,
        open_s=own.open_s or limits.breaker_open_s,
        enabled=own.enabled,
    )


def _is_same(spec: RemoteSpec | None, guard: Guard) -> bool:
    return spec is not None and spec.enabled and not spec.missing and spec.digest == guard.digest
