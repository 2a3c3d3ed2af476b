"""Who lives where, as far as it can be known without asking."""

from pathlib import Path

from gateway.neighbours import Neighbours, Place

THERE = Place(url="http://10.0.0.2:3000")
OTHER = "abcdef12345678"


def test_a_machine_that_falls_silent_keeps_its_sessions_until_nobody_opens_there(tmp_path: Path):
    neighbours = Neighbours(tmp_path)
    neighbours.heard({OTHER: THERE.url})
    neighbours.heard({})
    assert neighbours.find(OTHER) == THERE
    assert neighbours.count() == (1, 1), "yet it takes over nothing"
    assert neighbours.heir("session") is None
    neighbours.forget(THERE)
    assert neighbours.find(OTHER) is None


def test_what_names_a_worker_that_died_goes_to_its_machine(tmp_path: Path):
    neighbours = Neighbours(tmp_path)
    neighbours.heard({OTHER: THERE.url})
    assert neighbours.find(f"{OTHER[:6]}another1") == THERE
