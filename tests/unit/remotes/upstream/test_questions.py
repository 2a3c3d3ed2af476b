"""Whose a remote's question is, and what asking it does to the deadline of the call."""

import asyncio
import json

import pytest
from msgspec import Raw

from mcpserver.protocol import jsonrpc
from remotes.upstream import questions
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer

ELICIT = jsonrpc.Request(b'"q"', "elicitation/create", b"{}")


def call(method: str = "tools/call", *, ask=None, deadline: float = 0) -> Exchange:
    return Exchange(method, {"name": Raw(b'"t"')}, deadline=deadline, ask=ask)


async def yes(method: str, params: bytes | None) -> Answer:
    return Answer(b'{"action":"accept"}', False)


def test_a_question_belongs_to_the_one_call_that_is_open():
    one = call(ask=yes)
    assert questions.whose(ELICIT, [one, call("tools/list")]) is one


@pytest.mark.parametrize(
    "open_requests",
    [[], [call()], [call(ask=yes), call(ask=yes)], [call(ask=yes), call()], [call("tools/list", ask=yes)]],
    ids=["none", "one that cannot be asked", "two", "two of which one can be asked", "no call"],
)
def test_a_question_that_may_be_anothers_is_nobodys(open_requests):
    assert questions.whose(ELICIT, open_requests) is None


async def test_a_caller_that_cannot_be_asked_declines():
    said = json.loads(await questions.put(call(), ELICIT))
    assert (said["id"], said["error"]["code"]) == ("q", -32601)


async def test_the_time_of_an_answer_does_not_count_and_what_was_left_of_the_deadline_does():
    loop = asyncio.get_running_loop()

    async def slow(method: str, params: bytes | None) -> Answer:
        await asyncio.sleep(0.3)
        return await yes(method, params)

    one = call(ask=slow, deadline=loop.time() + 0.2)
    replies = []

    async def asked_and_then_silent() -> None:
        async with asyncio.timeout_at(one.deadline) as one.timer:
            replies.append(json.loads(await questions.put(one, ELICIT)))
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await asked_and_then_silent()
    assert [reply["result"] for reply in replies] == [{"action": "accept"}]


async def test_a_call_that_ends_before_its_question_is_answered_harms_nobody():
    answered = asyncio.Event()

    async def late(method: str, params: bytes | None) -> Answer:
        await answered.wait()
        return await yes(method, params)

    loop = asyncio.get_running_loop()
    one = call(ask=late, deadline=loop.time() + 5)
    async with asyncio.timeout_at(one.deadline) as one.timer:
        asking = asyncio.create_task(questions.put(one, ELICIT))
        await asyncio.sleep(0)
    answered.set()
    assert json.loads(await asking)["result"] == {"action": "accept"}


async def test_a_question_to_a_call_that_has_ended_already_is_answered_all_the_same():
    loop = asyncio.get_running_loop()
    one = call(ask=yes, deadline=loop.time() + 5)
    async with asyncio.timeout_at(one.deadline) as one.timer:
        pass
    assert json.loads(await questions.put(one, ELICIT))["id"] == "q"
