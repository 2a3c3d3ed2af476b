"""Sessions: whose they are, when they end, and that remembering them is bounded."""

import time

import pytest

from gateway.sessions import sessions as module
from gateway.sessions.outbox import Outbox
from gateway.sessions.sessions import Sessions
from keys.principal import Principal

SECRET = b"secret"
OWNER, OTHER = Principal("k1", "one"), Principal("k2", "two")


def test_it_is_found_by_its_key_alone() -> None:
    sessions = Sessions(SECRET)
    session = sessions.open(OWNER, "2025-11-25", b'{"roots":{}}')
    assert sessions.find(session.id, OWNER) is session
    assert sessions.find(session.id, OTHER) is None
    assert sessions.find(session.id + "x", OWNER) is None


def test_another_worker_with_the_same_secret_knows_it_too() -> None:
    session = Sessions(SECRET).open(OWNER, "2025-06-18", b'{"roots":{}}')
    found = Sessions(SECRET).find(session.id, OWNER)
    assert found is not None
    assert (found.revision, found.capabilities, found.key_id) == ("2025-06-18", '{"roots":{}}', "k1")
    assert Sessions(SECRET).find(session.id, OTHER) is None
    assert Sessions(b"another").find(session.id, OWNER) is None


def test_an_ended_one_stays_ended() -> None:
    sessions = Sessions(SECRET)
    session = sessions.open(OWNER, "2025-11-25", b"{}")
    session.stream = Outbox()
    sessions.end(session)
    assert session.stream.ended
    assert sessions.find(session.id, OWNER) is None
    assert list(sessions) == []


def test_no_two_have_the_same_id() -> None:
    sessions = Sessions(SECRET)
    assert len({sessions.open(OWNER, "2025-11-25", b"{}").id for _ in range(200)}) == 200


def test_a_stolen_look_does_not_evict_or_change_the_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(SECRET)
    session = sessions.open(OWNER, "2025-11-25", b"{}")
    session.log_level = "debug"
    for _ in range(10):
        assert sessions.find(session.id, OTHER) is None
    found = sessions.find(session.id, OWNER)
    assert found is not None
    assert found.log_level == "debug"


def test_too_many_push_out_the_idle_and_they_come_back_from_their_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 5)
    sessions = Sessions(SECRET)
    busy = sessions.open(OWNER, "2025-11-25", b"{}")
    busy.stream = Outbox()
    opened = [sessions.open(OWNER, "2025-11-25", b"{}") for _ in range(50)]
    assert len(list(sessions)) <= 5
    assert sessions.find(busy.id, OWNER) is busy
    assert sessions.find(opened[0].id, OWNER) is not None


def test_a_week_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Sessions(SECRET).open(OWNER, "2025-11-25", b"{}")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 8 * 24 * 3600)
    assert Sessions(SECRET).find(session.id, OWNER) is None
