"""What is decided about connections, without one."""

import json
import math
from dataclasses import dataclass

import pytest

from gateway.serving import rules
from gateway.serving.rules import SLICE_BYTES, WHEN_OVERDUE, Deadlines, Phase, Verdict, is_drained, slices


def test_every_phase_has_a_deadline_but_the_answer_which_bounds_itself():
    allowed = Deadlines().allowed_s(draining=False)
    assert set(allowed) == set(Phase)
    assert [phase for phase, seconds in allowed.items() if seconds == math.inf] == [Phase.ANSWERING]
    assert set(WHEN_OVERDUE) == set(Phase) - {Phase.ANSWERING}


def test_an_idle_connection_outlives_a_proxys_and_only_draining_shortens_it():
    calm, draining = (Deadlines().allowed_s(draining=flag) for flag in (False, True))
    assert calm[Phase.IDLE] > 60
    assert draining == calm | {Phase.NEW: 2, Phase.IDLE: 2}


def test_only_a_client_that_has_said_something_gets_an_answer():
    refused = {phase for phase, verdict in WHEN_OVERDUE.items() if verdict is Verdict.REFUSE}
    assert refused == {Phase.HEAD, Phase.BODY}
    assert WHEN_OVERDUE[Phase.NEW] is WHEN_OVERDUE[Phase.IDLE] is Verdict.CLOSE


@pytest.mark.parametrize(("shortest_s", "sweep_s"), [(100, 0.5), (2, 0.5), (0.4, 0.1)])
def test_the_sweep_is_fine_enough_for_the_shortest_deadline(shortest_s: float, sweep_s: float):
    assert Deadlines(idle_draining_s=shortest_s).sweep_s == sweep_s


def test_a_refusal_is_whole_and_final():
    answer = rules.too_large(1048576).closing_answer("1-a")
    head, body = answer.split(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 413 Content Too Large",
        b"content-type: application/json",
        b"content-length: 105",
        b"x-request-id: 1-a",
        b"connection: close",
    ]
    assert len(body) == 105
    assert json.loads(body) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32600, "message": "request body is larger than 1048576 bytes"},
    }


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (rules.bad_request(), 400, -32600),
        (rules.TOO_SLOW, 408, -32600),
        (rules.too_large(5), 413, -32600),
        (rules.HEAD_TOO_LARGE, 431, -32600),
        (rules.FAILED, 500, -32603),
        (rules.STOPPING, 503, -32603),
    ],
)
def test_every_refusal_is_a_json_rpc_error_without_an_id(refusal: rules.Refusal, status: int, code: int):
    assert refusal.status == status
    assert json.loads(refusal.body) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": code, "message": refusal.message},
    }


def test_only_what_passes_by_itself_says_when_to_come_back():
    assert (b"retry-after", b"5") in rules.STOPPING.headers
    assert b"retry-after" not in dict(rules.too_large(5).headers)


@pytest.mark.parametrize("length", [0, 1, SLICE_BYTES, SLICE_BYTES + 1, 3 * SLICE_BYTES])
def test_slices_are_small_and_lose_nothing(length: int):
    body = bytes(range(256)) * (length // 256 + 1)
    parts = list(slices(body[:length]))
    assert b"".join(parts) == body[:length]
    assert all(0 < len(part) <= SLICE_BYTES for part in parts)


def test_a_worker_is_drained_when_neither_a_client_nor_a_call_is_left():
    assert is_drained(connections=0, requests=0)
    assert not is_drained(connections=1, requests=0)
    assert not is_drained(connections=0, requests=1)


@dataclass
class Seen:
    phase: Phase
    since: float


def test_who_never_asked_gives_way_first_and_the_longest_before_others():
    now, patience = 100.0, Deadlines().gives_way_s
    idle, new, older, slow, late = (
        Seen(Phase.IDLE, 10),
        Seen(Phase.NEW, 99),
        Seen(Phase.NEW, 98),
        Seen(Phase.HEAD, 90),
        Seen(Phase.BODY, 90),
    )
    assert rules.give_way([idle, late, new, older, slow], now, patience) == [older, new, slow, idle, late]


@pytest.mark.parametrize("phase", [Phase.ANSWERING, Phase.REFUSED, Phase.CLOSING])
def test_who_is_being_answered_never_gives_way(phase: Phase):
    assert rules.give_way([Seen(phase, 0)], 1e6, Deadlines().gives_way_s) == []


@pytest.mark.parametrize("phase", [Phase.NEW, Phase.HEAD, Phase.IDLE, Phase.BODY])
def test_nobody_gives_way_who_may_be_about_to_ask(phase: Phase):
    after = Deadlines().gives_way_s[phase]
    assert rules.give_way([Seen(phase, 100)], 100 + after - 0.1, Deadlines().gives_way_s) == []
    assert rules.give_way([Seen(phase, 100)], 100 + after, Deadlines().gives_way_s) != []


def test_a_few_make_room_at_a_time():
    crowd = [Seen(Phase.NEW, number) for number in range(1000)]
    assert rules.give_way(crowd, 2000, Deadlines().gives_way_s) == crowd[: rules.GIVE_WAY_TOGETHER]


@pytest.mark.parametrize(
    ("method", "target", "hosts", "served"),
    [
        (b"GET", b"http://a/mcp?x=1", [b"a"], b"/mcp?x=1"),
        (b"POST", b"HTTPS://A:80/mcp", [b"a:80"], b"/mcp"),
        (b"GET", b"http://a", [b"a"], b"/"),
        (b"OPTIONS", b"*", [b"a"], b"*"),
        (b"GET", b"*", [b"a"], None),
        (b"GET", b"http://a/mcp", [b"b"], None),
        (b"GET", b"http://a/mcp", [], None),
        (b"GET", b"http://a/mcp", [b"a", b"a"], None),
        (b"GET", b"http://a@b/mcp", [b"b"], None),
        (b"GET", b"http:///mcp", [b"a"], None),
        (b"GET", b"ftp://a/mcp", [b"a"], None),
        (b"CONNECT", b"a:443", [b"a:443"], None),
        (b"GET", b"mcp", [b"a"], None),
    ],
)
def test_an_absolute_target_is_that_of_its_host(method: bytes, target: bytes, hosts: list[bytes], served: bytes | None):
    assert rules.origin_form(method, target, hosts) == served
