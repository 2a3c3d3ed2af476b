"""Every real client, in every mode it has, uses every kind of remote through one URL with one key.

Each test is one promise for all of them. Which remote a client meets in a test goes round, so that each era of client
meets each era and transport of remote; all combinations of one client are in test_remotes_through_gateway.py.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import Any

import pytest

from tests.system.conftest import World
from tests.system.gateway import eventually
from tests.system.tools import CLIENTS_AND_MODES, arguments, visit

VERSIONS = {"modern": "2026-07-28", "auto": "2026-07-28", "session": "2025-11-25", "sse": "2025-11-25"}
# The inspector's command line shows neither progress nor log messages, and cannot cancel or complete.
ABLE = [pair for pair in CLIENTS_AND_MODES if pair[0] != "inspector"]
SAME_OFFER = ("local", "both", "events", "old")  # four transports and eras of one offer
WITH_EACH = [(*pair, remote) for pair, remote in zip(ABLE, cycle(SAME_OFFER))]

DEMO = {"add", "ask", "big", "echo", "fail", "slow"}
ALONE = {"demo": DEMO, "time": {"get_current_time", "convert_time"}, "fetch": {"fetch"}}

TEXT = {"type": "text", "text": "Echo: hi"}
# What a tool of which remote answers, as far as it must be the same for every client.
RESULTS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = {
    "old__add": ({"a": 1, "b": 2}, [{"type": "text", "text": "3.0"}], {"structuredContent": {"result": 3}}),
    "both__link": (
        {},
        [
            {"type": "resource_link", "uri": "peer://motd", "name": "motd"},
            {
                "type": "resource",
                "resource": {"uri": "peer://city/Paris", "mimeType": "text/plain", "text": "Paris"},
            },
        ],
        {},
    ),
    "demo__fail": ({"message": "alas"}, [{"type": "text", "text": "Error executing tool fail: alas"}], {"isError": True}),
    "every-stdio__echo": ({"message": "hi"}, [TEXT], {}),
}


@pytest.fixture(scope="module")
def offered(world: World) -> dict[str, dict[str, list[str]]]:
    """What each remote offers to a client that meets it directly."""
    seen = {
        name: visit("sdk2", url, "", mode="sse" if url.endswith("/sse") else "auto") for name, url in world.direct.items()
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
def test_a_client_gets_prompts_resources_templates_and_completions(client: str, mode: str, world: World) -> None:
    options = ["--no-lists", "--prompt", "old__greet", "--prompt-args", '{"name": "Ann"}', "--read", "events+peer://motd"]
    if client != "inspector":
        options += ["--complete", "both__greet", "style", "pi"]
    seen = visit(client, world.gateway.address(mode), world.gateway.key, *options, mode=mode)
    assert seen["ok"], seen
    assert seen["prompt"]["messages"][0]["content"]["text"] == "Greet Ann in a plain way."
    assert seen["read"]["contents"][0]["text"] == "Real peers, real sockets."
    assert client == "inspector" or seen["complete"]["completion"]["values"] == ["pirate"]


@pytest.mark.parametrize(("client", "mode"), CLIENTS_AND_MODES)
def test_a_client_reads_by_a_template_and_completes_it(client: str, mode: str, world: World) -> None:
    options = ["--no-lists", "--read", "old+peer://city/Rome"]
    if client != "inspector":
        options += ["--complete", "old+peer://city/{name}", "name", "pa"]
    seen = visit(client, world.gateway.address(mode), world.gateway.key, *options, mode=mode)
    assert seen["ok"], seen
    assert seen["read"]["contents"][0]["text"] == "Rome is a city."
    assert client == "inspector" or seen["complete"]["completion"]["values"] == ["Paris"]


@pytest.mark.parametrize("tool", RESULTS)
@pytest.mark.parametrize(("client", "mode"), CLIENTS_AND_MODES)
def test_a_result_arrives_as_the_remote_sent_it(client: str, mode: str, tool: str, world: World) -> None:
    given, content, more = RESULTS[tool]
    key = world.gateway.keys[1]
    options = ["--no-lists", "--header", "x-api-key", "--call", tool, *arguments(**given)]
    seen = visit(client, world.gateway.address(mode), key, *options, mode=mode)
    assert seen["ok"], seen
    assert seen["call"]["content"] == content
    assert {name: seen["call"].get(name) for name in more} == more
    assert bool(seen["call"].get("isError")) == ("isError" in more)


@pytest.mark.parametrize(("client", "mode"), CLIENTS_AND_MODES)
def test_a_picture_arrives(client: str, mode: str, world: World) -> None:
    seen = visit(client, world.gateway.address(mode), world.gateway.key, "--no-lists", "--call", "events__image", mode=mode)
    assert seen["ok"], seen
    (picture,) = seen["call"]["content"]
    assert (picture["type"], picture["mimeType"], picture["data"][:11]) == ("image", "image/png", "iVBORw0KGgo")


@pytest.mark.parametrize(("client", "mode", "remote"), WITH_EACH)
def test_progress_arrives_where_it_was_asked_for(client: str, mode: str, remote: str, world: World) -> None:
    """Two of the same client at once: their tokens are the same, their progress is not."""

    def slow(steps: int) -> dict[str, Any]:
        options = ["--no-lists", "--call", f"{remote}__slow", *arguments(n=steps, seconds=0.4)]
        return visit(client, world.gateway.address(mode), world.gateway.key, *options, mode=mode)

    with ThreadPoolExecutor(2) as both:
        for steps, seen in zip((2, 4), both.map(slow, (2, 4))):
            assert seen["ok"], seen
            assert seen["call"]["content"] == [{"type": "text", "text": f"{steps} steps"}]
            assert [step["message"] for step in seen["progress"]] == [f"step {n}" for n in range(1, steps + 1)]


@pytest.mark.parametrize(("client", "mode", "remote"), WITH_EACH)
def test_log_messages_arrive_from_the_level_that_was_asked_for(
    client: str, mode: str, remote: str, world: World
) -> None:
    def log(asked_for: str) -> list[dict[str, Any]]:
        options = ["--no-lists", "--log-level", asked_for, "--call", f"{remote}__log", *arguments(level="warning", count=2)]
        seen = visit(client, world.gateway.address(mode), world.gateway.key, *options, mode=mode)
        assert seen["ok"], seen
        logs: list[dict[str, Any]] = seen["logs"]
        return logs

    assert log("info") == [{"level": "warning", "logger": "peer", "data": f"hello {n}"} for n in range(2)]
    assert log("error") == []


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
                lambda place=place: world.events(f"{tag}-beside-{place}"), bool, within_s=10, what="a call beside it began"
            )
        options = ["--no-lists", "--cancel-after", "0.4", "--call", f"{remote}__cancellable", *arguments(tag=tag)]
        seen = visit(client, world.gateway.address(mode), world.gateway.key, *options, mode=mode)
        assert (seen["ok"], seen["cancelled"], seen["call"]) == (True, True, None), seen
        eventually(
            lambda: world.events(tag), lambda events: events[1:] == ["cancelled"], within_s=5, what="the remote was told"
        )
        for place, other in zip((remote, elsewhere), others):
            assert finished(other) == "waited 2.5 s"
            assert world.events(f"{tag}-beside-{place}") == ["started", "finished"]


def bystander(world: World, tool: str, tag: str) -> dict[str, Any]:
    options = ["--no-lists", "--call", tool, *arguments(tag=tag, seconds=2.5)]
    return visit("node-sdk1", world.gateway.address("session"), world.gateway.keys[1], *options, mode="session")


def finished(call: Future[dict[str, Any]]) -> str:
    text: str = call.result()["call"]["content"][0]["text"]
    return text


@pytest.mark.parametrize("key", ["mcp_wrong", ""], ids=["wrong", "none"])
@pytest.mark.parametrize(("client", "mode"), CLIENTS_AND_MODES)
def test_without_a_good_key_a_client_is_refused_with_401(client: str, mode: str, key: str, world: World) -> None:
    seen = visit(client, world.gateway.address(mode), key, "--no-lists", mode=mode, timeout_s=10)
    assert (seen["ok"], seen["status"]) == (False, 401), seen
