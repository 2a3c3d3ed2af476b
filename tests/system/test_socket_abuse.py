"""Raw sockets against a real gateway, by the hundred: what each kind of abuse costs in memory, and what a neighbour notices.

What each is answered is in tests/component/test_serving_abuse.py; here it is only done, as hard as one process can.
"""

from __future__ import annotations

import contextlib
import http.client
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.component.real_gateway import Client, until
from tests.system.gateway import ROOT, Gateway, eventually, running
from tests.system.watch import MIB, Watch, worker

MEMORY_MIB, NEIGHBOUR_S, ABUSED_S = 40, 2.0, 1.0
POST = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
ECHO = {"name": "demo__echo", "arguments": {"text": "x"}}

Abuse = Callable[[list[socket.socket]], None]


@pytest.fixture(scope="module")
def gw() -> Iterator[Gateway]:
    demo = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}
    with running({"demo": demo}) as gateway:
        eventually(gateway.remotes, lambda found: found["demo"]["status"] == "healthy", within_s=20, what="healthy")
        yield gateway


@pytest.fixture(scope="module")
def calm_s(gw: Gateway) -> float:
    """The control: a neighbour's slowest call while nobody abuses anything."""
    client = Client(port(gw), gw.key)
    with Watch(worker(gw.process.pid), lambda: client.modern("tools/call", ECHO).result) as watched:
        while_abusing(lambda: None)
    return watched.slowest_s


def port(gateway: Gateway) -> int:
    return int(gateway.url.rsplit(":", 1)[1])


@contextlib.contextmanager
def crowd(gateway: Gateway, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connected(gateway)) for _ in range(count)]


def connected(gateway: Gateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port(gateway)), 5)


def each(sockets: list[socket.socket], data: bytes) -> None:
    """As much of it as the gateway takes; a refusal in the middle is what is expected."""
    for one in sockets:
        one.setblocking(False)
        with contextlib.suppress(OSError):
            one.send(data)


def dripping(first: bytes, drip: bytes) -> Abuse:
    def abuse(sockets: list[socket.socket]) -> None:
        each(sockets, first)
        while_abusing(lambda: each(sockets, drip))

    return abuse


def pouring(first: bytes, more: bytes) -> Abuse:
    """Without a pause, whatever is answered."""

    def abuse(sockets: list[socket.socket]) -> None:
        each(sockets, first)
        while_abusing(lambda: each(sockets, more), pause_s=0.001)

    return abuse


def while_abusing(work: Callable[[], None], pause_s: float = 0.05) -> None:
    until_s = time.monotonic() + ABUSED_S
    while time.monotonic() < until_s:
        work()
        time.sleep(pause_s)


def reset_at_once(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            one.send(POST + b"Content-Length: 500\r\n\r\n{")
        one.close()


def half_closed(sockets: list[socket.socket]) -> None:
    each(sockets, POST + b"Content-Length: 500\r\n\r\n{")
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_WR)
    while_abusing(lambda: None)


ABUSES: dict[str, tuple[int, Abuse]] = {
    "slow headers": (300, dripping(b"POST /mcp HTTP/1.1\r\n", b"X")),
    "slow body": (300, dripping(POST + b"Content-Length: 1000000\r\n\r\n", b"x")),
    "half requests": (300, dripping(POST + b"Content-Le", b"")),
    "a gigabyte declared": (100, pouring(POST + b"Content-Length: 1073741824\r\n\r\n", bytes(MIB))),
    "a gigabyte dripped": (20, pouring(CHUNKED, b"10000\r\n" + bytes(65536) + b"\r\n")),
    "chunks of one byte": (20, pouring(CHUNKED, b"1\r\nx\r\n" * 2000)),
    "chunks with long extensions": (20, pouring(CHUNKED, (b"1;" + b"e" * 1000 + b"\r\nx\r\n") * 60)),
    "headers without end": (50, pouring(POST, b"X: y\r\n" * 10_000)),
    "a header line without end": (50, pouring(POST + b"X: ", b"y" * 60_000)),
    "a target without end": (50, pouring(b"GET /", b"a" * 60_000)),
    "requests without end, answers unread": (20, pouring(b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 100)),
    "refusals without end, unread": (20, pouring(b"", (POST + b"Content-Length: 2\r\n\r\n{}") * 100)),
    "pipelined garbage": (50, pouring(POST + b"Content-Length: 2\r\n\r\n{}", bytes(range(256)) * 200)),
    "TLS": (300, dripping(bytes.fromhex("160301020001000001fc0303") + bytes(500), b"\x16\x03\x01")),
    "HTTP/2": (200, pouring(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(9))),
    "resets": (400, reset_at_once),
    "half-closed": (300, half_closed),
}


@pytest.mark.edge(14)
@pytest.mark.parametrize("kind", ABUSES)
def test_abuse_costs_little_memory_and_no_neighbour(gw: Gateway, kind: str, calm_s: float) -> None:
    count, abuse = ABUSES[kind]
    process = worker(gw.process.pid)
    client, files = Client(port(gw), gw.key), process.num_fds()
    with Watch(process, lambda: client.modern("tools/call", ECHO).result) as watched, crowd(gw, count) as sockets:
        abuse(sockets)
    assert watched.more_mib < MEMORY_MIB
    assert watched.slowest_s < NEIGHBOUR_S + 2 * calm_s
    assert watched.visits
    until(lambda: process.num_fds() <= files + 3, "its connections are gone")


@pytest.mark.edge(23)
@pytest.mark.parametrize("first", [b"", b"POST /mcp HTTP/1.1\r\nX: "], ids=["silent", "half a head"])
def test_ten_thousand_connections_leave_room_for_whoever_comes_after(gw: Gateway, first: bytes) -> None:
    process, client = worker(gw.process.pid), Client(port(gw), gw.key)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 10_500:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before, files = process.memory_info().rss, process.num_fds()
    known = http.client.HTTPConnection("127.0.0.1", port(gw), timeout=10)
    assert alive(known)
    try:
        with contextlib.closing(known), contextlib.ExitStack() as stack:
            for _ in range(10_000):
                one = stack.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port(gw)))
                with contextlib.suppress(OSError):
                    one.send(first)
            assert alive(known)
            came = time.monotonic()
            until(lambda: served(client), "a newcomer is served")
            assert time.monotonic() - came < 10
            assert process.num_fds() <= 1024
            spent = process.cpu_times().user
            time.sleep(1)
            assert process.cpu_times().user - spent < 0.5, "it does not spin"
            assert (process.memory_info().rss - before) / MIB < MEMORY_MIB
        until(lambda: process.num_fds() <= files + 3, "all are gone")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def alive(known: http.client.HTTPConnection) -> bool:
    known.request("GET", "/health/live")
    answer = known.getresponse()
    answer.read()
    return answer.status == 200


def served(client: Client) -> bool:
    try:
        return bool(client.modern("tools/call", ECHO).result)
    except (OSError, http.client.HTTPException, AssertionError):
        return False
