import pytest

from mcpserver.supervisor import vigil
from mcpserver.supervisor.vigil import Patience, Pulse


@pytest.mark.parametrize(
    ("silence_s", "pulse"), [(0, Pulse.STEADY), (5.9, Pulse.STEADY), (6, Pulse.STALLED), (15, Pulse.HUNG)]
)
def test_three_beats_missed_are_a_stall_and_fifteen_seconds_a_hang(silence_s, pulse):
    assert vigil.pulse(silence_s, Patience()) is pulse


@pytest.mark.edge(23)
def test_only_what_stays_over_the_limit_for_three_beats_is_too_large():
    over = 0
    for used_mb in (600, 600, 400, 600, 600):
        over = vigil.beats_over(over, {"rss_mb": used_mb}, 512)
    assert not vigil.is_too_large(over)
    assert vigil.is_too_large(vigil.beats_over(over, {"rss_mb": 513}, 512))


@pytest.mark.parametrize("beat", [{}, {"rss_mb": None}, {"rss_mb": "600"}])
def test_a_beat_that_says_nothing_of_memory_counts_as_none(beat):
    assert vigil.beats_over(2, beat, 512) == 0


def test_without_a_limit_nothing_is_too_large():
    assert vigil.beats_over(2, {"rss_mb": 10_000}, 0) == 0
