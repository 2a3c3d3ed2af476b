"""The line per request reads as if it had been made whole, whatever was remembered of the one before."""

import json

from hypothesis import given
from hypothesis import strategies as st

from mcpserver.lib.access_line import AccessLines
from mcpserver.lib.log import JsonFormatter, _encoded

ORIGIN = JsonFormatter("gateway").origin("INFO", "mcp.access", "call")


def lines() -> AccessLines:
    return AccessLines(_encoded, ORIGIN)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["method", "name", "level", "request", "ms", "time"]),
            st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.lists(st.text())),
            max_size=4,
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_line_is_one_json_document_with_each_field_as_it_was_given(documents):
    made = lines()
    for fields in documents:
        line = json.loads(made.line(1_700_000_000.25, fields, "1-a", 2.5))
        assert (line.pop("time"), line.pop("request"), line.pop("ms")) == ("2023-11-14T22:13:20.250Z", "1-a", 2.5)
        said = {name: line[name if name == "method" or name == "name" else f"{name}_"] for name in fields}
        assert said == json.loads(_encoded(fields))
        assert {name: line[name] for name in ORIGIN} == ORIGIN


def test_a_secret_is_masked_in_the_first_line_and_in_those_after_it():
    made, key = lines(), "mcp_abcdefghij_SECRETsecret123"
    for _ in range(3):
        line = made.line(0, {"name": f"x {key}"}, "1", 1.0)
        assert "SECRET" not in line
        assert "redacted" in line


def test_what_is_equal_in_python_and_not_in_json_is_not_mixed_up():
    made = lines()
    said = [json.loads(made.line(0, {"code": code}, "1", 1.0))["code"] for code in (1, True, 1.0, 0, False)]
    assert [repr(one) for one in said] == ["1", "True", "1.0", "0", "False"]


def test_strangers_cannot_make_it_remember_without_bound():
    made = lines()
    for number in range(10_000):
        made.line(0, {"name": f"tool{number}"}, "1", 1.0)
        made.line(0, {"name": "x" * 1000 + str(number)}, "1", 1.0)
    assert len(made._remembered) <= 2048
