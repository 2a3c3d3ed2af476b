import pytest

from mcpserver.supervisor import vigil
from mcpserver.supervisor.vigil import Beat, Patience, Pulse


@pytest.mark.parametrize(
    ("silence_s", "pulse"), [(0, Pulse.STEADY), (5.9, Pulse.STEADY), (6, Pulse.STALLED), (15, Pulse.HUNG)]
)
def test_three_beats_missed_are_a_stall_and_fifteen_seconds_a_hang(silence_s, pulse):
    assert vigil.pulse(silence_s, Patience()) is pulse


@pytest.mark.edge(23)
def test_only_what_stays_over_the_limit_for_three_beats_is_too_large():
    over = 0
    for used_mb in (600, 600, 400, 600, 600):
        over = vigil.beats_over(over, Beat(used_mb, 512))
    assert not is_too_large(over)
    assert is_too_large(vigil.beats_over(over, Beat(513, 512)))


@pytest.mark.edge(23)
def test_a_post_is_not_given_a_new_child_again_and_again_for_a_limit_that_is_too_small():
    assert not is_too_large(3, replaced_ago_s=59)
    assert is_too_large(3, replaced_ago_s=60)


def is_too_large(over, replaced_ago_s=None):
    return vigil.is_too_large(over, replaced_ago_s=replaced_ago_s, patience=Patience())


@pytest.mark.parametrize("said", [{}, {"rss_mb": None}, {"rss_mb": "600"}, {"adopted": "all"}])
def test_what_a_beat_does_not_say_or_says_strangely_counts_as_nothing(said):
    assert vigil.read({"memory_max_mb": 512} | said) == Beat(memory_max_mb=512)
    assert vigil.beats_over(2, vigil.read({"memory_max_mb": 512} | said)) == 0


def test_a_beat_says_what_is_used_what_may_be_and_whose_connections_are_taken():
    said = {"rss_mb": 70.5, "memory_max_mb": 512, "grace_s": 30, "adopted": [1, 2]}
    assert vigil.read(said) == Beat(70.5, 512, 30, frozenset({1, 2}))


def test_without_a_limit_nothing_is_too_large():
    assert vigil.beats_over(2, Beat(10_000, 0)) == 0
