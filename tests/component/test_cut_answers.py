"""Answers over the limit, through a real gateway whose limit is 64 KiB: what each client gets, and where the rest is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.component.real_gateway import Client, Gateway, prepared, until
from tests.component.saying_peer import LONG

LIMIT = 65_536
PEER = {"command": sys.executable, "args": [str(Path(__file__).with_name("saying_peer.py"))], "era": "2025-11-25"}
FACTS = "mcp-server.gateway/cut"


BAD = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "bad", "version": "1"}}
    if message.get("method") == "tools/list":
        result = {"tools": [{"name": "x", "inputSchema": {"type": "object"}}]}
    if message.get("method") == "tools/call":
        print('{"jsonrpc":"2.0","id":%d,"result":{"x":"<b>\\x1b[2J\\u202e' % message["id"] + "y" * 9000, flush=True)
    elif "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@pytest.fixture(scope="module")
def gw() -> Iterator[Gateway]:
    remotes = {"plain": PEER, "kept": PEER | {"keep_cut_answers": 60}, "brief": PEER | {"keep_cut_answers": 0.05}}
    remotes["bad"] = {"command": sys.executable, "args": ["-c", BAD], "era": "2025-11-25"}
    with prepared(remotes, MCP_MAX_TOOL_RESPONSE_SIZE=str(LIMIT)) as gateway:
        yield gateway.start().healthy(*remotes)


def ask(client: Client, era: str, method: str, params: dict[str, Any]) -> Any:
    """The whole answer to one request of a client of this era, which is at most the limit."""
    if era == "modern":
        reply = client.modern(method, params)
    elif era == "sse":
        with client.relay() as relay:
            return relay.opened().call(method, params)
    else:
        reply = client.session(era).call(method, params)
    assert len(reply.body) <= LIMIT
    return reply.json


def say(client: Client, result: Any, remote: str = "plain", era: str = "modern") -> Any:
    return ask(client, era, "tools/call", {"name": f"{remote}__say", "arguments": {"result": result}})


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.edge(14)
@pytest.mark.parametrize("era", ["modern", "2025-11-25", "2025-06-18", "2025-03-26", "sse"])
def test_text_is_cut_and_the_result_says_so_in_every_revision(gw: Gateway, era: str) -> None:
    content = [text("first"), {"type": "image", "data": "QUJD", "mimeType": "image/png"}, text(LONG)]
    result = say(gw.client(), {"content": content, "structuredContent": {"n": 1}}, era=era)["result"]
    first, image, long, notice = result["content"]
    assert [first, image] == content[:2]
    assert LONG.startswith(long["text"])
    assert len(long["text"].encode()) > LIMIT - 8192
    assert notice["text"].startswith("[This answer is not complete. plain sent ")
    facts = result["_meta"][FACTS]
    assert (facts["cutBlocks"], facts["fromBlock"]) == (1, 2)
    assert facts["originalBytes"] > facts["limitBytes"] > LIMIT - 1024
    has_structure = era in ("modern", "2025-11-25", "2025-06-18")
    assert result.get("structuredContent") == ({"n": 1} if has_structure else None)
    assert ("resultType" in result) == (era == "modern")


@pytest.mark.edge(14)
def test_what_just_fits_is_passed_on_untouched(gw: Gateway) -> None:
    words = "x" * (LIMIT - 1024)
    result = say(gw.client(), {"content": [text(words)]}, era="2025-11-25")["result"]
    assert result == {"content": [text(words)]}


@pytest.mark.edge(14)
@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "image", "data": "A" * 100_000, "mimeType": "image/png"}]},
        {"content": [text(json.dumps({"x": "y"}))], "structuredContent": {"x": "y" * 100_000}},
    ],
)
def test_what_cannot_be_cut_is_an_error_that_says_why(gw: Gateway, result: Any) -> None:
    said = say(gw.client(), result)["result"]
    assert said["isError"] is True
    assert "structuredContent" not in said
    (block,) = said["content"]
    assert "plain answered with 97" in block["text"]
    assert "max_tool_response_size" in block["text"]


@pytest.mark.edge(14)
def test_resources_are_cut_and_prompts_are_not(gw: Gateway) -> None:
    client = gw.client()
    read = ask(client, "2025-11-25", "resources/read", {"uri": "saying://long"})["result"]
    item, notice = read["contents"]
    assert (item["uri"], item["mimeType"]) == ("saying://long", "text/markdown")
    assert LONG.startswith(item["text"])
    assert "not complete" in notice["text"]
    assert read["_meta"][FACTS]["cutBlocks"] == 1
    refused = ask(client, "2025-11-25", "prompts/get", {"name": "plain__long"})["error"]
    assert refused["code"] == -32603
    assert "never cut" in refused["message"]


@pytest.mark.edge(14)
def test_a_large_error_keeps_its_code_and_the_beginning_of_its_words(gw: Gateway) -> None:
    error = {"code": -32007, "message": "no! " * 15_000, "data": "x" * 20_000}
    call = {"name": "plain__say", "arguments": {"error": error}}
    said = ask(gw.client(), "2025-11-25", "tools/call", call)["error"]
    assert said["code"] == -32007
    assert said["message"].startswith("no! no! ")
    assert len(said["message"]) < 5000


def rest_of(client: Client, uri: str, era: str = "modern") -> str:
    """All that was cut off, however often reading it has to be cut again."""
    read = ask(client, era, "resources/read", {"uri": uri})["result"]
    found = read["contents"]
    if FACTS not in read.get("_meta", {}):
        return "".join(item["text"] for item in found)
    return "".join(item["text"] for item in found[:-1]) + rest_of(client, found[-1]["uri"], era)


@pytest.mark.edge(14)
@pytest.mark.parametrize("era", ["modern", "2025-11-25", "2025-03-26", "sse"])
def test_the_rest_of_an_answer_can_be_read_by_the_key_that_called_and_by_no_other(gw: Gateway, era: str) -> None:
    result = say(gw.client(), {"content": [text(LONG)]}, "kept", era)["result"]
    long, notice, *links = result["content"]
    uri = notice["text"].removesuffix("]").rpartition(" ")[2]
    assert uri.startswith("gateway+cut://")
    assert [link["uri"] for link in links] == ([] if era in ("2025-03-26", "sse") else [uri])
    assert long["text"] + rest_of(gw.client(), uri, era) == LONG
    assert gw.client("other").modern("resources/read", {"uri": uri}).json["error"]["message"] == "resource not found"
    assert gw.client().modern("resources/read", {"uri": uri + "x"}).json["error"]["code"] == -32602


@pytest.mark.edge(14)
def test_it_is_kept_no_longer_than_configured(gw: Gateway) -> None:
    result = say(gw.client(), {"content": [text(LONG)]}, "brief")["result"]
    uri = result["content"][2]["uri"]
    until(lambda: "error" in gw.client().modern("resources/read", {"uri": uri}).json, "it is forgotten")


@pytest.mark.edge(16)
@pytest.mark.parametrize("era", ["modern", "2025-11-25", "sse"])
def test_what_is_no_answer_is_told_with_its_cause_and_shown_as_untrusted(gw: Gateway, era: str) -> None:
    result = ask(gw.client(), era, "tools/call", {"name": "bad__x", "arguments": {}})["result"]
    assert result["isError"] is True
    (block,) = result["content"]
    cause, _, shown = block["text"].partition("\n\nWhat it sent instead, unverified:\n")
    assert cause.startswith("bad sent no valid answer: not JSON")
    assert "<b>\\x1b[2J\\u202eyyy" in shown
    assert len(shown) < 4200
