"""One request to one remote under the policies: its circuit, a lease, and further attempts where they are safe.

A call that meets no trouble pays a dictionary lookup, two comparisons and a count. Whatever the number of attempts, one deadline
holds, and one call is counted.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

from gateway import metrics
from gateway.admission.leases import Leases
from gateway.catalog.listing import Entry
from gateway.circuits import Breaker, Circuits, Guard
from gateway.policy import retry
from gateway.policy.breaker import is_silence
from gateway.policy.retry import Attempt
from remotes.upstream.client import Upstream
from remotes.upstream.connection import Greeting
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Failed, Failure, Outcome

# Of a call's time: a remote that had less of it may be as quick as ever.
_FAIR_SHARE = 0.5

Send = Callable[[Upstream, Exchange, str, int], Awaitable[Outcome]]
"""Sends a request to a remote; told which tool it is about, by its own name, and which attempt it is."""


def _sent(upstream: Upstream, exchange: Exchange, tool: str, number: int) -> Awaitable[Outcome]:
    return upstream.exchange(exchange)


class Attempts:
    def __init__(self, circuits: Circuits, leases: Leases, monotonic: Callable[[], float]) -> None:
        self._circuits = circuits
        self._leases = leases
        self._monotonic = monotonic
        self.send: Send = _sent
        """How one attempt is sent; with a span around it where requests are traced."""

    async def exchange(self, upstream: Upstream, exchange: Exchange, entry: Entry) -> Outcome:
        """Send one request, if its remote is well; the outcome of the last attempt."""
        name = upstream.spec.name
        guard = self._circuits.guard(upstream.spec)
        tool = entry.own if exchange.method == "tools/call" else ""
        if not guard.is_plain and (refusal := self._circuits.refusal(guard, tool)) is not None:
            return refusal
        if not self._leases.take(name) and (busy := await self._leases.wait(name, exchange.deadline)) is not None:
            return busy
        tries: tuple[Breaker, ...] = ()
        began = self._monotonic()
        try:
            if not guard.is_plain:
                admitted = await self._circuits.admit(guard, tool)
                if isinstance(admitted, Failure):
                    return admitted
                tries = admitted
            outcome = await self.send(upstream, exchange, entry.own, 1)
            if isinstance(outcome, Failure) and not tries:
                outcome = await self._again(upstream, exchange, entry, guard, outcome)
        except BaseException:
            if tries:
                self._circuits.release(guard, tries)
            raise
        finally:
            self._leases.give_back(name)
        if isinstance(outcome, Failure) and self._had_little_time(upstream, outcome, began):
            self._circuits.release(guard, tries)
        else:
            self._circuits.record(guard, tool, outcome, began, tries)
        return outcome

    def _had_little_time(self, upstream: Upstream, failure: Failure, began: float) -> bool:
        """Whether a call ran out of time because it had waited for its turn: that says nothing of the remote."""
        return is_silence(failure) and self._monotonic() - began < _FAIR_SHARE * upstream.spec.timeout_s

    async def greeting(self, upstream: Upstream, deadline: float) -> Greeting | None:
        """What a remote is, found out now if need be; None where it is left alone or does not say: a request will tell why."""
        if upstream.greeting is None and self.may_go(upstream):
            with contextlib.suppress(Failed):
                await upstream.connected(deadline)
        return upstream.greeting

    def may_go(self, upstream: Upstream) -> bool:
        """Whether the remote as a whole is well, as far as is known."""
        return self._circuits.guard(upstream.spec).circuit.is_closed

    async def _again(
        self, upstream: Upstream, exchange: Exchange, entry: Entry, guard: Guard, failure: Failure
    ) -> Outcome:
        """Further attempts, for as long as each fails, there is time, and nobody has found the remote to be ill meanwhile."""
        may_repeat = upstream.spec.retry_idempotent and retry.is_repeatable(entry.raw)
        loop = asyncio.get_running_loop()
        tried = 1
        while True:
            attempt = Attempt(exchange.method, failure, tried, exchange.deadline - loop.time(), may_repeat)
            wait_s = retry.wait_s(attempt, random.random())  # noqa: S311 - spreading load, not guarding a secret
            if wait_s is None:
                return failure
            await asyncio.sleep(wait_s)
            if not guard.circuit.is_closed:
                return failure
            metrics.RETRIES.labels(guard.name).inc()
            outcome = await self.send(upstream, exchange, entry.own, tried + 1)
            if not isinstance(outcome, Failure):
                return outcome
            failure, tried = outcome, tried + 1
