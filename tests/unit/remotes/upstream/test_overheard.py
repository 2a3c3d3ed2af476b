"""What a process says beside the protocol: how much of it reaches the log, and in what shape."""

import logging

import pytest

from remotes.upstream.overheard import LINES_PER_S, NOISE_PER_S, Overheard


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "mcp.upstream")
    return lambda: [record.getMessage() for record in caplog.records]


def test_lines_are_whole_however_they_come(said):
    heard = Overheard("shop", {})
    for piece in (b"one\ntw", b"o\n\n  th", b"ree"):
        heard.chunk(piece, 1.0)
    heard.end(1.0)
    assert said() == ["shop: one", "shop: two", "shop: three"]
    assert heard.last_words == "three"


def test_so_many_lines_a_second_and_the_others_are_counted(said):
    heard = Overheard("shop", {})
    heard.chunk(b"".join(b"%d\n" % n for n in range(1000)), 1.0)
    heard.chunk(b"more\n" * 500, 1.5)
    assert len(said()) == LINES_PER_S
    heard.chunk(b"later\n", 2.0)
    assert said()[LINES_PER_S:] == [f"shop: {1500 - LINES_PER_S} more lines were dropped", "shop: later"]
    assert heard.last_words == "later"


def test_of_noise_on_stdout_less_is_said(said):
    heard = Overheard("shop", {})
    for _ in range(100):
        heard.noise(b"garbage", "not JSON", 1.0)
    heard.end(1.0)
    assert len(said()) == NOISE_PER_S + 1
    assert said()[-1] == f"shop: {100 - NOISE_PER_S} more lines were dropped"


def test_no_line_is_long_and_no_escape_is_raw(said):
    heard = Overheard("shop", {})
    heard.chunk(b"\x1b[31mred\x07" + b"x" * 100_000 + b"\n", 1.0)
    assert len(said()[0]) < 600
    assert "\x1b" not in said()[0]
    assert "\x07" not in said()[0]
    assert "red" in said()[0]


def test_secrets_of_its_entry_are_masked_by_value_and_others_by_shape(said):
    heard = Overheard("shop", {"API_KEY": "hunter2-hunter2", "FOLDER": "/home/shop", "KEY": "ab"})
    heard.chunk(b"hunter2-hunter2 in /home/shop, Authorization: Bearer abcdefgh, about\n", 1.0)
    assert said() == ["shop: [redacted] in /home/shop, Authorization: [redacted]"]
    heard.noise(b"hunter2-hunter2", "not JSON", 1.0)
    assert said()[1] == "shop: wrote to stdout what is no message (not JSON): [redacted]"
