"""`kill -9` of any process of the gateway: nobody is left behind, and what was lost is there again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import psutil
import pytest

from tests.component.real_gateway import Client, until
from tests.system import clinging, gateway, servers
from tests.system.family import ended, family
from tests.system.nodes import Node, installed

pytestmark = pytest.mark.edge(17)

REMOTES = {"meek": clinging.entry("wrapped"), "stubborn": clinging.entry("wrapped", "stubborn")}


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Node, Client]]:
    """Two workers and Celery in front of wrapped programs, each of which one of the two workers runs for both."""
    with servers.redis() as redis, installed(REMOTES, MCP_WORKERS="2", REDIS_URL=redis.url) as (node, client):
        node.start()
        yield node, client


def is_answered(client: Client, name: str) -> bool:
    reply = client.modern("tools/call", {"name": f"{name}__echo", "arguments": {}})
    return reply.status == 200 and "result" in reply.json and not reply.result.get("isError")


def is_whole(node: Node) -> bool:
    return {child["state"] for child in node.supervision()["children"].values()} == {"ready"}


def strays(node: Node) -> dict[int, str]:
    """Whom no child of the supervisor answers for."""
    posts = [psutil.Process(child["pid"]) for child in node.supervision()["children"].values()]
    known = {each.pid for post in posts for each in (post, *post.children(recursive=True))}
    return {pid: line for pid, line in family(node.folder).items() if pid not in {*known, node.pids["supervisor"]}}


def programs(node: Node) -> dict[str, psutil.Process]:
    """The stubborn remote's: the wrapper that a worker started, and the program inside it."""
    found = [psutil.Process(pid) for pid, line in family(node.folder).items() if line.endswith("stubborn")]
    (wrapper,) = [each for each in found if each.cmdline()[-2:] == ["wrapped", "stubborn"]]
    (inner,) = wrapper.children()
    return {"wrapper": wrapper, "program": inner}


@pytest.mark.parametrize("victim", ["gateway-0", "gateway-1", "celery", "wrapper", "program"])
def test_what_a_killed_process_had_started_goes_with_it_and_it_comes_back(
    started: tuple[Node, Client], victim: str
) -> None:
    node, client = started
    until(lambda: is_whole(node) and all(is_answered(client, name) for name in REMOTES), within_s=40)
    pids = node.supervision()["pids"]
    process = psutil.Process(pids[victim]) if victim in pids else programs(node)[victim]
    lost = [process, *process.children(recursive=True)]
    process.kill()
    until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in lost))
    until(lambda: process.pid not in node.supervision()["pids"].values())
    until(lambda: is_whole(node) and all(is_answered(client, name) for name in REMOTES), within_s=40)
    until(lambda: not strays(node))


def test_a_killed_supervisor_takes_everyone_along_and_start_works_at_once(started: tuple[Node, Client]) -> None:
    """Though a call runs on in a worker that was left alone, and another worker is slow to let go of the port."""
    node, client = started
    until(lambda: is_whole(node) and all(is_answered(client, name) for name in REMOTES), within_s=40)
    before = family(node.folder)
    hold = client.post_only("POST", "/mcp", *client.modern_request("tools/call", {"name": "meek__hold"}))
    until(lambda: sum(node.status(worker)["in_flight"] for worker in (0, 1)))
    slow = node.supervision()["pids"]["gateway-0"]
    os.kill(slow, signal.SIGSTOP)
    os.kill(node.pids["supervisor"], signal.SIGKILL)
    threading.Timer(3, os.kill, (slow, signal.SIGCONT)).start()
    node.start()
    assert is_whole(node)
    assert all(is_answered(client, name) for name in REMOTES)
    assert hold.getresponse().status == 503
    until(lambda: not before.keys() & family(node.folder).keys())
    assert gateway.manage(node.environment, "mcpserver", "stop")["ok"]
    ended(node.folder, within_s=2)
