"""When a remote's changes of status are news."""

from remotes.flapping import CHANGES_MAX, QUIET_S, WINDOW_S, Damper, News, words

WELL, ILL = "healthy", "unhealthy"


def flip(damper: Damper, times: int, *, apart_s: float = 1.0) -> list[News]:
    said = (WELL, ILL)
    return [damper.heard("shop", said[n % 2], said[1 - n % 2], n * apart_s) for n in range(times)]


def test_a_change_is_news_and_no_change_is_none():
    damper = Damper()
    assert damper.heard("shop", "unknown", WELL, 1.0) is News.CHANGED
    assert damper.heard("shop", WELL, WELL, 2.0) is News.NOTHING


def test_one_that_flips_is_said_to_and_then_nothing_more():
    assert flip(Damper(), 50) == [News.CHANGED] * CHANGES_MAX + [News.FLAPPING] + [News.NOTHING] * (49 - CHANGES_MAX)


def test_changes_that_lie_far_apart_are_no_flapping():
    assert set(flip(Damper(), 20, apart_s=WINDOW_S / CHANGES_MAX + 1)) == {News.CHANGED}


def test_one_that_is_quiet_again_has_settled_and_its_next_change_is_news():
    damper = Damper()
    flip(damper, 20)
    assert damper.heard("shop", WELL, WELL, 19 + QUIET_S - 1) is News.NOTHING
    assert damper.heard("shop", WELL, WELL, 19 + QUIET_S) is News.SETTLED
    assert damper.heard("shop", WELL, ILL, 20 + QUIET_S) is News.CHANGED


def test_one_remote_is_not_measured_by_another():
    damper = Damper()
    flip(damper, 20)
    assert damper.heard("docs", WELL, ILL, 20.0) is News.CHANGED


def test_the_words():
    assert words("shop", ILL, News.CHANGED, "no connection") == "shop is unhealthy: no connection"
    assert words("shop", ILL, News.CHANGED, "shop is unhealthy: why") == "shop is unhealthy: why"
    assert words("shop", ILL, News.CHANGED, "shop: no such host") == "shop is unhealthy: no such host"
    assert words("shop", WELL, News.SETTLED) == "shop has settled: healthy"
    assert words("shop", ILL, News.FLAPPING, "x").startswith("shop keeps changing, now unhealthy: x; no more")
