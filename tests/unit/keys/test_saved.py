"""What bringing keys back would do: nothing that is revoked opens again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keys import saved
from keys.grant import EVERYTHING, Grant
from keys.saved import Plan, SavedKey
from mcpserver.lib.errors import GatewayError

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEY = SavedKey("A" * 10, "main", "$argon2id$v=19$x", EVERYTHING, NOON, None, None, None)
LATER = NOON + timedelta(hours=1)
REVOKED = replace(KEY, revoked_at=LATER)
DOCUMENT: dict[str, Any] = {
    "id": "A" * 10,
    "name": "main",
    "hash": "$argon2id$v=19$x",
    "grant": {},
    "created_at": "2026-11-22T12:00:00+00:00",
    "expires_at": None,
    "retires_at": None,
    "revoked_at": None,
}


def test_a_key_that_is_missing_is_added_and_one_that_is_there_stays():
    assert saved.plan([KEY], {}, {}) == Plan((KEY,), (), (), ())
    assert saved.plan([KEY], {KEY.key_id: KEY}, {}) == Plan((), (), (), ())


@pytest.mark.edge(20)
def test_a_revoked_key_stays_revoked_whoever_remembers_it():
    assert saved.plan([KEY], {KEY.key_id: REVOKED}, {}) == Plan((), (), (), ())
    assert saved.plan([REVOKED], {KEY.key_id: KEY}, {}) == Plan((), (REVOKED,), (REVOKED,), ())
    assert saved.plan([REVOKED], {}, {}).added == (REVOKED,)
    assert saved.plan([KEY], {}, {KEY.key_id: LATER}).added == (REVOKED,)


def test_dates_of_today_stand_and_what_it_may_use_comes_back():
    later = replace(KEY, retires_at=NOON, expires_at=NOON)
    assert saved.plan([KEY], {KEY.key_id: later}, {}) == Plan((), (), (), ())
    narrow = replace(KEY, grant=Grant(mcps=("a",)))
    assert saved.plan([narrow], {KEY.key_id: later}, {}).changed == (replace(later, grant=narrow.grant),)


def test_another_secret_under_the_same_id_changes_nothing():
    other = replace(KEY, hash="$argon2id$v=19$y", grant=Grant(mcps=("a",)))
    assert saved.plan([other], {KEY.key_id: KEY}, {}) == Plan((), (), (), (other,))


def test_what_was_written_reads_back():
    assert saved.read([DOCUMENT]) == [KEY]


@pytest.mark.parametrize(
    "damage",
    [
        {"id": "../etc"},
        {"name": "a b"},
        {"hash": "plain"},
        {"hash": None},
        {"grant": {"rate": -1}},
        {"created_at": None},
        {"expires_at": "2026-11-22T12:00:00"},
        {"revoked_at": "soon"},
        {"revoked_at": 7},
    ],
)
def test_what_no_version_wrote_is_refused(damage):
    with pytest.raises(GatewayError) as refused:
        saved.read([DOCUMENT | damage])
    assert refused.value.code == "invalid_backup"


@pytest.mark.parametrize("keys", [None, {}, [1], [DOCUMENT, DOCUMENT]])
def test_a_list_that_is_none_is_refused(keys):
    with pytest.raises(GatewayError):
        saved.read(keys)
