"""Calls in which the remote asks something back, between every pair of eras.

| client     | remote     | |
| ---------- | ---------- | --- |
| session    | session    | the remote's request goes to the client as a request on the call's own stream |
| session    | 2026-07-28 | `input_required` becomes such requests, and their answers another round of the call |
| 2026-07-28 | session    | the call is parked; the client gets `input_required` and calls again |
| 2026-07-28 | 2026-07-28 | `input_required` is relayed, its state sealed |

Source: specification 2026-07-28, basic/patterns/mrtr. A call that asks nothing passes through at the price of two comparisons.
"""

import asyncio
import random
from collections.abc import Callable

import msgspec
from msgspec import Raw

from gateway.attempts import Attempts
from gateway.calls import Served, Visit, answered, error, exchange_for, refusal, runs_tasks, worded
from gateway.catalog.catalog import Catalog
from gateway.catalog.listing import Entry
from gateway.record import Verdict
from gateway.rounds import state
from gateway.rounds.parking import Parked, Parking
from gateway.rounds.state import NotOurs, Sealer, State
from gateway.rounds.tasks import TaskIds
from gateway.sessions import asking
from gateway.sessions.asking import InputRequired, Question
from gateway.sessions.elicitations import Elicitations
from mcpserver.lib.clock import Instant
from mcpserver.protocol import codes, jsonrpc, results
from mcpserver.protocol.inbound import Call
from mcpserver.protocol.versions import ROUTED
from remotes.upstream.client import Upstream
from remotes.upstream.envelope import Ask, Exchange
from remotes.upstream.outcome import Answer, Failed, Failure, Outcome, Refusal
from remotes.upstream.pool import Pool

# As many rounds as the official SDKs go along with.
ROUNDS_MAX = 10
_PAGES_MAX = 20
_GOODBYE_S = 5.0
_NOTHING = b"{}"


class Rounds:
    def __init__(
        self,
        pool: Pool,
        attempts: Attempts,
        catalog: Catalog,
        parking: Parking,
        tasks: TaskIds,
        elicitations: Elicitations,
        sealer: Sealer,
        loop_time: Callable[[], float],
        instant: Callable[[], Instant],
    ) -> None:
        self._pool = pool
        self._attempts = attempts
        self._catalog = catalog
        self._elicitations = elicitations
        self._tasks = tasks
        self._parking = parking
        self._sealer = sealer
        self._loop_time = loop_time
        self._instant = instant
        self._telling: set[asyncio.Future[Outcome]] = set()

    async def serve(self, visit: Visit, entry: Entry, base: Upstream) -> Served:
        """Serve one call on the remote's session that it belongs on."""
        call = visit.call
        if call.modern and call.method in ROUTED and _interactive(visit):
            return await self._modern(visit, entry, base)
        if call.modern:
            upstream = self._lease(visit, base, _NOTHING)
            return await self._once(visit, entry, upstream) if upstream else _too_many(visit, base)
        upstream = await self._lease_to_ask(visit, base)
        return await self._session(visit, entry, upstream) if upstream else _too_many(visit, base)

    def _lease(self, visit: Visit, base: Upstream, capabilities: bytes) -> Upstream | None:
        return self._pool.lease(
            base, capabilities=capabilities, key_id=visit.principal.key_id, session_id=visit.session_id
        )

    async def _lease_to_ask(self, visit: Visit, base: Upstream) -> Upstream | None:
        """A session on which the remote may ask something: not one where a sibling worker's question is open, if it shares it."""
        capabilities = _asked_of(visit)
        upstream = self._lease(visit, base, capabilities)
        while upstream is not None and upstream.is_unmet and capabilities != _NOTHING:
            try:
                await upstream.connected(self._loop_time() + base.spec.timeout_s - visit.waited_s)
            except Failed:
                break  # told by the call itself
            if not upstream.is_ambiguous:
                break
            upstream = self._lease(visit, base, capabilities)
        return upstream

    async def _once(self, visit: Visit, entry: Entry, upstream: Upstream) -> Served:
        exchange = exchange_for(visit, entry, upstream, self._loop_time())
        outcome = await self._exchange(visit, entry, upstream, exchange)
        return self._ended_or_asking(visit, entry, upstream, outcome)

    def _ended_or_asking(self, visit: Visit, entry: Entry, upstream: Upstream, outcome: Outcome) -> Served:
        """The outcome for a 2026-07-28 client; a question only if it said, with this very request, that it can answer it."""
        required = _required(outcome)
        if required is None or not isinstance(outcome, Answer) or visit.call.method not in ROUTED:
            return answered(visit.call, entry, upstream, outcome)
        offered = asking.declared(visit.call.capabilities)
        lacking = [one for one in required.questions.values() if not asking.is_offered(one, offered)]
        if lacking:
            why = f"{entry.remote} asks for what this client did not declare"
            needed = {"requiredCapabilities": asking.needed(lacking)}
            return refusal(visit.call, codes.MISSING_CAPABILITY, why, needed)
        sealed = self._sealer.seal(self._state(visit, entry, state.digest(visit.call), inner=required.state))
        return Served(jsonrpc.result(visit.call.id, asking.with_state(outcome.result, sealed)), Verdict.INPUT_REQUIRED)

    async def _exchange(self, visit: Visit, entry: Entry, upstream: Upstream, exchange: Exchange) -> Outcome:
        """Send it, as a task where the remote takes it only so; task ids leave as the client knows them."""
        is_driven = entry.only_as_task and "task" not in exchange.params and runs_tasks(upstream)
        if is_driven:
            exchange.params["task"] = Raw(b"{}")
        outcome = await self._attempts.exchange(upstream, exchange, entry)
        if is_driven and isinstance(outcome, Answer):
            outcome = await self._awaited(upstream, exchange, entry, outcome)
        if not isinstance(outcome, Answer):
            return outcome
        if self._catalog.shelf is not None:
            await self._catalog.agree(visit.call.method, entry, outcome.result)
        raw = self._catalog.readdressed(visit.call.method, entry, outcome.result)
        if b'"taskId"' in raw:
            raw = self._tasks.exposed(raw, entry.remote, visit.principal.key_id, visit.subscriber)
            await self._tasks.share()
        return outcome if raw is outcome.result else Answer(raw, outcome.modern, outcome.held)

    async def _awaited(self, upstream: Upstream, exchange: Exchange, entry: Entry, created: Answer) -> Outcome:
        """The result of a task that nobody but us knows to be one."""
        task = jsonrpc.fields(jsonrpc.fields(created.result, "result").get("task"), "task")
        if "taskId" not in task:
            return created
        exchange.method, exchange.params = "tasks/result", {"taskId": task["taskId"]}
        outcome: Outcome | None = None
        try:
            outcome = await self._attempts.exchange(upstream, exchange, entry)
        finally:
            if outcome is None or isinstance(outcome, Failure):
                self._give_up(upstream, task["taskId"])
        if isinstance(outcome, Answer):
            result = jsonrpc.fields(outcome.result, "result")
            result.pop("_meta", None)  # it names the task
            return Answer(jsonrpc.encode(result), outcome.modern, outcome.held)
        return outcome

    def _give_up(self, upstream: Upstream, own_id: Raw) -> None:
        """Nobody waits for a task any more; cancelling the request for its result does not cancel the task."""
        exchange = Exchange("tasks/cancel", {"taskId": own_id}, deadline=self._loop_time() + _GOODBYE_S)
        telling = asyncio.ensure_future(upstream.exchange(exchange))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def tasks_of(self, visit: Visit, base: Upstream) -> list[bytes]:
        """This key's tasks at one remote, all pages of its list."""
        upstream = self._lease(visit, base, _asked_of(visit))
        found: list[bytes] = []
        params: jsonrpc.Fields = {}
        deadline = self._loop_time() + base.spec.list_timeout_s
        is_asked = upstream is not None and self._attempts.may_go(upstream)
        for _ in range(_PAGES_MAX if is_asked else 0):
            assert upstream is not None
            outcome = await upstream.exchange(Exchange("tasks/list", params, deadline=deadline))
            if not isinstance(outcome, Answer):
                break
            result = jsonrpc.fields(outcome.result, "result")
            listed = jsonrpc.items(result.get("tasks"))
            await self._tasks.recall(listed, base.spec.name)
            own = (self._tasks.listed(one, base.spec.name, visit.principal.key_id) for one in listed)
            found += [task for task in own if task is not None]
            if "nextCursor" not in result:
                break
            params = {"cursor": result["nextCursor"]}
        return found

    # A client of a session.

    async def _session(self, visit: Visit, entry: Entry, upstream: Upstream) -> Served:
        exchange = exchange_for(visit, entry, upstream, self._loop_time())
        exchange.capabilities = Raw(_asked_of(visit))
        exchange.ask = self._ask_about_tasks(visit, entry)
        for _ in range(ROUNDS_MAX):
            outcome = await self._exchange(visit, entry, upstream, exchange)
            required = _required(outcome)
            if required is None:
                if isinstance(outcome, Refusal):
                    self._elicitations.required(visit, jsonrpc.error_body(outcome.error))
                return answered(visit.call, entry, upstream, outcome)
            replies = await self._asked(visit, required)
            if isinstance(replies, Refusal):
                return error(visit.call, replies)
            exchange = self._next_round(exchange, upstream, replies, required.state)
        return worded(visit.call, f"{entry.remote} asked more than {ROUNDS_MAX} times in one call")

    def _ask_about_tasks(self, visit: Visit, entry: Entry) -> Ask | None:
        """Questions of a task name it, in the client's id on the way out and the remote's on the way back."""
        put = visit.ask
        if put is None:
            return None
        key_id = visit.principal.key_id

        async def ask(method: str, params: bytes | None) -> asking.Reply:
            self._elicitations.asked(visit, params)
            reply = await put(method, self._tasks.question(params, entry.remote, key_id))
            return Answer(self._tasks.reply(reply.result, key_id), False) if isinstance(reply, Answer) else reply

        return ask

    async def _asked(self, visit: Visit, required: InputRequired) -> jsonrpc.Fields | Refusal:
        """The client's answers by key; an error to anything but an elicitation ends the call with that error."""
        if not required.questions:
            await asyncio.sleep(random.uniform(0.05, 0.25))  # noqa: S311 - the remote only wants time
            return {}
        put = [self._ask_session(visit, question) for question in required.questions.values()]
        replies: jsonrpc.Fields = {}
        for (key, question), reply in zip(required.questions.items(), await asyncio.gather(*put), strict=True):
            if isinstance(reply, Answer):
                replies[key] = Raw(reply.result)
            elif question.method == "elicitation/create":
                replies[key] = Raw(b'{"action":"cancel"}')
            else:
                return reply
        return replies

    async def _ask_session(self, visit: Visit, question: Question) -> asking.Reply:
        offered = asking.declared(visit.call.capabilities)
        if visit.ask is None or not asking.is_offered(question, offered):
            return asking.not_offered(question.method)
        question = asking.for_session(question)
        return await visit.ask(question.method, question.params)

    def _next_round(
        self, exchange: Exchange, upstream: Upstream, replies: jsonrpc.Fields, state: str | None
    ) -> Exchange:
        """The same request with the answers; the time that people took is not the remote's."""
        exchange.params = _without_round(exchange.params)
        if replies:
            exchange.params["inputResponses"] = Raw(jsonrpc.encode(replies))
        if state is not None:
            exchange.params["requestState"] = Raw(jsonrpc.encode(state))
        exchange.deadline = self._loop_time() + upstream.spec.timeout_s
        return exchange

    # A client of 2026-07-28.

    async def _modern(self, visit: Visit, entry: Entry, base: Upstream) -> Served:
        call = visit.call
        digest = state.digest(call)
        given = call.params.get("requestState")
        found: State | None = None
        if given is not None:
            try:
                found = self._unsealed(visit, entry, jsonrpc.text(given), digest)
            except NotOurs:
                return refusal(call, codes.INVALID_PARAMS, "requestState is not valid for this call, or has expired")
        if found is not None and found.parked:
            return await self._resumed(visit, entry, found, digest)
        began = self._loop_time()
        greeting = await self._attempts.greeting(base, began + base.spec.timeout_s - visit.waited_s)
        if greeting is not None and not greeting.modern:
            return await self._parked(visit, entry, base, digest, began)
        return await self._relayed(visit, entry, base, found, began)

    def keeper(self, message: jsonrpc.Request, key_id: str) -> str:
        """The worker where the call is parked that a request goes on with; empty when it names none, or may not go on."""
        try:
            call = Call(message.id, message.method, jsonrpc.fields(message.params), {}, "")
            text = jsonrpc.text(call.params.get("requestState")) or ""
            found = self._sealer.unseal(text, key_id=key_id, digest=state.digest(call), now=self._instant())
        except (jsonrpc.Malformed, NotOurs, KeyError, ValueError):
            return ""
        return found.parked.partition(".")[0]

    def _unsealed(self, visit: Visit, entry: Entry, text: str | None, digest: str) -> State:
        found = self._sealer.unseal(text or "", key_id=visit.principal.key_id, digest=digest, now=self._instant())
        if found.remote != entry.remote:
            raise NotOurs
        return found

    async def _relayed(
        self, visit: Visit, entry: Entry, upstream: Upstream, found: State | None, began: float
    ) -> Served:
        """Both sides know rounds: the remote's own state goes out sealed and comes back as it was."""
        exchange = exchange_for(visit, entry, upstream, began)
        if found is not None:
            exchange.params = {name: raw for name, raw in exchange.params.items() if name != "requestState"}
            if found.inner is not None:
                exchange.params["requestState"] = Raw(jsonrpc.encode(found.inner))
        outcome = await self._exchange(visit, entry, upstream, exchange)
        return self._ended_or_asking(visit, entry, upstream, outcome)

    async def _parked(self, visit: Visit, entry: Entry, base: Upstream, digest: str, began: float) -> Served:
        """The remote will ask on its open call: keep that, and let the client come back with the answers."""
        upstream = await self._lease_to_ask(visit, base)
        if upstream is None:
            return _too_many(visit, base)
        offered = asking.declared(visit.call.capabilities)

        async def work(parked: Parked) -> Served:
            async def ask(method: str, params: bytes | None) -> asking.Reply:
                question = Question(method, params)
                if not asking.is_offered(question, offered):
                    return asking.not_offered(method)
                return await parked.ask(question)

            exchange = exchange_for(visit, entry, upstream, began)
            exchange.params = _without_round(exchange.params)  # a remote of this era knows nothing of rounds
            exchange.notify, exchange.ask = parked.tell, ask
            parked.exchange = exchange
            outcome = await self._exchange(visit, entry, upstream, exchange)
            if isinstance(outcome, Refusal):
                questions = asking.required_by_error(jsonrpc.error_body(outcome.error))
                if questions:
                    return self._to_be_called_again(visit, entry, digest, questions)
            return answered(visit.call, entry, upstream, outcome)

        parked = self._parking.open(visit.principal.key_id, visit.call.id, work)
        return await self._attended(visit, entry, parked, digest)

    async def _resumed(self, visit: Visit, entry: Entry, found: State, digest: str) -> Served:
        call = visit.call
        parked = self._parking.find(found.parked, visit.principal.key_id)
        if parked is None:
            return refusal(call, codes.INVALID_PARAMS, "the call that requestState belongs to has expired")
        if parked.exchange is not None:
            parked.exchange.progress_token = call.progress_token
        parked.answer(jsonrpc.fields(call.params.get("inputResponses"), "inputResponses"))
        return await self._attended(visit, entry, parked, digest)

    async def _attended(self, visit: Visit, entry: Entry, parked: Parked, digest: str) -> Served:
        came = await self._parking.attend(parked, visit.notify)
        if came is None:
            return refusal(visit.call, codes.INTERNAL_ERROR, "too many calls wait for an answer already")
        if isinstance(came, Served):
            return _readdressed(came, parked, visit)
        sealed = self._sealer.seal(self._state(visit, entry, digest, parked=parked.id))
        raw = asking.required(came, sealed)
        return Served(jsonrpc.result(visit.call.id, raw), Verdict.INPUT_REQUIRED)

    def _to_be_called_again(self, visit: Visit, entry: Entry, digest: str, questions: dict[str, Question]) -> Served:
        """A remote that refuses until a person has been somewhere (-32042): the next round is a new call."""
        sealed = self._sealer.seal(self._state(visit, entry, digest))
        raw = asking.required(questions, sealed)
        return Served(jsonrpc.result(visit.call.id, raw), Verdict.INPUT_REQUIRED)

    def _state(self, visit: Visit, entry: Entry, digest: str, *, parked: str = "", inner: str | None = None) -> State:
        expires = self._instant().plus(self._parking.life_s)
        return State(visit.principal.key_id, entry.remote, digest, expires, parked, inner)


def lists_tasks(upstream: Upstream) -> bool:
    """Whether a remote can be asked which tasks it has."""
    greeting = upstream.greeting
    return greeting is not None and not greeting.modern and b'"list"' in bytes(greeting.capabilities.get("tasks", b""))


def _interactive(visit: Visit) -> bool:
    """Whether a 2026-07-28 call can have rounds at all: its client can be asked, or it is a further round already."""
    call = visit.call
    return (
        bytes(call.capabilities) != _NOTHING and bool(asking.declared(call.capabilities))
    ) or "requestState" in call.params


def _asked_of(visit: Visit) -> bytes:
    """The capabilities to declare to a remote: what the client declared of those that we can carry to it."""
    if visit.ask is None and not visit.call.modern:
        return _NOTHING
    return asking.carried(visit.call.capabilities)


def _required(outcome: Outcome) -> InputRequired | None:
    if not isinstance(outcome, Answer) or not outcome.modern or b'"input_required"' not in outcome.result:
        return None
    if results.result_type(outcome.result) != "input_required":
        return None
    return asking.read_required(outcome.result)


def _without_round(params: jsonrpc.Fields) -> jsonrpc.Fields:
    return {name: raw for name, raw in params.items() if name not in ("inputResponses", "requestState")}


def _readdressed(served: Served, parked: Parked, visit: Visit) -> Served:
    """The answer was made for the request that began the call; it goes to the one that is waiting now."""
    exchange = parked.exchange
    if exchange is None or parked.first_id == visit.call.id:
        return served
    message = jsonrpc.decode(served.body)
    assert isinstance(message, jsonrpc.Response)
    if message.error is not None:
        body = jsonrpc.raw_error(visit.call.id, message.error)
    else:
        body = jsonrpc.result(visit.call.id, message.result or b"{}")
    return msgspec.structs.replace(served, body=body)


def _too_many(visit: Visit, base: Upstream) -> Served:
    return worded(visit.call, f"{base.spec.name} has too many separate sessions open; try again in a moment")
