"""A channel that many requests share, over a wire that is a script: who gets which answer, and what the remote is told."""

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw

from mcpserver.protocol import jsonrpc
from remotes.upstream.connection import Greeting
from remotes.upstream.duplex import Duplex
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Outcome, Refusal

BROKEN = Failure(Fault.BROKEN, "answer", "gone")


class ScriptedWire:
    """Keeps what was sent; `sends` may hold it up or fail it."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed = 0
        self.failure: Failure | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self._news = asyncio.Condition()

    async def send(self, message: bytes) -> None:
        await self.gate.wait()
        if self.failure is not None:
            raise Failed(self.failure)
        self.sent.append(json.loads(message))
        async with self._news:
            self._news.notify_all()

    async def close(self) -> None:
        self.closed += 1

    async def until(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(2), self._news:
            await self._news.wait_for(lambda: len(self.sent) >= count)
        return self.sent


class Heard:
    def __init__(self) -> None:
        self.changes: list[str] = []
        self.losses: list[Failure] = []

    def changed(self, kind: str) -> None:
        self.changes.append(kind)

    def updated(self, uri: str) -> None:
        self.changes.append(uri)

    def completed(self, elicitation_id: str) -> None:
        self.changes.append(elicitation_id)

    def task_changed(self, params: bytes) -> None:
        self.changes.append(params.decode())

    def lost(self, failure: Failure) -> None:
        self.losses.append(failure)


class Ends:
    """A channel with both its ends in hand."""

    def __init__(self, *, modern: bool = False, capabilities: bytes = b"{}") -> None:
        self.wire, self.heard = ScriptedWire(), Heard()
        self.channel = Duplex("remote", self.wire, self.heard)
        revision = "2026-07-28" if modern else "2025-11-25"
        self.channel.greeting = Greeting("stdio", revision, jsonrpc.fields(capabilities))

    def ask(self, seconds: float = 2, method: str = "tools/call", **changed: Any) -> asyncio.Task[Outcome]:
        deadline = asyncio.get_running_loop().time() + seconds
        return asyncio.create_task(self.channel.request(Exchange(method, {}, deadline=deadline, **changed)))

    def say(self, **message) -> None:
        self.channel.received(json.dumps({"jsonrpc": "2.0"} | message).encode())

    def answer(self, id: object, result: object) -> None:
        self.say(id=id, result=result)


async def test_answers_out_of_order_find_their_callers():
    ends = Ends()
    calls = [ends.ask() for _ in range(3)]
    ids = [message["id"] for message in await ends.wire.until(3)]
    for id in reversed(ids):
        ends.answer(id, {"was": id})
    assert [json.loads((await call).result) for call in calls] == [{"was": id} for id in ids]


async def test_two_requests_never_share_an_id_even_after_one_has_ended():
    ends = Ends()
    for _ in range(3):
        call = ends.ask()
        await asyncio.sleep(0)
        while not ends.wire.sent or "result" in ends.wire.sent[-1]:
            await asyncio.sleep(0)
        ends.answer((await ends.wire.until(1))[-1]["id"], {})
        await call
    ids = [message["id"] for message in ends.wire.sent]
    assert len(set(ids)) == len(ids) == 3


@pytest.mark.parametrize("id", [99, -1, "1", 10**30, None, "x" * 5000])
async def test_an_answer_with_an_unknown_id_is_counted_and_goes_to_nobody(id):
    ends = Ends()
    call = ends.ask()
    ((first),) = await ends.wire.until(1)
    assert first["id"] == 1
    ends.say(id=id, **({"error": {"code": 1, "message": "x"}} if id is None else {"result": {"for": "nobody"}}))
    ends.answer(1, {"for": "caller"})
    assert (await call).result == b'{"for": "caller"}'
    assert ends.channel.strays == 1


async def test_an_id_of_five_thousand_digits_is_one_more_stray():
    ends = Ends()
    ends.channel.received(b'{"jsonrpc":"2.0","id":' + b"1" * 5000 + b',"result":{}}')
    assert ends.channel.strays == 1


async def test_the_first_of_two_answers_counts():
    ends = Ends()
    call = ends.ask()
    await ends.wire.until(1)
    ends.answer(1, {"n": 1})
    ends.answer(1, {"n": 2})
    assert (await call).result == b'{"n": 1}'
    ends.answer(1, {"n": 3})
    assert ends.channel.strays == 2


async def test_an_error_is_a_refusal_byte_for_byte():
    ends = Ends()
    call = ends.ask()
    await ends.wire.until(1)
    ends.channel.received(b'{"jsonrpc":"2.0","id":1,"error":{"code": -5,"message":"no"}}')
    assert await call == Refusal(b'{"code": -5,"message":"no"}')


@pytest.mark.parametrize("modern", [True, False])
async def test_an_answer_says_in_which_era_it_is_written(modern):
    ends = Ends(modern=modern)
    call = ends.ask()
    await ends.wire.until(1)
    ends.answer(1, {})
    assert await call == Answer(b"{}", modern)


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"[]", b"{}", b'{"jsonrpc":"2.0","id":1}', b'\xff{"a":1}'])
async def test_what_is_no_message_is_the_wires_to_judge_and_harms_nobody(raw):
    ends = Ends()
    call = ends.ask()
    await ends.wire.until(1)
    with pytest.raises(jsonrpc.Malformed):
        ends.channel.received(raw)
    ends.answer(1, {})
    assert isinstance(await call, Answer)


async def test_a_ping_is_answered_and_what_is_not_offered_is_declined():
    ends = Ends()
    ends.say(id="p-1", method="ping")
    ends.say(id=7, method="tools/list")
    pong, declined = await ends.wire.until(2)
    assert pong == {"jsonrpc": "2.0", "id": "p-1", "result": {}}
    assert (declined["id"], declined["error"]["code"]) == (7, -32601)


async def test_a_request_nobody_can_be_asked_is_declined():
    ends = Ends()
    ends.ask().add_done_callback(lambda _: None)
    await ends.wire.until(1)
    ends.say(id=7, method="sampling/createMessage", params={})
    declined = (await ends.wire.until(2))[1]
    assert (declined["id"], declined["error"]["code"]) == (7, -32601)
    await ends.channel.close()


async def test_pings_without_end_are_not_answered_without_bound():
    ends = Ends()
    ends.wire.gate.clear()
    for number in range(1000):
        ends.say(id=number, method="ping")
    assert len(ends.channel._tasks) <= 64
    await ends.channel.close()


async def test_a_timeout_is_told_to_the_remote_with_the_id_it_knows():
    ends = Ends()
    outcome = await ends.ask(0.05)
    assert outcome == Failure(Fault.TIMEOUT, "answer", "remote did not answer tools/call in time")
    asked, told = await ends.wire.until(2)
    assert told["method"] == "notifications/cancelled"
    assert told["params"]["requestId"] == asked["id"]


async def test_a_caller_that_is_cancelled_is_told_to_the_remote_and_stays_cancelled():
    ends = Ends()
    call = ends.ask()
    await ends.wire.until(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await ends.wire.until(2))[1]["method"] == "notifications/cancelled"


async def test_an_answer_after_the_cancellation_is_a_stray():
    ends = Ends()
    await ends.ask(0.05)
    ends.answer(1, {})
    assert ends.channel.strays == 1


async def test_a_handshake_is_never_cancelled():
    ends = Ends()
    await ends.ask(0.05, "initialize")
    await asyncio.sleep(0)
    assert [message["method"] for message in ends.wire.sent] == ["initialize"]


async def test_a_broken_wire_fails_everything_in_flight_and_tells_the_listener_once():
    ends = Ends()
    calls = [ends.ask(60) for _ in range(3)]
    await ends.wire.until(3)
    ends.channel.broke(BROKEN)
    ends.channel.broke(Failure(Fault.INVALID, "answer", "again"))
    assert await asyncio.gather(*calls) == [BROKEN] * 3
    assert ends.heard.losses == [BROKEN]
    assert not ends.channel.usable
    assert len(ends.wire.sent) == 3, "nobody is told of a cancellation where nobody listens"


async def test_a_request_after_the_end_was_provably_not_sent():
    ends = Ends()
    ends.channel.broke(BROKEN)
    assert (await ends.ask()).fault is Fault.NOT_SENT
    assert ends.wire.sent == []


async def test_a_wire_that_refuses_a_message_fails_that_request_alone():
    ends = Ends()
    waiting = ends.ask()
    await ends.wire.until(1)
    ends.wire.failure = Failure(Fault.NOT_SENT, "send", "full")
    assert await ends.ask() == ends.wire.failure
    ends.answer(1, {})
    assert isinstance(await waiting, Answer)
    assert ends.channel.usable


async def test_closing_fails_what_is_in_flight_closes_the_wire_and_is_no_loss():
    ends = Ends()
    call = ends.ask(60)
    await ends.wire.until(1)
    await ends.channel.close()
    assert (await call).fault is Fault.BROKEN
    assert (ends.wire.closed, ends.heard.losses) == (1, [])
    assert not ends.channel._tasks


async def test_progress_goes_to_the_caller_whose_number_it_names():
    ends = Ends()
    heard: dict[int, list[Any]] = {1: [], 2: []}
    for number in heard:
        ends.ask(
            progress_token=Raw(b'"t%d"' % number), notify=lambda _, raw, to=number: heard[to].append(json.loads(raw))
        )
    await ends.wire.until(2)
    for token in (2, 1, 99, "1"):
        ends.say(method="notifications/progress", params={"progressToken": token, "progress": 5})
    assert heard == {n: [{"progressToken": f"t{n}", "progress": 5}] for n in (1, 2)}
    await ends.channel.close()


@pytest.mark.parametrize(("open_calls", "told"), [(1, 1), (2, 0)])
async def test_a_log_message_has_an_owner_only_when_exactly_one_call_is_open(open_calls, told):
    ends, heard = Ends(), []
    for _ in range(open_calls):
        ends.ask(notify=lambda method, raw: heard.append(method))
    await ends.wire.until(open_calls)
    ends.say(method="notifications/message", params={"level": "info", "data": "x"})
    assert heard == ["notifications/message"] * told
    await ends.channel.close()


async def test_a_log_message_without_any_call_is_nobodys():
    Ends().say(method="notifications/message", params={"level": "info"})


@pytest.mark.parametrize("kind", ["tools", "prompts", "resources"])
async def test_a_changed_list_is_told_to_the_listener(kind):
    ends = Ends()
    ends.say(method=f"notifications/{kind}/list_changed")
    assert ends.heard.changes == [kind]


async def test_a_notification_nobody_knows_is_nobodys_business():
    ends = Ends()
    ends.say(method="notifications/vendor", params={"a": 1})
    assert (ends.heard.changes, ends.channel.strays) == ([], 0)


async def test_the_log_level_of_a_channel_goes_down_to_the_most_talkative_caller_and_stays():
    ends = Ends(capabilities=b'{"logging":{}}')

    async def asked(level: str) -> list[str]:
        before = len(ends.wire.sent)
        call = ends.ask(log_level=level)
        while not call.done():
            await asyncio.sleep(0)
            for message in ends.wire.sent[before:]:
                ends.answer(message["id"], {})
        return [message["method"] for message in ends.wire.sent[before:]]

    assert await asked("warning") == ["logging/setLevel", "tools/call"]
    assert await asked("error") == ["tools/call"]
    assert await asked("debug") == ["logging/setLevel", "tools/call"]


@pytest.mark.parametrize(("modern", "capabilities"), [(True, b'{"logging":{}}'), (False, b"{}")])
async def test_a_remote_that_has_no_log_level_to_set_is_not_asked_to(modern, capabilities):
    ends = Ends(modern=modern, capabilities=capabilities)
    call = ends.ask(log_level="debug")
    assert [message["method"] for message in await ends.wire.until(1)] == ["tools/call"]
    ends.answer(1, {})
    await call
