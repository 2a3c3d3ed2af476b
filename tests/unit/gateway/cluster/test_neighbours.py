"""Who lives where, as far as it can be known without asking."""

from pathlib import Path

from gateway.cluster.neighbours import Neighbours, Place

THERE = Place(url="http://10.0.0.2:3000")
OTHER = "abcdef12345678"


def test_a_machine_that_falls_silent_keeps_its_sessions_until_nobody_opens_there(tmp_path: Path):
    neighbours = Neighbours(tmp_path)
    neighbours.heard({OTHER: THERE.url})
    neighbours.heard({})
    assert neighbours.find(OTHER) == THERE
    assert neighbours.serves(OTHER)
    assert neighbours.count() == (1, 1), "yet it takes over nothing"
    assert neighbours.heir(OTHER, "session") == neighbours.own
    neighbours.forget(THERE)
    assert neighbours.find(OTHER) is None
    assert not neighbours.serves(OTHER)


def test_what_names_a_worker_that_died_goes_to_its_machine(tmp_path: Path):
    neighbours = Neighbours(tmp_path)
    neighbours.heard({OTHER: THERE.url})
    assert neighbours.find(f"{OTHER[:6]}another1") == THERE
    assert not neighbours.serves(f"{OTHER[:6]}another1"), "its machine speaks, and does not name it"


def test_who_was_found_dead_is_not_believed_alive_again(tmp_path: Path):
    neighbours = Neighbours(tmp_path)
    neighbours.heard({OTHER: THERE.url})
    neighbours.forget(THERE)
    neighbours.heard({OTHER: THERE.url})
    assert not neighbours.serves(OTHER)
    neighbours.heard({OTHER: THERE.url, f"{OTHER[:6]}another1": THERE.url})
    assert neighbours.serves(f"{OTHER[:6]}another1"), "its successor, at the same address"


def test_the_heir_is_of_the_same_machine_as_long_as_that_has_anybody(tmp_path: Path):
    neighbours = Neighbours(tmp_path)
    sibling = f"{OTHER[:6]}another1"
    neighbours.heard({sibling: THERE.url})
    assert {neighbours.heir(OTHER, f"session {number}") for number in range(20)} == {sibling}
    assert {neighbours.heir("xxxxxx12345678", f"session {number}") for number in range(40)} == {sibling, neighbours.own}


def test_one_that_leaves_inherits_nothing_unless_it_is_the_last(tmp_path: Path):
    leaving, staying = Neighbours(tmp_path), Neighbours(tmp_path)
    doors = [one.open_door() for one in (leaving, staying)]
    leaving.leave()
    for one in (leaving, staying):
        one.look()
        assert {one.heir(leaving.own, f"session {number}") for number in range(20)} == {staying.own}
        assert not one.serves(leaving.own)
    assert staying.find(leaving.own) is not None, "what only it can answer is still sent there"
    for door in doors:
        door.close()
    staying.close()
    leaving.look()
    assert leaving.heir(leaving.own, "session") == leaving.own


def test_while_nobody_says_who_lives_elsewhere_an_unknown_worker_there_may_live(tmp_path: Path):
    neighbours = Neighbours(tmp_path)
    gone_here = f"{neighbours.node}gonegone"
    assert [neighbours.cannot_tell(name) for name in (OTHER, gone_here)] == [False, False]
    neighbours.is_blind = True
    assert [neighbours.cannot_tell(name) for name in (OTHER, gone_here)] == [True, False]
    neighbours.heard({})
    assert not neighbours.cannot_tell(OTHER), "who lives is known again, and it is not among them"


def test_a_name_that_may_be_of_a_machine_that_just_came_is_asked_about(tmp_path: Path):
    neighbours = Neighbours(tmp_path)
    assert neighbours.is_unheard_of(OTHER)
    assert not neighbours.is_unheard_of("made up")
    assert not neighbours.is_unheard_of(neighbours.own)
    assert not neighbours.is_unheard_of(f"{neighbours.node}another1"), "this machine knows who it has"
    neighbours.heard({OTHER: THERE.url})
    assert not neighbours.is_unheard_of(OTHER)
    neighbours.forget(THERE)
    assert not neighbours.is_unheard_of(OTHER), "it was found dead"
