"""A difference counts when chance does not explain it and somebody could make use of it."""

import random

from tests.timing.welch import compared


def series(mean: float, spread: float, seed: int) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(mean, spread) for _ in range(200)]


def test_two_series_of_one_kind_cannot_be_told_apart() -> None:
    assert not any(
        pair.tells
        for seed in range(50)
        for pair in compared({"a": series(4, 0.5, seed), "b": series(4, 0.5, -seed - 1)})
    )


def test_a_real_difference_is_found_with_its_size() -> None:
    (pair,) = compared({"a": series(4.6, 0.5, 1), "b": series(4, 0.5, 2)})
    assert pair.tells
    assert 0.4 < pair.difference_ms < 0.8
    assert 10 < pair.percent < 20


def test_what_is_certain_but_too_small_to_use_does_not_count() -> None:
    (pair,) = compared({"a": series(4.1, 0.01, 1), "b": series(4, 0.01, 2)})
    assert abs(pair.t) > 4.5
    assert not pair.tells


def test_three_series_are_three_pairs() -> None:
    assert [(pair.one, pair.other) for pair in compared({"a": [1, 2], "b": [1, 2], "c": [1, 2]})] == [
        ("a", "b"), ("a", "c"), ("b", "c"),
    ]  # fmt: skip
