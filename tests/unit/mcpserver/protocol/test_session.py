"""A session id proves itself: no byte of it can be changed, and it has one spelling only."""

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.protocol.session import Session, carried, seal, unseal

SECRET = b"s" * 32
LETTERS = string.ascii_letters + string.digits + "-_"
# Lengths that leave no, four and two unused bits in the last letter.
SESSIONS = [Session("key", "2025-11-25", 1_700_000_000, "n" * length, '{"roots":{}}') for length in (1, 2, 3)]


@pytest.mark.parametrize("session", SESSIONS)
def test_it_comes_back_whole(session: Session) -> None:
    id = seal(session, SECRET)
    assert unseal(id, SECRET) == session
    assert set(id) <= set(LETTERS)


@pytest.mark.parametrize("session", SESSIONS)
def test_no_letter_can_be_exchanged_for_any_other(session: Session) -> None:
    id = seal(session, SECRET)
    for at, own in enumerate(id):
        for other in LETTERS + "+/=. \n\x00é":
            if other != own:
                assert unseal(id[:at] + other + id[at + 1 :], SECRET) is None, (at, other)


@pytest.mark.parametrize("session", SESSIONS)
def test_nothing_can_be_added_removed_or_moved(session: Session) -> None:
    id = seal(session, SECRET)
    for changed in (
        id + "=",
        id + "==",
        id + "A",
        id + "\n",
        " " + id,
        "A" + id,
        id[:-1],
        id[1:],
        id[::-1],
        id + id,
        id[:22],
        "",
    ):
        assert unseal(changed, SECRET) is None


def test_another_secret_opens_nothing() -> None:
    id = seal(SESSIONS[0], SECRET)
    assert unseal(id, b"t" * 32) is None
    assert unseal(id, b"") is None


@pytest.mark.parametrize("id", ["", "x", "=", "====", "A" * 4096, "A" * 100_000, "é" * 50, "\ud800", "../..", "\x00"])
def test_what_never_was_an_id(id: str) -> None:
    assert unseal(id, SECRET) is None


@given(st.text(max_size=300))
def test_no_text_raises(id: str) -> None:
    assert unseal(id, SECRET) is None


def test_short_capabilities_travel_whole() -> None:
    raw = b'{"elicitation":{"form":{}},"experimental":{"x":1}}'
    assert carried(raw) == raw.decode()


def test_of_long_ones_the_standard_names_remain() -> None:
    raw = msgspec.json.encode(
        {
            "roots": {"listChanged": True},
            "elicitation": {"url": {}},
            "sampling": {"x": "y" * 200},
            "experimental": {"x": "y" * 2000},
        }
    )
    assert msgspec.json.decode(carried(raw)) == {"roots": {"listChanged": True}, "elicitation": {"url": {}}}


def test_an_id_fits_a_header_whatever_the_capabilities() -> None:
    for raw in (b"{" + b"\n" * 590 + b"}", b'{"a":"' + b'\\"' * 290 + b'"}', b'{"a":"' + b"x" * 9000 + b'"}'):
        id = seal(Session("k" * 40, "2025-11-25", 2**33, "n" * 12, carried(raw)), SECRET)
        assert len(id) <= 4096
        assert unseal(id, SECRET) is not None
