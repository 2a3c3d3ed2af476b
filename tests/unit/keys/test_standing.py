from datetime import UTC, datetime, timedelta

import pytest

from keys.principal import Principal
from keys.standing import LEEWAY, HeldKey, ends_at, status

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
EARLIER, LATER, MUCH_LATER = NOW - timedelta(hours=1), NOW + timedelta(hours=1), NOW + timedelta(hours=9)


@pytest.mark.parametrize(
    ("expires_at", "retires_at", "revoked_at", "word"),
    [
        (None, None, None, "active"),
        (LATER, None, None, "active"),
        (None, LATER, None, "retiring"),
        (None, NOW, None, "retired"),
        (NOW, None, None, "expired"),
        (EARLIER, LATER, None, "expired"),
        (None, None, EARLIER, "revoked"),
        (EARLIER, EARLIER, EARLIER, "revoked"),
    ],
)
def test_each_state_has_its_word(expires_at, retires_at, revoked_at, word):
    assert status(NOW, expires_at=expires_at, retires_at=retires_at, revoked_at=revoked_at) == word


def test_a_key_ends_at_the_earlier_of_its_ends():
    assert [ends_at(None, None), ends_at(LATER, None), ends_at(MUCH_LATER, LATER)] == [None, LATER, LATER]


@pytest.mark.edge(22)
def test_an_ended_key_opens_for_the_leeway_and_not_a_moment_longer():
    held = HeldKey(Principal("id", "main"), "hash", ends_at=NOW)
    moments = [NOW, NOW + LEEWAY - timedelta(microseconds=1), NOW + LEEWAY]
    assert [held.opens(moment) for moment in moments] == [True, True, False]
