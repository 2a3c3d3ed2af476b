"""Every real client, in every mode it has, uses every kind of remote through one URL with one key.

Each test is one promise for all of them. Which remote a client meets in a test goes round, so that each era of client
meets each era and transport of remote; all combinations of one client are in test_remotes_through_gateway.py.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import cycle
from typing import Any

import pytest

from tests.system.conftest import World
from tests.system.gateway import eventually
from tests.system.tools import CLIENTS_AND_MODES, arguments, visit

PIXEL = (  # what the peers' tool `image` answers
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VERSIONS = {"modern": "2026-07-28", "auto": "2026-07-28", "session": "2025-11-25", "sse": "2025-11-25"}
# `auto` becomes `modern` with the first answer. The inspector's command line shows neither progress nor log messages, and
# cannot cancel or complete.
ABLE = [pair for pair in CLIENTS_AND_MODES if pair[0] != "inspector" and pair[1] != "auto"]
SAME_OFFER = ("local", "both", "events", "old")  # four transports and eras of one offer
WITH_EACH = [(*pair, remote) for pair, remote in zip(ABLE, cycle(SAME_OFFER))]
WITHOUT_LEVEL = [("fastmcp4", "modern")]  # asks for "debug" whatever its user says
# After its 401 the bridge looks for a place to sign in, and tells of the 404 that it finds instead.
TOLD_STATUS = {"mcp_remote": 404}

ALONE = {
    "demo": {"add", "ask", "big", "echo", "fail", "slow"},
    "time": {"get_current_time", "convert_time"},
    "fetch": {"fetch"},
}


@pytest.fixture(scope="module")
def offered(world: World) -> dict[str, dict[str, list[str]]]:
    """What each remote offers to a client that meets it directly."""
    seen = {
        name: visit("sdk2", url, "", mode="sse" if url.endswith("/sse") else "auto")
        for name, url in world.direct.items()
    }
    seen["local"], seen["every-stdio"] = seen["both"], seen["every-http"]
    return seen


@pytest.mark.parametrize(("client", "mode"), CLIENTS_AND_MODES)
def test_a_client_sees_what_every_remote_offers(
    client: str, mode: str, world: World, offered: dict[str, dict[str, list[str]]]
) -> None:
    seen = visit(client, world.gateway.address(mode), world.gateway.key, mode=mode)
    assert seen["ok"], seen
    assert (seen["protocol_version"], seen["server"]["name"]) == (VERSIONS[mode], "MCP-Server")
    tools = {f"{name}__{tool}" for name, theirs in offered.items() for tool in theirs["tools"]}
    tools |= {f"{name}__{tool}" for name, theirs in ALONE.items() for tool in theirs}
    assert set(seen["tools"]) == tools
    assert len(seen["tools"]) == len(tools)
    prompts = {f"{name}__{prompt}" for name, theirs in offered.items() for prompt in theirs["prompts"]}
    assert set(seen["prompts"]) == prompts | {"demo__greet", "fetch__fetch"}
    # A URI stays as it is for the first remote in the file that has it, and carries the remote's name for the others.
    first, others = "local", ("both", "events", "old")
    assert {uri for uri in seen["resources"] if uri.endswith("peer://motd")} == {
        *offered[first]["resources"][:1],
        *(f"{name}+peer://motd" for name in others),
    }
    assert len(seen["resources"]) == 1 + sum(len(theirs["resources"]) for theirs in offered.values())
    assert len(seen["templates"]) == sum(len(theirs["templates"]) for theirs in offered.values())


@pytest.mark.parametrize(("client", "mode"), CLIENTS_AND_MODES)
def test_a_client_calls_gets_reads_and_completes(client: str, mode: str, world: World) -> None:
    options = ["--no-lists", *calls(old__add={"a": 1, "b": 2}, events__image={}, both__link={}, demo__fail={})]
    options += ["--prompt", "old__greet", "--prompt-args", '{"name": "Ann"}', "--read", "events+peer://motd"]
    if client != "inspector":
        options += ["--complete", "both__greet", "style", "pi"]
    seen = visit(client, world.gateway.address(mode), world.gateway.key, *options, mode=mode)
    assert seen["ok"], seen
    assert (seen["call"]["content"], seen["call"]["structuredContent"]) == (text("3.0"), {"result": 3})
    picture, links, failed = seen["also"]
    assert picture["content"] == [{"type": "image", "mimeType": "image/png", "data": PIXEL}]
    assert links["content"] == [  # under the URIs that this client can read
        {"type": "resource_link", "uri": "both+peer://motd", "name": "motd"},
        {"type": "resource", "resource": {"uri": "both+peer://city/Paris", "mimeType": "text/plain", "text": "Paris"}},
    ]
    assert (failed["content"], failed["isError"]) == (text("Error executing tool fail: as you wished"), True)
    assert seen["prompt"]["messages"][0]["content"]["text"] == "Greet Ann in a plain way."
    assert seen["read"]["contents"][0]["text"] == "Real peers, real sockets."
    assert client == "inspector" or seen["complete"]["completion"]["values"] == ["pirate"]


@pytest.mark.parametrize(("client", "mode"), CLIENTS_AND_MODES)
def test_a_client_with_the_other_header_uses_real_servers_and_templates(client: str, mode: str, world: World) -> None:
    options = ["--no-lists", "--header", "x-api-key", "--read", "old+peer://city/Rome"]
    options += calls(
        time__get_current_time={"timezone": "Asia/Tokyo"},
        fetch__fetch={"url": world.page},
        **{f"every-{how}__echo": {"message": "hi"} for how in ("stdio", "sse", "http")},
    )
    if client != "inspector":
        options += ["--complete", "old+peer://city/{name}", "name", "pa"]
    seen = visit(client, world.gateway.address(mode), world.gateway.keys[1], *options, mode=mode)
    assert seen["ok"], seen
    assert json.loads(seen["call"]["content"][0]["text"])["timezone"] == "Asia/Tokyo"
    fetched, *echoed = seen["also"]
    assert "a page of this machine" in fetched["content"][0]["text"]
    assert [one["content"] for one in echoed] == [text("Echo: hi")] * 3
    assert seen["read"]["contents"][0]["text"] == "Rome is a city."
    assert client == "inspector" or seen["complete"]["completion"]["values"] == ["Paris"]


@pytest.mark.edge(15)
@pytest.mark.parametrize(("client", "mode", "remote"), WITH_EACH)
def test_progress_arrives_where_it_was_asked_for(client: str, mode: str, remote: str, world: World) -> None:
    """Two of the same client at once: their tokens are the same, their progress is not."""

    def slow(steps: int) -> dict[str, Any]:
        options = ["--no-lists", "--call", f"{remote}__slow", *arguments(n=steps, seconds=0.4)]
        return visit(client, world.gateway.address(mode), world.gateway.key, *options, mode=mode)

    with ThreadPoolExecutor(2) as both:
        for steps, seen in zip((2, 4), both.map(slow, (2, 4)), strict=True):
            assert seen["ok"], seen
            assert seen["call"]["content"] == text(f"{steps} steps")
            assert [step["message"] for step in seen["progress"]] == [f"step {n}" for n in range(1, steps + 1)]


@pytest.mark.parametrize(("client", "mode", "remote"), WITH_EACH)
def test_log_messages_arrive_from_the_level_that_was_asked_for(
    client: str, mode: str, remote: str, world: World
) -> None:
    def log(asked_for: str) -> list[dict[str, Any]]:
        options = [
            "--no-lists",
            "--log-level",
            asked_for,
            "--call",
            f"{remote}__log",
            *arguments(level="warning", count=2),
        ]
        seen = visit(client, world.gateway.address(mode), world.gateway.key, *options, mode=mode)
        assert seen["ok"], seen
        logs: list[dict[str, Any]] = seen["logs"]
        return logs

    assert log("info") == [{"level": "warning", "logger": "peer", "data": f"hello {n}"} for n in range(2)]
    assert log("error") == [] or (client, mode) in WITHOUT_LEVEL


@pytest.mark.parametrize(("client", "mode", "remote"), WITH_EACH)
def test_cancelling_reaches_the_right_remote_and_no_other_call(
    client: str, mode: str, remote: str, world: World
) -> None:
    elsewhere = SAME_OFFER[SAME_OFFER.index(remote) - 1]
    tag = f"{client}-{mode}"
    with ThreadPoolExecutor(2) as bystanders:
        others = [
            bystanders.submit(bystander, world, f"{place}__cancellable", f"{tag}-beside-{place}")
            for place in (remote, elsewhere)
        ]
        for place in (remote, elsewhere):
            eventually(
                partial(world.events, f"{tag}-beside-{place}"),
                bool,
                within_s=10,
                what="a call beside it began",
            )
        options = ["--no-lists", "--cancel-after", "0.3", "--call", f"{remote}__cancellable", *arguments(tag=tag)]
        seen = visit(client, world.gateway.address(mode), world.gateway.key, *options, mode=mode)
        assert (seen["ok"], seen["cancelled"], seen["call"]) == (True, True, None), seen
        eventually(
            lambda: world.events(tag),
            lambda events: events[1:] == ["cancelled"],
            within_s=5,
            what="the remote was told",
        )
        for place, other in zip((remote, elsewhere), others, strict=True):
            assert finished(other) == "waited 2.0 s"
            assert world.events(f"{tag}-beside-{place}") == ["started", "finished"]


def bystander(world: World, tool: str, tag: str) -> dict[str, Any]:
    options = ["--no-lists", "--call", tool, *arguments(tag=tag, seconds=2.0)]
    return visit("node-sdk1", world.gateway.address("session"), world.gateway.keys[1], *options, mode="session")


def finished(call: Future[dict[str, Any]]) -> str:
    text: str = call.result()["call"]["content"][0]["text"]
    return text


@pytest.mark.parametrize(("client", "mode"), CLIENTS_AND_MODES)
def test_a_wrong_key_is_refused_and_the_client_says_so(client: str, mode: str, world: World) -> None:
    seen = visit(client, world.gateway.address(mode), "mcp_wrong", "--no-lists", mode=mode, timeout_s=10)
    assert (seen["ok"], seen["status"]) == (False, TOLD_STATUS.get(client, 401)), seen


def calls(**tools: dict[str, Any]) -> list[str]:
    """Options that call each of these tools with these arguments."""
    (name, given), *others = tools.items()
    options = ["--call", name, *arguments(**given)]
    for other, theirs in others:
        options += ["--also", json.dumps({"name": other, "arguments": theirs})]
    return options


def text(words: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": words}]
