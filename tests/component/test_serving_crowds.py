"""More connections than there is room for: who asks for nothing gives way, who is being answered stays."""

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.component.serving_process import Serving, Wire, serving

ROOM = 40
FULL = (503, -32603, "the gateway has no room for connections")


@pytest.fixture
def small() -> Iterator[Serving]:
    """Room for few, and each phase soon gives way."""
    patience = {f"{phase}_gives_way_s": 0.2 for phase in ("new", "head", "idle", "body")}
    with serving(limits={"max_open_files": ROOM}, deadlines=patience) as running:
        yield running


@contextlib.contextmanager
def crowd(server: Serving, count: int, first: bytes = b"") -> Iterator[list[Wire]]:
    """So many connections at once, each with the same first bytes."""
    wires = [server.connect() for _ in range(count)]
    try:
        for wire in wires:
            with contextlib.suppress(ConnectionError):
                wire.send(first)
        yield wires
    finally:
        for wire in wires:
            wire.socket.close()


def served(server: Serving) -> bool:
    """Whether a newcomer is."""
    try:
        with server.connect() as wire:
            wire.post("/", b"me too", "Connection: close")
            return wire.answer().body == b"me too"
    except (AssertionError, OSError):
        return False


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"POST / HT",
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["silent", "half a head", "half a body", "idle"],
)
def test_whoever_asks_for_nothing_gives_way_to_a_newcomer(small: Serving, first: bytes):
    with crowd(small, ROOM, first) as wires:
        if first.endswith(b"\r\n\r\n"):
            assert all(wire.answer().status == 200 for wire in wires)
        deadline = time.monotonic() + 15
        while not served(small):
            assert time.monotonic() < deadline, "no room was made"
            time.sleep(0.1)
        assert sum(wire.is_quiet() for wire in wires) >= ROOM - 16, "no more than were needed had to go"


def test_whoever_is_being_answered_stays_and_newcomers_are_told(small: Serving):
    with crowd(small, ROOM, b"GET /stream HTTP/1.1\r\n\r\n") as wires:
        for wire in wires:
            assert wire.head()[0] == 200
            assert wire.chunk() == b"data: open\n\n"
        with small.connect() as wire:
            answer = wire.answer()
            assert (answer.refusal, answer.headers["retry-after"]) == (FULL, "10")
        assert all(wire.is_quiet() for wire in wires)
        wires[0].socket.close()
        deadline = time.monotonic() + 10
        while not served(small):
            assert time.monotonic() < deadline, "its place is free"
            time.sleep(0.1)


def test_a_flood_of_newcomers_takes_few_descriptors_and_passes(small: Serving):
    with crowd(small, 500):
        pass
    deadline = time.monotonic() + 10
    while not served(small):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert small.seen()["descriptors"] < ROOM
