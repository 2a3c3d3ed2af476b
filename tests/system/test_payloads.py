"""Remotes that answer with far too much, in front of a real gateway: what its worker's memory does, what a neighbour notices."""

import concurrent.futures
import contextlib
import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.system.gateway import Gateway, eventually, running
from tests.system.watch import Watch, worker

MIB = 1024 * 1024
SERVER = str(Path(peers.__file__).with_name("heavy_server.py"))
MODERN = "2026-07-28"
NEIGHBOUR_S, MEMORY_MIB, UNREAD_MEMORY_MIB = 2.0, 200, 300


@pytest.fixture(scope="module")
def gw() -> Iterator[Gateway]:
    with contextlib.ExitStack() as stack:
        remotes: dict[str, dict[str, Any]] = {
            "calm": {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(Path(SERVER).parents[2])},
            "io": {"command": sys.executable, "args": [SERVER, "--transport", "stdio"], "timeout": 8},
        }
        for name in ("http", "http-sse", "sse"):
            peer = stack.enter_context(peers.running([sys.executable, SERVER, "--transport", name]))
            remotes[name] = {"url": peer.url, "timeout": 8} | ({"type": "sse"} if name == "sse" else {})
        gateway = stack.enter_context(running(remotes))
        eventually(
            gateway.remotes,
            lambda found: all(found.get(name, {}).get("status") == "healthy" for name in remotes),
            within_s=20,
            what="all healthy",
        )
        yield gateway


def post(gateway: Gateway, name: str, **arguments: Any) -> http.client.HTTPConnection:
    """Send one tools/call; the answer is left unread."""
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"name": name, "arguments": arguments, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=60)
    headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
    headers |= {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN}
    connection.request("POST", "/mcp", body, headers | {"Mcp-Method": "tools/call", "Mcp-Name": name})
    return connection


def call(gateway: Gateway, name: str, **arguments: Any) -> dict[str, Any]:
    with contextlib.closing(post(gateway, name, **arguments)) as connection:
        raw = connection.getresponse().read()
    result: dict[str, Any] = json.loads(raw)["result"]
    return result


def watch(gateway: Gateway) -> Watch:
    return Watch(worker(gateway.process.pid), lambda: call(gateway, "calm__echo", text="x"))


@pytest.mark.edge(14)
@pytest.mark.edge(16)
@pytest.mark.parametrize("tool", ["text", "endless"])
@pytest.mark.parametrize("remote", ["http", "http-sse", "sse", "io"])
def test_an_answer_that_is_far_too_large_costs_little_memory_and_no_neighbour(
    gw: Gateway, remote: str, tool: str
) -> None:
    with watch(gw) as watched:
        result = call(gw, f"{remote}__{tool}", bytes=200 * MIB)
    assert result["isError"] is True
    said = result["content"][0]["text"]
    assert "more than 20971520 bytes" in said or "did not answer within 8 s" in said, said
    assert watched.more_mib < MEMORY_MIB
    assert watched.slowest_s < NEIGHBOUR_S
    assert call(gw, f"{remote}__echo")["content"][0]["text"] == "echo", "the remote serves the next call"


@pytest.mark.edge(14)
def test_a_gigabyte_packed_into_a_megabyte_is_never_unpacked(gw: Gateway) -> None:
    with watch(gw) as watched:
        result = call(gw, "http__gzip", bytes=1024 * MIB)
    assert "more than 20971520 bytes" in result["content"][0]["text"]
    assert watched.more_mib < MEMORY_MIB
    assert watched.slowest_s < NEIGHBOUR_S


@pytest.mark.edge(14)
@pytest.mark.parametrize("remote", ["http", "http-sse", "sse", "io"])
def test_what_fits_twice_is_cut_and_what_fits_is_whole(gw: Gateway, remote: str) -> None:
    whole = call(gw, f"{remote}__text", bytes=10 * MIB - 64 * 1024)
    assert [len(block["text"]) for block in whole["content"]] == [10 * MIB - 64 * 1024]
    with watch(gw) as watched:
        cut = call(gw, f"{remote}__text", bytes=19 * MIB)
    assert 10 * MIB - 8192 < len(cut["content"][0]["text"]) < 10 * MIB
    assert cut["_meta"]["mcp-server.gateway/cut"]["originalBytes"] > 19 * MIB
    assert watched.more_mib < MEMORY_MIB
    assert watched.slowest_s < NEIGHBOUR_S


@pytest.mark.edge(10)
@pytest.mark.edge(14)
def test_ten_large_answers_that_nobody_reads_hold_no_more_than_the_budget(gw: Gateway) -> None:
    with watch(gw) as watched, contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.callback(post(gw, "http__text", bytes=9 * MIB).close)
        payloads = eventually(
            lambda: gw.command("mcpstatus")["payloads"],
            lambda found: found["bytes"] > 40 * MIB and found["waiting"] > 0,
            within_s=20,
            what="answers wait for memory",
        )
        assert payloads["bytes"] <= (128 + 20) * MIB
    assert watched.more_mib < UNREAD_MEMORY_MIB
    assert watched.slowest_s < NEIGHBOUR_S
    eventually(
        lambda: gw.command("mcpstatus")["payloads"],
        lambda found: (found["bytes"], found["waiting"]) == (0, 0),
        within_s=20,
        what="the memory is given back",
    )


@pytest.mark.edge(14)
def test_twelve_large_answers_at_once_all_arrive(gw: Gateway) -> None:
    """More than the budget together: some wait for others, none is refused."""
    with watch(gw) as watched, concurrent.futures.ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(call, gw, "http__text", bytes=9 * MIB) for _ in range(12)]
        assert [len(one.result()["content"][0]["text"]) for one in calls] == [9 * MIB] * 12
    assert watched.more_mib < UNREAD_MEMORY_MIB
    assert watched.slowest_s < NEIGHBOUR_S
