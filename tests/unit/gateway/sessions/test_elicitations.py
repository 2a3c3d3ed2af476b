"""Whom `notifications/elicitation/complete` is for."""

import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.calls import Visit
from gateway.sessions.elicitations import Elicitations
from gateway.sessions.subscriptions import Subscriber
from keys.principal import Principal
from mcpserver.protocol.inbound import Call
from mcpserver.protocol.jsonrpc import ErrorBody
from remotes.config.snapshot import Snapshot
from remotes.upstream.budget import Budget
from remotes.upstream.pool import Pool

QUESTION = b'{"mode":"url","elicitationId":"e1","url":"https://x","message":"m"}'


class Client:
    """A request of a session: what its own stream and the session's were told."""

    def __init__(self, *, remote: str = "one", reads: bool = True, modern: bool = False) -> None:
        self.session: list[Any] = []
        self.call: list[Any] = []
        self.reads = reads
        subscriber = None if modern else Subscriber("k", self.put, lambda: self.reads)
        call = Call(b"1", "tools/call", {}, {}, "2025-11-25")
        principal, snapshot = Principal("k", "k"), Snapshot(1, "", {})
        self.visit = Visit(call, principal, snapshot, lambda method, params: self.call.append((method, params)), {})
        self.visit.remote, self.visit.subscriber = remote, subscriber

    def put(self, message: bytes) -> bool:
        if self.reads:
            self.session.append(json.loads(message))
        return self.reads


@pytest.fixture
def pool() -> Pool:
    return Pool(budget=Budget(8 * (1), read_max_bytes=1))


DONE = {"jsonrpc": "2.0", "method": "notifications/elicitation/complete", "params": {"elicitationId": "e1"}}


def test_only_the_remote_that_asked_can_say_so_and_only_once(pool: Pool) -> None:
    client, elicitations = Client(), Elicitations(pool)
    elicitations.asked(client.visit, QUESTION)
    pool.on_completed("two", "e1")
    pool.on_completed("one", "e2")
    assert client.session == []
    pool.on_completed("one", "e1")
    pool.on_completed("one", "e1")
    assert client.session == [DONE]


def test_without_a_stream_it_goes_to_the_open_call_and_nowhere_once_that_is_answered(pool: Pool) -> None:
    client, elicitations = Client(reads=False), Elicitations(pool)
    elicitations.asked(client.visit, QUESTION)
    pool.on_completed("one", "e1")
    assert client.call == [("notifications/elicitation/complete", b'{"elicitationId":"e1"}')]
    elicitations.asked(client.visit, QUESTION)
    for errand in client.visit.errands:
        errand.notify = None
    pool.on_completed("one", "e1")
    assert len(client.call) == 1


def test_a_client_of_2026_has_no_such_notification(pool: Pool) -> None:
    client, elicitations = Client(modern=True), Elicitations(pool)
    elicitations.asked(client.visit, QUESTION)
    elicitations.required(client.visit, ErrorBody(-32042, "", Raw(b'{"elicitations":[' + QUESTION + b"]}")))
    pool.on_completed("one", "e1")
    assert (client.session, client.call) == ([], [])


def test_errands_that_an_error_requires(pool: Pool) -> None:
    client, elicitations = Client(), Elicitations(pool)
    elicitations.required(client.visit, ErrorBody(-32042, "", Raw(b'{"elicitations":[' + QUESTION + b"]}")))
    pool.on_completed("one", "e1")
    assert client.session == [DONE]


@pytest.mark.parametrize("params", [None, b"{}", b'{"elicitationId":7}', b'["elicitationId"]', b'{"elicitationId":""}'])
def test_a_question_that_names_none_is_not_remembered(pool: Pool, params: bytes | None) -> None:
    client, elicitations = Client(), Elicitations(pool)
    elicitations.asked(client.visit, params)
    assert client.visit.errands == []


@pytest.mark.parametrize("data", [b"{}", b"[]", b'{"elicitations":{}}', b'{"elicitations":[7]}'])
def test_an_error_that_names_none_is_not_remembered(pool: Pool, data: bytes) -> None:
    client, elicitations = Client(), Elicitations(pool)
    elicitations.required(client.visit, ErrorBody(-32042, "", Raw(data)))
    elicitations.required(client.visit, ErrorBody(-32042, ""))
    assert client.visit.errands == []


def test_the_oldest_of_too_many_are_forgotten(pool: Pool) -> None:
    client, elicitations = Client(), Elicitations(pool)
    for number in range(1025):
        elicitations.asked(client.visit, b'{"elicitationId":"n%d"}' % number)
    pool.on_completed("one", "n0")
    assert client.session == []
    pool.on_completed("one", "n1")
    assert len(client.session) == 1
