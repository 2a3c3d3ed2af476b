"""What a client is told of a call that was not sent: in words for a model, and when to ask again for a program."""

import json

import pytest

from gateway.calls import answered
from gateway.catalog.listing import Entry
from gateway.endpoint.served import answer_of
from mcpserver.protocol.inbound import Call
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.budget import Budget
from remotes.upstream.client import Upstream
from remotes.upstream.outcome import Failure, Fault

WORDS = "docs is degraded after 5 failed calls: it broke; next try in 12 s"
DEGRADED = Failure(Fault.DEGRADED, "circuit", WORDS, retry_after_s=11.2)
BUSY = Failure(Fault.BUSY, "lease", "32 calls are open and 32 wait", retry_after_s=1.0)


def told(method: str, failure: Failure, revision: str = "2025-11-25"):
    spec = RemoteSpec("docs", "http", url="http://127.0.0.1:1/")
    upstream = Upstream(spec, budget=Budget(8, read_max_bytes=1))
    return answered(Call(b"7", method, {}, {}, revision), Entry("docs", "own", "docs__own", b"{}"), upstream, failure)


@pytest.mark.edge(1)
@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_a_model_reads_which_remote_why_and_when(revision):
    served = told("tools/call", DEGRADED, revision)
    result = json.loads(served.body)["result"]
    assert result["isError"] is True
    assert result["content"] == [{"type": "text", "text": DEGRADED.message}]
    answer = answer_of(served, 200)
    assert (answer.status, dict(answer.headers)[b"retry-after"]) == (200, b"12")


@pytest.mark.edge(1)
async def test_what_is_no_tool_is_a_json_rpc_error():
    served = told("resources/read", DEGRADED)
    assert json.loads(served.body)["error"] == {"code": -32603, "message": DEGRADED.message}
    assert dict(answer_of(served, 200).headers)[b"retry-after"] == b"12"


@pytest.mark.edge(15)
async def test_busy_says_so_and_when_to_come_back():
    served = told("tools/call", BUSY)
    text = json.loads(served.body)["result"]["content"][0]["text"]
    assert text == "docs is busy: 32 calls are open and 32 wait; try again in a moment"
    assert dict(answer_of(served, 200).headers)[b"retry-after"] == b"1"


async def test_an_ordinary_answer_says_nothing_of_asking_again():
    served = told("tools/call", Failure(Fault.BROKEN, "answer", "docs broke"))
    assert b"retry-after" not in dict(answer_of(served, 200).headers)
