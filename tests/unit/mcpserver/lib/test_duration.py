from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.lib.duration import duration


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0", timedelta()),
        ("0d", timedelta()),
        ("45s", timedelta(seconds=45)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(hours=24)),
        (" 90D ", timedelta(days=90)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_spans_as_people_write_them(text, span):
    assert duration(text) == span


@pytest.mark.parametrize("text", ["", "d", "5", "-1d", "1.5h", "1h30m", "1y", "٣d", "99999999d"])
def test_what_is_no_span_is_refused(text):
    with pytest.raises(ValueError, match=r"duration|century"):
        duration(text)


@given(st.text())
def test_nothing_but_a_value_error_ever_leaves(text):
    with suppress(ValueError):
        assert duration(text) >= timedelta()
