"""The record of calls in a real database: what is written is found again, and no more is kept than may be."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.record import Call as Ended
from monitoring import calls
from monitoring.calls import Wanted
from monitoring.models import Call

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY = "mcp_0a1B2c3D4e_" + "x9Y" * 16 + "z"


def ended(number: int = 0, *, arguments: bytes | None = None, name: str = "docs__search", **fields: Any) -> Ended:
    said: dict[str, Any] = {"method": "tools/call", "key": "k1", "remote": "docs", "name": name, "era": "2026-07-28"}
    said |= {"transport": "http", "outcome": "ok", "code": 0, "source": "10.0.0.1", **fields}
    at = (NOON + timedelta(seconds=number)).timestamp()
    return Ended(at, f"r{number}", said, 1.25 + number, "main", 100, arguments)


def found(**wanted: Any) -> list[str]:
    return [call["request"] for _, call in calls.newest(Wanted(**wanted), 100)]


def test_a_call_is_found_as_it_was_written() -> None:
    calls.write([ended(number=1)])
    ((_, document),) = calls.newest(Wanted(), 10)
    assert document == {
        "time": "2026-11-22T12:00:01.000Z",
        "request": "r1",
        "key": "k1",
        "key_name": "main",
        "source": "10.0.0.1",
        "remote": "docs",
        "kind": "tool",
        "name": "docs__search",
        "era": "2026-07-28",
        "transport": "http",
        "outcome": "ok",
        "code": 0,
        "ms": 2.25,
        "answer_bytes": 100,
    }


@pytest.mark.parametrize(
    ("wanted", "requests"),
    [
        ({}, ["r0", "r1", "r2", "r3"]),
        ({"remote": "shop"}, ["r1"]),
        ({"keys": frozenset({"k2", "k3"})}, ["r2"]),
        ({"name": "docs://a"}, ["r3"]),
        ({"request": "r2"}, ["r2"]),
        ({"outcome": "failed"}, ["r1"]),
        ({"outcome": "bad"}, ["r1", "r2"]),
        ({"since": NOON + timedelta(seconds=2)}, ["r2", "r3"]),
        ({"until": NOON + timedelta(seconds=2)}, ["r0", "r1"]),
        ({"remote": "docs", "outcome": "bad"}, ["r2"]),
    ],
)
def test_it_is_found_by(wanted: dict[str, Any], requests: list[str]) -> None:
    failed, refused = ended(1, remote="shop", outcome="failed"), ended(2, key="k2", outcome="refused")
    calls.write(
        [ended(0), failed, refused, ended(3, method="resources/read", name="docs://a", outcome="input_required")]
    )
    assert found(**wanted) == requests


def test_the_newest_are_chosen_and_told_in_their_order() -> None:
    calls.write([ended(number) for number in range(5)])
    assert [call["request"] for _, call in calls.newest(Wanted(), 2)] == ["r3", "r4"]


def test_a_stranger_writes_neither_secrets_nor_more_than_there_is_room_for_nor_what_a_database_refuses() -> None:
    names = [f"call {KEY}", "https://me:hush@host/x?token=hush", "nul\0 " + "x" * 5000, "smile \U0001f600 \u202e"]
    calls.write([ended(number, name=name) for number, name in enumerate(names)])
    written = [call["name"] for _, call in calls.newest(Wanted(), 10)]
    assert written[0] == "call mcp_0a1B2c3D4e_[redacted]"
    assert written[1] == "https://[redacted]@host/x?token=[redacted]"
    assert written[2] == "nul " + "x" * 251
    assert written[3] == names[3]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b'{"q": "plain", "password": "my own words", "deep": {"n": 1}}',
         {"q": "plain", "password": "[redacted]", "deep": {"n": 1}}),
        (b'{"url": "https://me:hush@host/"}', {"url": "https://[redacted]@host/"}),
        (b'"12345 bytes"', "12345 bytes"),
        (b"[" * 5000, "5000 bytes"),
        (b'{"a": "\\u0000\\ud83d"}', {"a": "\0\ud83d"}),
    ],
)  # fmt: skip
def test_arguments_are_kept_without_their_secrets(given: bytes, kept: Any) -> None:
    calls.write([ended(arguments=given)])
    ((_, document),) = calls.newest(Wanted(), 1)
    assert document["arguments"] == kept


def test_sums_say_how_calls_ended_and_who_and_what_was_busy() -> None:
    calls.write([ended(0), ended(2), ended(1, name="docs__get", key="k2", outcome="failed")])
    summed = calls.summed(Wanted(), 10)
    assert summed["outcomes"] == {"ok": 2, "failed": 1}
    assert (summed["calls"], summed["first"], summed["last"]) == (3, NOON, NOON + timedelta(seconds=2))
    assert [(one["name"], one["calls"], one["bad"]) for one in summed["called"]] == [
        ("docs__search", 2, 0),
        ("docs__get", 1, 1),
    ]
    assert summed["called"][0]["average_ms"] == 2.25
    assert [(one["key_id"], one["calls"]) for one in summed["keys"]] == [("k1", 2), ("k2", 1)]
    assert calls.summed(Wanted(request="none"), 10) == {
        "calls": 0, "first": None, "last": None, "outcomes": {}, "called": [], "keys": [],
    }  # fmt: skip


def test_the_oldest_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "PRUNED_AT_ONCE", 3)
    calls.write([ended(number) for number in range(10)])
    assert calls.prune(NOON, rows=2, days=1) == 8
    assert found() == ["r8", "r9"]
    assert calls.prune(NOON, rows=2, days=1) == 0


def test_what_is_too_old_goes_even_where_there_is_room() -> None:
    calls.write([ended(-7200), ended(-10), ended(0)])
    assert calls.prune(NOON + timedelta(hours=23, minutes=59), rows=100, days=1) == 1
    assert found() == ["r-10", "r0"]
    assert calls.prune(NOON + timedelta(days=3), rows=100, days=1) == 2
    assert not Call.objects.exists()
