"""What `mcpconfig validate` says of tool names, with and without knowing which tools there are."""

import pytest

from remotes.config.names import findings
from remotes.config.snapshot import RemoteSpec

pytestmark = pytest.mark.edge(13)


def told(seen=(), *, longest=55, name="demo", **spec):
    found = findings([RemoteSpec(name, "stdio", **spec)], longest, {name: list(seen)} if seen else {})
    return [(finding.code, finding.message) for finding in found]


def codes(*seen, **spec):
    return [code for code, _ in told(seen, **spec)]


def test_two_names_that_become_equal_are_told_of_with_the_name_that_both_would_have():
    assert told(["a.b", "a_b", "c"]) == [
        ("collision", "'a_b' and 'a.b' are both offered as demo__a_b: the one that demo lists later shadows the other")
    ]


@pytest.mark.parametrize(
    ("seen", "spec"),
    [
        ((), {"tools_enabled": ("a.b", "a/b")}),
        ((), {"aliases": {"a": "c", "b": "c"}}),
        ((), {"aliases": {"a": "b"}, "tools_enabled": ("a", "b")}),
        (("a", "b"), {"aliases": {"a": "b"}}),
    ],
)
def test_aliases_and_enabled_tools_collide_without_and_with_what_is_known(seen, spec):
    assert codes(*seen, **spec) == ["collision"]


def test_an_alias_or_a_switch_ends_a_collision():
    assert codes("a.b", "a_b", aliases={"a.b": "other"}) == []
    assert codes("a.b", "a_b", tools_disabled=("a.b",)) == []
    assert codes("a.b", "a_b", tools_enabled=("a_b",)) == []


def test_a_name_that_is_cut_is_told_of_with_what_clients_see():
    ((code, message),) = told(["x" * 60])
    assert code == "shortened"
    assert f"is offered as demo__{'x' * 42}_" in message
    assert codes("x" * 60, aliases={"x" * 60: "short"}) == []


def test_two_long_names_that_differ_at_their_end_do_not_collide():
    assert codes("x" * 60 + "1", "x" * 60 + "2") == ["shortened", "shortened"]


def test_a_tool_that_nobody_lists_is_told_of_with_the_one_that_was_probably_meant():
    spec = {"tools_disabled": ("delet",), "aliases": {"renam": "r"}, "tools_enabled": ("delete", "rename")}
    assert codes("delete", "rename", **spec) == ["unknown_tool", "unknown_tool"]
    assert codes(**spec) == [], "nothing is known of a remote that was never seen"


def test_what_some_client_does_not_take_is_told():
    assert told(longest=64)[0][0] == "client_limit"
    assert told(name="3d")[0][0] == "client_limit"


def test_thousands_of_clashes_are_told_in_a_few_lines():
    found = told([f"{separator}{number}" for number in range(3000) for separator in (".", "/")])
    assert len(found) == 11
    assert found[-1] == ("more", "and 2990 more about the names of demo's tools")
