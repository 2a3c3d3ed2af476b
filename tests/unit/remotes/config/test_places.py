"""Places as people type them, and values put there or taken away."""

import pytest

from mcpserver.lib.errors import Exit, GatewayError
from remotes.config import differences, places, switches
from remotes.config.load import path_text


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("mcpServers.a.timeout", ("mcpServers", "a", "timeout")),
        ("mcpServers.a.args[0]", ("mcpServers", "a", "args", 0)),
        ('mcpServers.a.env["A.B"]', ("mcpServers", "a", "env", "A.B")),
        ('["odd key"].x', ("odd key", "x")),
        ('a["q\\"]"]', ("a", 'q"]')),
    ],
)
def test_a_place_is_read_and_written_alike(text, path):
    assert places.parse(text) == path
    assert places.parse(path_text(path)) == path


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a[", "a[x]", 'a["x]', "a[-1]", "a[0]b", 'a["\\q"]'])
def test_what_is_no_place_is_a_usage_error(text):
    with pytest.raises(GatewayError) as raised:
        places.parse(text)
    assert raised.value.exit_code == Exit.USAGE


def test_what_leads_to_a_value_is_made():
    value = {"a": None, "l": [1]}
    places.put(value, ("a", "b", "c"), 1)
    places.put(value, ("l", 1), 2)
    places.put(value, ("l", 0), 3)
    places.put(value, ("n", 0), 4)
    assert value == {"a": {"b": {"c": 1}}, "l": [3, 2], "n": [4]}


@pytest.mark.parametrize("path", [("l", 5), ("l", "x"), ("s", "x"), (0,)])
def test_what_cannot_be_there_is_not_found(path):
    with pytest.raises(GatewayError) as raised:
        places.put({"l": [1], "s": "text"}, path, 1)
    assert raised.value.exit_code == Exit.NOT_FOUND


def test_what_is_not_there_is_named_with_what_was_meant():
    value = {"mcpServers": {"time": {"timeout": 3}}}
    with pytest.raises(GatewayError) as raised:
        places.remove(value, ("mcpServers", "time", "timeot"))
    assert (raised.value.exit_code, raised.value.hint) == (Exit.NOT_FOUND, "did you mean mcpServers.time.timeout?")
    places.remove(value, ("mcpServers", "time", "timeout"))
    assert value == {"mcpServers": {"time": {}}}


def test_a_difference_is_a_place_each_and_shows_no_secret():
    old = {"mcpServers": {"a": {"url": "u", "headers": {"X": "hunter2"}}, "b": {"command": "c"}}}
    new = {"mcpServers": {"a": {"url": "v", "headers": {"X": "hunter3"}, "timeout": 1}, "c": {"command": "d"}}}
    assert differences.between(old, new) == [
        {"path": "mcpServers.a.url", "change": "changed", "before": "u", "after": "v"},
        {"path": "mcpServers.a.headers.X", "change": "changed", "before": "[redacted]", "after": "[redacted]"},
        {"path": "mcpServers.a.timeout", "change": "added", "after": 1},
        {"path": "mcpServers.b", "change": "removed", "before": {"command": "c"}},
        {"path": "mcpServers.c", "change": "added", "after": {"command": "d"}},
    ]
    assert differences.between(old, old) == []


@pytest.mark.parametrize(
    ("entry", "on", "expected"),
    [
        ({}, True, {}),
        ({}, False, {"enabled": False}),
        ({"enabled": False}, True, {"enabled": True}),
        ({"enabled": "no"}, True, {"enabled": True}),
        ({"enabled": "no"}, False, {"enabled": "no"}),
        ({"disabled": True}, True, {"disabled": False}),
        ({"disabled": False}, True, {"disabled": False}),
        ({"disabled": False, "enabled": True}, False, {"disabled": True, "enabled": False}),
    ],
)
def test_a_remote_is_switched_in_its_own_words(entry, on, expected):
    switches.switch(entry, on=on)
    assert entry == expected


@pytest.mark.parametrize(
    ("entry", "on", "expected"),
    [
        ({}, False, {"tools": {"disabled": ["t"]}}),
        ({}, True, {}),
        ({"tools": {"disabled": ["t"]}}, True, {}),
        ({"tools": {"disabled": ["t"], "pin": "off"}}, True, {"tools": {"pin": "off"}}),
        ({"tools": {"disabled": ["a"]}}, False, {"tools": {"disabled": ["a", "t"]}}),
        ({"disabled_tools": ["a"]}, False, {"disabled_tools": ["a", "t"]}),
        ({"disabled_tools": ["t"]}, True, {}),
        ({"tools": {"enabled": ["a"]}}, True, {"tools": {"enabled": ["a", "t"]}}),
        ({"enabled_tools": ["a"]}, True, {"enabled_tools": ["a", "t"]}),
        ({"tools": {"enabled": ["t"]}}, False, {"tools": {"enabled": ["t"], "disabled": ["t"]}}),
    ],
)
def test_a_tool_is_switched_in_whichever_list_the_entry_has(entry, on, expected):
    switches.switch_tool(entry, "t", on=on)
    assert entry == expected
