"""The line about a request that was no call: how it ended, in one word, and why."""

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import access
from mcpserver.lib import log


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Ends the log and gives its lines; what strangers had before is forgotten."""
    before, level = logging.getLogger().handlers[:], logging.getLogger().level
    log.start("gateway", tmp_path, max_bytes=10_000_000, files=5)
    access._strangers = access._Strangers()

    def lines() -> list[dict[str, Any]]:
        log.stop()
        return [json.loads(line) for line in (tmp_path / "combined.log").read_text().splitlines()]

    yield lines
    log.stop()
    logging.getLogger().handlers[:] = before
    logging.getLogger().setLevel(level)
    logging.raiseExceptions = True


UNAUTHORIZED = b'{"error":"unauthorized","message":"send a valid key"}'
UNKNOWN = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"unknown method x"}}'
RESULT = b'{"jsonrpc":"2.0","id":1,"result":{"error":"only a word"}}'


@pytest.mark.parametrize(
    ("facts", "failed", "line"),
    [
        ({"status": 202}, False, {"outcome": "ok", "status": 202}),
        ({"status": 401, "said": UNAUTHORIZED}, False, {"outcome": "refused", "why": "send a valid key"}),
        ({"status": 503}, False, {"outcome": "refused", "status": 503}),
        ({"status": 200, "said": UNKNOWN}, False, {"outcome": "refused", "code": -32601, "why": "unknown method x"}),
        ({"status": 200, "said": RESULT}, False, {"outcome": "ok", "code": 0}),
        ({"status": 200, "said": b'[{"error":'}, False, {"outcome": "ok"}),
        ({"status": 502}, False, {"outcome": "failed"}),
        ({}, True, {"outcome": "failed"}),
        ({"is_gone": True}, False, {"outcome": "cancelled", "client": "gone"}),
        ({"is_stream": True, "status": 200}, False, {"outcome": "closed"}),
        ({"is_stream": True, "status": 200, "is_gone": True}, False, {"outcome": "closed", "client": "gone"}),
        ({"method": "initialize", "status": 200}, False, {"method": "initialize", "outcome": "ok"}),
    ],
)
def test_each_end_has_its_word(told: Any, facts: dict[str, Any], failed: bool, line: dict[str, Any]) -> None:
    about = access.begin("POST /mcp")
    about.key = "k1"
    for name, value in facts.items():
        setattr(about, name, value)
    access.ended(about, failed=failed)
    (written,) = told()
    assert {name: written.get(name) for name in line} == line
    assert (written["request"], written["key"]) == (about.id, "k1")


def test_a_call_that_has_been_told_is_not_told_again(told: Any) -> None:
    about = access.begin("POST /mcp")
    about.is_told = True
    access.ended(about)
    logging.getLogger("a").info("only this")
    assert [line["message"] for line in told()] == ["only this"]


def test_a_stream_is_told_of_when_it_opens_and_when_it_ends_under_one_id(told: Any) -> None:
    about = access.begin("GET /mcp")
    about.key = "k1"
    access.opened(about)
    access.ended(about)
    lines = told()
    assert [line["outcome"] for line in lines] == ["opened", "closed"]
    assert {line["request"] for line in lines} == {about.id}


def test_a_flood_of_strangers_leaves_a_bounded_number_of_lines_and_those_with_a_key_all_of_theirs(
    told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("gateway.access.time.monotonic", lambda: now)
    for _ in range(access.STRANGERS_A_SECOND + 50):
        access.refused("POST /mcp", "10.0.0.1", 401, "no key")
    about = access.begin("POST /mcp")
    about.key = "k1"
    access.ended(about)
    now = 1001.0
    access.refused("POST /mcp", "10.0.0.1", 401, "no key")
    lines = told()
    assert sum(line["outcome"] == "refused" for line in lines if "outcome" in line) == access.STRANGERS_A_SECOND + 1
    assert [line["key"] for line in lines if line.get("key")] == ["k1"]
    assert "50 requests without a good key were refused and are not told of" in [line["message"] for line in lines]


def test_a_method_as_long_as_a_body_takes_no_more_memory_than_a_name(told: Any) -> None:
    about = access.begin("POST /mcp")
    about.key, about.method = "k1", "x" * 1_000_000
    access.ended(about)
    assert len(told()[0]["method"]) == 256


def test_ids_are_in_order_of_time_and_never_the_same() -> None:
    ids = [access.new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(first.partition("-")[0] <= second.partition("-")[0] for first, second in itertools.pairwise(ids))
    assert max(map(len, ids)) <= 20
