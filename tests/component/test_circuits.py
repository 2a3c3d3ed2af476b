"""Circuits, retries and leases over real upstreams that fail, with the real database between two workers."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Raw

from gateway import metrics
from gateway.admission.leases import Leases
from gateway.attempts import Attempts
from gateway.catalog.listing import Entry
from gateway.circuits import Circuits
from mcpserver.lib.clock import SystemClock
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import GatewayError
from mcpserver.lib.limits import Limits
from remotes import circuits as shared
from remotes.config.snapshot import BreakerSpec, RemoteSpec, Snapshot
from remotes.upstream.budget import Budget
from remotes.upstream.client import Upstream
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failure, Fault, Outcome
from tests.component.upstreams import Request, Script, Wire, body, http, modern, reset, served, silence, status
from tests.peers import free_port

pytestmark = pytest.mark.django_db(transaction=True)

OPEN_S = 0.2
BREAKER = BreakerSpec(failures=3, open_s=OPEN_S)


class Worker:
    """What a worker has between a call and its remotes."""

    def __init__(self, spec: RemoteSpec, *, max_in_flight: int = 32, database: Any = in_database) -> None:
        self.looked_at: list[str] = []
        limits = Limits(max_in_flight_per_remote=max_in_flight)
        self.circuits = Circuits(SystemClock(), database, self.looked_at.append)
        self.circuits.follow(Snapshot(1, "", {spec.name: spec}), limits)
        self.upstream = Upstream(spec, budget=Budget(8 * (1024 * 1024), read_max_bytes=1024 * 1024))
        self.spec = spec
        self.leases = Leases(limits)
        self._attempts = Attempts(self.circuits, self.leases, time.monotonic)

    async def call(self, tool: str = "echo", *, method: str = "tools/call", raw: bytes = b"{}") -> Outcome:
        field = "uri" if method == "resources/read" else "name"
        params = {field: Raw(b'"%s"' % tool.encode())}
        deadline = asyncio.get_running_loop().time() + self.spec.timeout_s
        entry = Entry(self.spec.name, tool, f"remote__{tool}", raw)
        return await self._attempts.exchange(self.upstream, Exchange(method, params, deadline=deadline), entry)

    @property
    def state(self) -> str:
        return str(self.circuits.document(self.spec.name)["state"])


@contextlib.asynccontextmanager
async def worker(spec: RemoteSpec, **options: Any) -> AsyncIterator[Worker]:
    one = Worker(spec, **options)
    try:
        yield one
    finally:
        await one.upstream.close()
        await one.circuits.close()


@pytest.fixture
def soon(monkeypatch):
    """Retries after a tenth of the time."""
    monkeypatch.setattr("gateway.policy.retry.WAITS_S", (0.1, 0.2, 0.4))


def guarded(server: Any, **changed: Any) -> RemoteSpec:
    return http(server, **({"breaker": BREAKER, "timeout_s": 0.2} | changed))


def permissive(server: Any) -> RemoteSpec:
    return guarded(server, timeout_s=3, retry_idempotent=True)


def nowhere(**changed: Any) -> RemoteSpec:
    return http(type("Nobody", (), {"url": f"http://127.0.0.1:{free_port()}/mcp"})(), breaker=BREAKER, **changed)


async def failed(one: Worker, times: int = 3, tool: str = "echo") -> list[Outcome]:
    return [await one.call(tool) for _ in range(times)]


async def until(claim: Any, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not claim():
            await asyncio.sleep(0.01)


ILL = {"500": status(500), "reset": reset, "nonsense": body(b"nonsense"), "silence": silence}


@pytest.mark.edge(1)
@pytest.mark.parametrize("fault", ILL)
async def test_an_open_circuit_refuses_at_once_and_sends_nothing(fault):
    async with served(modern({"tools/call": ILL[fault]})) as server, worker(guarded(server)) as one:
        await failed(one)
        assert one.looked_at
        assert set(one.looked_at) == {"remote"}, "its keeper looks how it is"
        refused = await one.call()
        assert isinstance(refused, Failure)
        assert refused.fault is Fault.DEGRADED
        assert refused.message.startswith(
            ("remote is degraded after 3 failed calls", "echo of remote is degraded after 3")
        )
        assert "next try in 1 s" in refused.message
        assert server.count("tools/call") == 3, "one for each failed call, none for the refused one"


@pytest.mark.edge(1)
async def test_a_remote_that_refuses_connections_is_tried_again_within_the_deadline_and_counted_once(soon):
    before = metrics.RETRIES.labels("remote")._value.get()
    async with worker(nowhere(timeout_s=0.4)) as one:
        started = time.monotonic()
        outcome = await one.call()
        assert isinstance(outcome, Failure)
        assert outcome.fault is Fault.NOT_SENT
        assert time.monotonic() - started < 4
        retries = metrics.RETRIES.labels("remote")._value.get() - before
        assert retries in (1, 2), "the third wait would end too late, on a busy machine the second"
        assert one.circuits.document("remote")["failures"] == 1


@pytest.mark.edge(1)
async def test_of_many_calls_exactly_one_makes_the_next_try_and_its_success_lets_all_go_again():
    answers: dict[str, Script] = {"tools/call": reset}
    async with served(modern(answers)) as server, worker(guarded(server, timeout_s=2.0)) as one:
        await failed(one)
        goes_on = asyncio.Event()

        async def slowly(request: Request, wire: Wire) -> None:
            await goes_on.wait()
            await wire.result(request, {"content": [], "resultType": "complete"})

        answers["tools/call"] = slowly
        await asyncio.sleep(OPEN_S)
        calls = [asyncio.create_task(one.call()) for _ in range(10)]
        await asyncio.wait(calls, return_when=asyncio.ALL_COMPLETED, timeout=0.3)
        assert [task.done() for task in calls].count(False) == 1, "the try"
        assert one.state == "half_open"
        goes_on.set()
        outcomes = await asyncio.gather(*calls)
        assert [type(outcome) for outcome in outcomes].count(Answer) == 1
        assert server.count("tools/call") == 4
        assert one.state == "closed"
        assert isinstance(await one.call(), Answer)


@pytest.mark.edge(1)
async def test_a_try_that_fails_doubles_the_wait():
    async with served(modern({"tools/call": reset})) as server, worker(guarded(server)) as one:
        await failed(one)
        await asyncio.sleep(OPEN_S)
        assert (await one.call()).fault is Fault.BROKEN
        circuit = one.circuits.document("remote")
        assert circuit["state"] == "open"
        assert OPEN_S < circuit["next_try_s"] <= 2 * OPEN_S
        assert circuit["failures"] == 4


async def test_a_try_whose_caller_leaves_is_made_by_the_next_call():
    answers: dict[str, Script] = {"tools/call": reset}
    async with served(modern(answers)) as server, worker(guarded(server, timeout_s=2.0)) as one:
        await failed(one)
        await asyncio.sleep(OPEN_S)
        answers["tools/call"] = silence
        leaving = asyncio.create_task(one.call())
        await server.until(lambda state: state.count("tools/call") == 4)
        leaving.cancel()
        await asyncio.wait([leaving])
        del answers["tools/call"]
        assert isinstance(await one.call(), Answer)


@pytest.mark.edge(1)
async def test_errors_that_are_answers_open_nothing():
    error = b'{"jsonrpc":"2.0","id":%ID%,"error":{"code":-32603,"message":"no"}}'
    failing = b'{"jsonrpc":"2.0","id":%ID%,"result":{"content":[],"isError":true}}'
    for answer in (body(error), body(failing), status(403), status(429), status(401)):
        async with served(modern({"tools/call": answer})) as server, worker(guarded(server, timeout_s=1)) as one:
            await failed(one, 5)
            assert one.state == "closed"
            assert server.count("tools/call") == 5


async def test_callers_that_leave_open_nothing():
    async with served(modern({"tools/call": silence})) as server, worker(guarded(server, timeout_s=5)) as one:
        calls = [asyncio.create_task(one.call()) for _ in range(5)]
        await server.until(lambda state: state.count("tools/call") == 5)
        for task in calls:
            task.cancel()
        await asyncio.wait(calls)
        assert (one.state, one.circuits.document("remote")["failures"]) == ("closed", 0)


@pytest.mark.edge(1)
async def test_a_tool_that_keeps_its_callers_waiting_is_left_alone_without_its_siblings():
    async def slow_tool(request: Request, wire: Wire) -> None:
        if request.json["params"]["name"] == "slow":
            await wire.until_gone()
        await wire.result(request, {"content": [], "resultType": "complete"})

    async with served(modern({"tools/call": slow_tool})) as server, worker(guarded(server)) as one:
        for _ in range(3):
            slow = asyncio.create_task(one.call("slow"))
            await asyncio.sleep(0.05)
            assert isinstance(await one.call("quick"), Answer)
            assert (await slow).fault is Fault.TIMEOUT
        refused = await one.call("slow")
        assert refused.fault is Fault.DEGRADED
        assert refused.message.startswith("slow of remote is degraded")
        assert isinstance(await one.call("quick"), Answer)
        circuit = one.circuits.document("remote")
        assert (circuit["state"], circuit["tools"]) == ("open", ["slow"])
        await one.circuits.reset("remote")
        assert one.circuits.is_closed("remote")


@pytest.mark.edge(1)
async def test_a_remote_that_can_be_listed_again_is_called_again_but_its_slow_tool_is_not():
    async with served(modern({"tools/call": silence})) as server, worker(guarded(server, timeout_s=0.1)) as one:
        await failed(one)
        assert one.circuits.document("remote")["tools"] is None, "nothing it answered says that only the tool is slow"
        one.circuits.contacted("remote", ok=True)
        assert one.circuits.document("remote")["tools"] == ["echo"]


async def test_a_remote_that_lists_and_fails_its_calls_stays_degraded_until_a_call_succeeds():
    async with served(modern({"tools/call": status(500)})) as server, worker(guarded(server)) as one:
        await failed(one)
        one.circuits.contacted("remote", ok=True)
        assert one.state == "open"
        one.circuits.contacted("remote", ok=False)
        one.circuits.contacted("remote", ok=True)
        assert one.state == "closed", "it was ill altogether, and is well again"


@pytest.mark.edge(1)
async def test_a_breaker_that_is_switched_off_lets_every_call_go():
    off = BreakerSpec(enabled=False)
    async with served(modern({"tools/call": status(500)})) as server, worker(guarded(server, breaker=off)) as one:
        await failed(one, 10)
        assert server.count("tools/call") == 10


# Repeats.


@pytest.mark.edge(1)
@pytest.mark.parametrize("answer", [reset, status(503)])
async def test_a_call_of_which_a_byte_was_sent_is_never_repeated(answer):
    async with served(modern({"tools/call": answer})) as server, worker(guarded(server, timeout_s=3)) as one:
        assert isinstance(await one.call(raw=b'{"annotations":{"idempotentHint":true}}'), Failure)
        assert server.count("tools/call") == 1


@pytest.mark.edge(1)
async def test_a_tool_that_says_it_may_is_repeated_where_the_operator_allows_it(soon):
    async def once(request: Request, wire: Wire) -> None:
        if server.count("tools/call") == 1:
            wire.reset()
        await wire.result(request, {"content": [], "resultType": "complete"})

    async with served(modern({"tools/call": once})) as server, worker(permissive(server)) as one:
        assert isinstance(await one.call(raw=b'{"annotations":{"readOnlyHint":true}}'), Answer)
        assert server.count("tools/call") == 2
        assert one.circuits.document("remote")["failures"] == 0


@pytest.mark.edge(1)
async def test_a_read_is_repeated(soon):
    async def once(request: Request, wire: Wire) -> None:
        if server.count("resources/read") == 1:
            await wire.answer(b"", status=503)
        else:
            await wire.result(request, {"contents": [], "resultType": "complete"})

    async with served(modern({"resources/read": once})) as server, worker(guarded(server, timeout_s=3)) as one:
        assert isinstance(await one.call("a:b", method="resources/read"), Answer)
        assert server.count("resources/read") == 2


# Leases.


@pytest.mark.edge(15)
async def test_calls_beyond_the_cap_of_a_remote_wait_their_turn_and_only_so_many():
    goes_on = asyncio.Event()

    async def slowly(request: Request, wire: Wire) -> None:
        await goes_on.wait()
        await wire.result(request, {"content": [], "resultType": "complete"})

    script = modern({"tools/call": slowly})
    async with served(script) as server, worker(guarded(server, timeout_s=5), max_in_flight=3) as one:
        calls = [asyncio.create_task(one.call()) for _ in range(6)]
        await server.until(lambda state: state.count("tools/call") == 3)
        busy = await one.call()
        assert isinstance(busy, Failure)
        assert (busy.fault, busy.retry_after_s) == (Fault.BUSY, 1)
        assert server.count("tools/call") == 3
        goes_on.set()
        assert [type(outcome) for outcome in await asyncio.gather(*calls)] == [Answer] * 6
        assert server.count("tools/call") == 6
        assert one.circuits.document("remote")["failures"] == 0


@pytest.mark.edge(15)
async def test_waiting_for_a_turn_spends_the_call_s_own_time():
    script = modern({"tools/call": silence})
    async with served(script) as server, worker(guarded(server, timeout_s=2), max_in_flight=1) as one:
        holding = asyncio.create_task(one.call())
        await server.until(lambda state: state.count("tools/call") == 1)
        waiting = asyncio.create_task(one.call())
        await asyncio.sleep(0)
        started = time.monotonic()
        assert (await holding).fault is Fault.TIMEOUT
        assert (await waiting).fault in (Fault.TIMEOUT, Fault.BUSY)
        assert time.monotonic() - started < 3.9, "one deadline, not two after another"


@pytest.mark.edge(15)
async def test_a_call_that_waited_too_long_for_its_turn_is_not_held_against_its_tool():
    async def slowly(request: Request, wire: Wire) -> None:
        await asyncio.sleep(0.3)
        await wire.result(request, {"content": [], "resultType": "complete"})

    script = modern({"tools/call": slowly})
    async with served(script) as server, worker(guarded(server, timeout_s=0.4), max_in_flight=5) as one:
        outcomes = await asyncio.gather(*(one.call() for _ in range(10)))
        late = [outcome for outcome in outcomes if isinstance(outcome, Failure) and outcome.fault is Fault.TIMEOUT]
        assert len(late) == 5
        assert (one.circuits.document("remote")["failures"], one.state) == (0, "closed")


async def test_who_leaves_the_queue_keeps_nothing():
    script = modern({"tools/call": silence})
    async with served(script) as server, worker(guarded(server, timeout_s=5), max_in_flight=1) as one:
        holding, leaving = asyncio.create_task(one.call()), asyncio.create_task(one.call())
        await server.until(lambda state: state.count("tools/call") == 1)
        for task in (leaving, holding):
            task.cancel()
        await asyncio.wait([holding, leaving])
        assert one.leases.take("remote"), "free again"
        assert not one.leases.take("remote"), "and once"


# Between workers.


@pytest.mark.edge(1)
async def test_what_one_worker_finds_out_the_others_know_and_one_of_all_makes_the_next_try():
    async with served(modern({"tools/call": status(500)})) as server:
        spec = guarded(server)
        async with worker(spec) as first, worker(spec) as second:
            await failed(first)
            await first.circuits.close()
            await second.circuits.sync()
            assert second.state == "open"
            assert (await second.call()).fault is Fault.DEGRADED
            assert server.count("tools/call") == 3
            await asyncio.sleep(OPEN_S)
            outcomes = await asyncio.gather(*(one.call() for one in (first, second) for _ in range(5)))
            assert server.count("tools/call") == 4, "exactly one try between them"
            assert [outcome.fault for outcome in outcomes].count(Fault.HTTP_STATUS) == 1


@pytest.mark.edge(1)
async def test_a_circuit_that_closes_closes_everywhere():
    answers: dict[str, Script] = {"tools/call": status(500)}
    async with served(modern(answers)) as server:
        spec = guarded(server)
        async with worker(spec) as first, worker(spec) as second:
            await failed(first)
            await first.circuits.close()
            await second.circuits.sync()
            del answers["tools/call"]
            await asyncio.sleep(OPEN_S)
            assert isinstance(await second.call(), Answer)
            await second.circuits.close()
            await first.circuits.sync()
            assert (first.state, second.state) == ("closed", "closed")
            assert await in_database(shared.everyone) == {}


async def test_without_the_database_each_worker_decides_alone_and_tells_it_later():
    async def away(fn: Any, *args: Any, **options: Any) -> Any:
        if is_away:
            raise GatewayError("database", "away")
        return await in_database(fn, *args)

    is_away = True
    before = metrics.CIRCUIT_UNSHARED._value.get()
    async with served(modern({"tools/call": status(500)})) as server:
        spec = guarded(server)
        async with worker(spec, database=away) as first, worker(spec) as second:
            await failed(first)
            await first.circuits.close()
            assert (await first.call()).fault is Fault.DEGRADED
            assert metrics.CIRCUIT_UNSHARED._value.get() > before
            await asyncio.sleep(OPEN_S)
            assert (await first.call()).fault is Fault.HTTP_STATUS, "its own try"
            await first.circuits.close()
            is_away = False
            await first.circuits.sync()
            await second.circuits.sync()
            assert second.state == "open"


async def test_what_was_known_of_another_address_is_forgotten_everywhere():
    async with served(modern({"tools/call": status(500)})) as server:
        spec = guarded(server)
        async with worker(spec) as first, worker(dataclasses.replace(spec, url=f"{server.url}/moved")) as moved:
            await failed(first)
            await first.circuits.close()
            await moved.circuits.sync()
            assert moved.state == "closed"
            assert await in_database(shared.everyone) == {}
            await first.circuits.sync()
            assert first.state == "closed"


async def test_a_probe_that_succeeds_or_an_operator_closes_it_through_the_database():
    async with served(modern({"tools/call": status(500)})) as server, worker(guarded(server)) as one:
        await failed(one)
        await one.circuits.close()
        assert await in_database(shared.close, "remote")
        await one.circuits.sync()
        assert one.state == "closed"
