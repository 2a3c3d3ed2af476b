"""Bad remotes behind a real gateway, all at once, over every transport and era: what each does to its callers and to a neighbour.

The whole story is played once: all remotes are well, all fall ill, each is called until its circuit opens, all are mended.
"""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mcpserver.lib import control
from tests.component import real_gateway
from tests.component.real_gateway import Client, Gateway, until
from tests.system.faulty import Background, Peer, Process

TIMEOUT_S = 1.0
OPEN_S = 3.0
NUMBERS = {
    "timeout": TIMEOUT_S,
    "connect_timeout": TIMEOUT_S,
    "list_timeout": TIMEOUT_S,
    "breaker": {"failures": 3, "window": 60, "open": OPEN_S},
}
CASES = [
    ("modern", "hang"),
    ("legacy", "hang"),
    ("sse", "hang"),
    ("stdio", "hang"),
    ("modern", "reset"),
    ("legacy", "reset"),
    ("sse", "reset"),
    ("stdio", "reset"),
    ("modern", "500"),
    ("legacy", "html"),
    ("modern", "refuse"),
    ("legacy", "refuse"),
    ("modern", "backlog"),
    ("modern", "mute"),
    ("legacy", "mute"),
]
every_case = pytest.mark.parametrize("case", CASES, ids="-".join)


@dataclass
class Seen:
    """What was seen of one case. Times in seconds."""

    calls: list[tuple[str, float]] = field(default_factory=list)
    executed: int = 0
    status: dict[str, Any] = field(default_factory=dict)
    refused: tuple[str, float] = ("", 0.0)
    executed_by_refusal: int = 0
    back_after_s: float = 0.0
    executed_twice: int = 0
    fault: BaseException | None = None


@dataclass
class Story:
    cases: dict[tuple[str, str], Seen]
    neighbour_s: list[float]
    list_s: list[float]
    health: bytes
    metrics: str


def name_of(case: tuple[str, str]) -> str:
    return "-".join(case)


def called(client: Client, tool: str) -> tuple[str, float]:
    """The words of the error, "" for none, and how long it took."""
    began = time.monotonic()
    result = client.modern("tools/call", {"name": tool, "arguments": {}}).result
    words = result["content"][0]["text"] if result.get("isError") else ""
    return words, time.monotonic() - began


def play(gateway: Gateway, client: Client, case: tuple[str, str], peer: Peer | Process) -> Seen:
    seen, name = Seen(), name_of(case)
    tool = f"{name}__echo"
    before = peer.executed
    peer.be(case[1])
    with ThreadPoolExecutor(3) as pool:
        seen.calls = list(pool.map(lambda _: called(client, tool), range(3)))
    seen.executed = peer.executed - before
    seen.status = gateway.status()["mcps"][name]
    before = peer.executed
    seen.refused = called(client, tool)
    seen.executed_by_refusal = peer.executed - before
    peer.be("")
    mended, before = time.monotonic(), peer.executed
    until(lambda: not called(client, tool)[0], f"{name} is back", within_s=45)
    seen.back_after_s = time.monotonic() - mended
    seen.executed_twice = peer.executed - before - 1
    return seen


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    running = Background()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def story(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder: Path = tmp_path_factory.mktemp("peers")
    peers: dict[tuple[str, str], Peer | Process] = {
        case: Process(folder / name_of(case)) if case[0] == "stdio" else Peer(background, case[0]) for case in CASES
    }
    good = Peer(background, "modern")
    remotes = {name_of(case): peer.entry | NUMBERS for case, peer in peers.items()} | {"good": good.entry}
    with real_gateway.prepared(remotes) as gateway:
        gateway.start().healthy(*remotes)
        yield told(gateway, peers)
    for peer in (*peers.values(), good):
        peer.stop()


def told(gateway: Gateway, peers: dict[tuple[str, str], Peer | Process]) -> Story:
    over = threading.Event()
    neighbour_s: list[float] = []
    list_s: list[float] = []
    with ThreadPoolExecutor(len(CASES) + 1) as pool:
        watching = pool.submit(neighbour, gateway.client("doomed"), over, neighbour_s, list_s)
        clients = [gateway.client("main"), gateway.client("other")]
        playing = {
            case: pool.submit(play, gateway, clients[number % 2], case, peers[case])
            for number, case in enumerate(CASES)
        }
        time.sleep(TIMEOUT_S + 1)  # in the middle of it
        health = page(gateway, "health")
        metrics = page(gateway, "metrics").decode()
        cases = {
            case: ended.result() if not ended.exception() else Seen(fault=ended.exception())
            for case, ended in playing.items()
        }
        over.set()
        watching.result()
    return Story(cases, neighbour_s, list_s, health, metrics)


def page(gateway: Gateway, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/{path}", timeout=5) as answer:
        body: bytes = answer.read()
        return body


def neighbour(client: Client, over: threading.Event, neighbour_s: list[float], list_s: list[float]) -> None:
    while not over.wait(0.02):
        words, took_s = called(client, "good__echo")
        assert not words, words
        neighbour_s.append(took_s)
        began = time.monotonic()
        names = {tool["name"] for tool in client.modern("tools/list").result["tools"]}
        list_s.append(time.monotonic() - began)
        assert names == {"good__echo", *(f"{name_of(case)}__echo" for case in CASES)}, "they stay listed"


@pytest.mark.edge(1)
@every_case
def test_its_callers_are_told_so_in_time(story: Story, case: tuple[str, str]) -> None:
    seen = story.cases[case]
    assert seen.fault is None
    for words, took_s in seen.calls:
        assert name_of(case) in words
        assert not any(leak in words for leak in ("Traceback", "/tmp", "127.0.0.1")), words
        assert took_s < 2 * TIMEOUT_S + 1


@pytest.mark.edge(1)
@every_case
def test_it_executes_each_call_at_most_once(story: Story, case: tuple[str, str]) -> None:
    seen = story.cases[case]
    unreached = case[1] in ("refuse", "backlog", "mute")
    assert seen.executed <= (0 if unreached else 3), "a process that dies takes the others' calls with it unread"
    assert unreached or seen.executed
    assert seen.executed_twice == 0


@pytest.mark.edge(1)
@every_case
def test_it_is_degraded_and_refused_at_once_with_nothing_sent(story: Story, case: tuple[str, str]) -> None:
    seen = story.cases[case]
    assert (seen.status["status"], seen.status["circuit"]["state"]) == ("degraded", "open")
    assert 0 < seen.status["circuit"]["next_try_s"] <= OPEN_S
    words, took_s = seen.refused
    assert "is degraded" in words
    assert "next try in" in words
    assert took_s < 1
    assert seen.executed_by_refusal == 0


@pytest.mark.edge(1)
@every_case
def test_it_is_used_again_within_45_seconds_of_being_mended(story: Story, case: tuple[str, str]) -> None:
    assert 0 < story.cases[case].back_after_s < 45


@pytest.mark.edge(1)
@pytest.mark.edge(15)
def test_its_neighbour_and_the_lists_are_served_all_the_while(story: Story) -> None:
    assert len(story.neighbour_s) > 20
    assert max(story.neighbour_s) < 1
    assert max(story.list_s) < 1


@pytest.mark.edge(18)
def test_health_and_metrics_tell_of_it(story: Story) -> None:
    assert b'"circuits":{' in story.health.replace(b" ", b"")
    assert b"degraded" in story.health
    for series in ("mcp_circuit_state", "mcp_circuit_opened_total", "mcp_circuit_refused_total"):
        assert f'{series}{{remote="modern-500"}}' in story.metrics


@pytest.mark.edge(1)
def test_two_workers_on_one_database_know_of_each_others_circuits(background: Background) -> None:
    peer = Peer(background, "modern")
    with real_gateway.prepared({"bad": peer.entry | NUMBERS}) as first:
        second = sibling(first)
        try:
            first.start().healthy("bad")
            second.start()
            until(lambda: known_to(second) == "healthy")
            peer.be("500")
            for _ in range(3):
                called(first.client(), "bad__echo")
            until(lambda: known_to(second) == "degraded", "the second knows", within_s=4)
            assert "is degraded" in called(second.client(), "bad__echo")[0]
            assert peer.executed == 3
            time.sleep(OPEN_S)
            with ThreadPoolExecutor(10) as pool:
                clients = [first.client(), second.client()] * 5
                words = list(pool.map(lambda client: called(client, "bad__echo")[0], clients))
            assert peer.executed == 4, "one try between them"
            assert sum("HTTP 500" in one and "degraded" not in one for one in words) == 1
            peer.be("")
            assert first.command("mcp", "remote", "reset", "bad")["circuit"]["state"] == "closed"
            until(lambda: not called(second.client(), "bad__echo")[0], "closed everywhere", within_s=4)
        finally:
            if second.process is not None:
                second.process.terminate()
                second.process.wait(20)
    peer.stop()


def known_to(second: Gateway) -> str:
    status = control.ask(Path(second.environment["MCP_RUN_DIR"]) / "gateway-0.sock", {"op": "status"})
    word: str = status["mcps"]["bad"]["status"]
    return word


def sibling(first: Gateway) -> Gateway:
    """Another worker: the same database and configuration, a run folder of its own."""
    second = Gateway(first.folder, first.keys, first.remotes)
    (first.folder / "run2").mkdir()
    second.environment = first.environment | {"MCP_RUN_DIR": str(first.folder / "run2")}
    return second


@pytest.mark.edge(15)
def test_fifty_slow_calls_of_one_key_end_soon_and_a_neighbour_is_served(background: Background) -> None:
    slow = Peer(background, "modern")
    slow_s = 2.0

    async def slowly(request: Any, wire: Any) -> None:
        await asyncio.sleep(slow_s)
        await wire.result(request, {"content": [], "resultType": "complete"})

    slow._answer = slowly  # type: ignore[method-assign]
    good = Peer(background, "modern")
    with real_gateway.prepared({"slow": slow.entry, "good": good.entry}) as gateway:
        gateway.start().healthy("slow", "good")
        clients = [gateway.client("main")] * 50
        times: list[float] = []
        with ThreadPoolExecutor(51) as pool:
            began = time.monotonic()
            calls = [pool.submit(called, client, "slow__echo") for client in clients]
            while not all(one.done() for one in calls):
                words, took_s = called(gateway.client("other"), "good__echo")
                assert not words
                times.append(took_s)
                time.sleep(0.02)
            took_s = time.monotonic() - began
        assert [one.result()[0] for one in calls] == [""] * 50
        assert slow.executed == 50
        assert took_s < 10
        assert len(times) > 10
        assert sorted(times)[len(times) * 95 // 100] < 1
    for peer in (slow, good):
        peer.stop()
