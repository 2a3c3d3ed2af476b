"""The sum that is shown never falls, whoever dies and whoever asks."""

from hypothesis import given
from hypothesis import strategies as st

from mcpserver.supervisor.ledger import APART_MAX, Ledger


def test_who_is_gone_is_added_and_who_is_there_is_not() -> None:
    ledger = Ledger()
    assert ledger.told({"1": {"calls": 3.0}, "2": {"calls": 4.0}}) == {}
    assert ledger.told({"2": {"calls": 5.0}}) == {"calls": 3.0}
    assert ledger.told({"3": {"calls": 1.0}}) == {"calls": 8.0}


def test_a_slower_asker_that_read_earlier_takes_nothing_back() -> None:
    ledger = Ledger()
    ledger.told({"1": {"calls": 12.0}})
    ledger.told({"1": {"calls": 10.0}})
    assert ledger.told({"2": {}}) == {"calls": 12.0}


def test_series_that_a_living_worker_ended_are_not_added_for_it_later() -> None:
    ledger = Ledger()
    ledger.told({"1": {"calls": 1.0, "of a remote that went": 9.0}})
    ledger.told({"1": {"calls": 2.0}})
    assert ledger.told({}) == {"calls": 2.0}


def test_of_the_long_gone_one_sum_is_kept() -> None:
    ledger = Ledger()
    for number in range(3 * APART_MAX):
        ledger.told({str(number): {"calls": 1.0}})
    assert ledger.told({}) == {"calls": 3.0 * APART_MAX}
    assert len(ledger._of) <= APART_MAX


_CALLS = st.tuples(st.just("call"), st.integers(0, 2))
_SCRAPE = st.tuples(st.just("scrape"), st.integers(1, 7))
_DEATH = st.tuples(st.just("dies"), st.integers(0, 2))


@given(st.lists(st.one_of(_CALLS, _SCRAPE, _DEATH), max_size=60))
def test_what_was_shown_once_is_never_taken_back(steps: list[tuple[str, int]]) -> None:
    """Three posts; a scrape reaches those whose bit is set (the others hang), and shows their sum and the ledger's."""
    ledger, counted, born, shown = Ledger(), {"0.0": 0.0, "1.0": 0.0, "2.0": 0.0}, [0, 0, 0], 0.0
    for what, number in steps:
        if what == "call":
            counted[f"{number}.{born[number]}"] += 1
        elif what == "dies":
            del counted[f"{number}.{born[number]}"]
            born[number] += 1
            counted[f"{number}.{born[number]}"] = 0.0
        else:
            heard = {name: {"calls": count} for name, count in counted.items() if number & 1 << int(name[0])}
            total = sum(one["calls"] for one in heard.values()) + ledger.told(heard).get("calls", 0.0)
            assert total >= shown
            shown = total
