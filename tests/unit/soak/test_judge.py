"""The rule of a soak: what is flat, what is left over, what fails it."""

from dataclasses import replace

import pytest

from tests.soak.judge import Sample, Seen, document, figures, quarters, text

CALM = Sample(at_s=0, rss_mb=100, descriptors=40)


def busy(at_s: int) -> Sample:
    return Sample(at_s=at_s, rss_mb=120, descriptors=240, sockets=200, streams=100, in_flight=100)


WELL = Seen(
    before=CALM,
    during=[busy(at_s) for at_s in range(100)],
    after=CALM,
    calls=1000,
    latencies_ms={"p50": 1000.0},
    failures=[],
    streams_lost=0,
    vanished={"FIN": 30, "silence": 30},
    noticed_s={"FIN": 0.5, "silence": 9.0},
    allowed_s={"FIN": 4.0, "silence": 16.0},
)


def over(seen: Seen) -> list[str]:
    assert document(seen)["ok"] is not any(not figure.holds for figure in figures(seen))
    return [figure.name for figure in figures(seen) if not figure.holds]


def grown(rss_mb: float = 0, descriptors: int = 0, sockets: int = 0) -> Seen:
    """In the last third."""
    late = [
        replace(
            sample,
            rss_mb=sample.rss_mb + rss_mb,
            descriptors=sample.descriptors + descriptors,
            sockets=sample.sockets + sockets,
        )
        for sample in WELL.during[66:]
    ]
    return replace(WELL, during=[*WELL.during[:66], *late])


def test_what_stays_as_it_is_holds() -> None:
    assert over(WELL) == []
    assert over(grown(rss_mb=7.9, descriptors=10)) == []


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        (grown(rss_mb=8.1), "memory, growth to the last quarter"),
        (grown(descriptors=11), "descriptors, growth to the last quarter"),
        (replace(WELL, failures=["no"]), "calls failed"),
        (replace(WELL, streams_lost=1), "streams lost"),
        (replace(WELL, noticed_s={"FIN": 4.1}), "held after FIN"),
        (replace(WELL, after=replace(CALM, descriptors=51)), "descriptors, left over"),
        (replace(WELL, after=replace(CALM, streams=1)), "streams and calls left over"),
        (replace(WELL, after=replace(CALM, in_flight=1)), "streams and calls left over"),
    ],
)
def test_what_grows_fails_or_is_left_over_does_not(seen: Seen, name: str) -> None:
    assert over(seen) == [name]


def test_descriptors_of_clients_that_come_are_no_growth() -> None:
    assert over(grown(descriptors=50, sockets=50)) == []


def test_large_memory_may_grow_in_proportion() -> None:
    large = [replace(busy(at_s), rss_mb=400 + (19 if at_s >= 66 else 0)) for at_s in range(100)]
    assert over(replace(WELL, during=large)) == []


def test_the_warm_up_is_not_looked_at() -> None:
    first, last = quarters(WELL.during)
    assert (first[0].at_s, len(first), last[0].at_s, last[-1].at_s) == (20, 20, 80, 99)
    assert quarters([CALM]) == ([CALM], [CALM])


def test_the_table_says_what_is_over_and_why() -> None:
    words = text(replace(WELL, failures=["a call to x: timed out"]))
    assert "calls failed" in words
    assert "OVER" in words
    assert "a call to x: timed out" in words
