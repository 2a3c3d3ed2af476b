"""What a key may use: patterns over whole names, closed where anything is unclear."""

import time
from typing import Any

import pytest

from keys import grant
from keys.grant import EVERYTHING, Grant
from keys.principal import Principal
from mcpserver.lib.errors import GatewayError


def principal(**fields):
    return Principal("k", "k", Grant(**fields))


@pytest.mark.parametrize(
    ("fields", "sees", "hides"),
    [
        ({}, ["stripe__charge", "docs__x"], []),
        ({"mcps": ("docs",)}, ["docs__x"], ["stripe__charge", "docs-2__x"]),
        ({"allow": ("stripe__*",)}, ["stripe__charge"], ["docs__stripe__x", "stripes__x"]),
        ({"deny": ("*__delete_*",)}, ["stripe__charge"], ["stripe__delete_all", "docs__a__delete_b"]),
        ({"allow": ("stripe__*",), "deny": ("stripe__delete",)}, ["stripe__charge"], ["stripe__delete"]),
        ({"mcps": ("docs",), "allow": ("stripe__*",)}, [], ["stripe__charge", "docs__x"]),
        ({"allow": ("stripe__get_?",)}, ["stripe__get_a"], ["stripe__get_", "stripe__get_ab", "stripe__GET_a"]),
        ({"allow": ("stripe__[a]",)}, ["stripe__[a]"], ["stripe__a"]),
    ],
)
def test_deny_wins_allow_closes_and_remotes_bound_both(fields, sees, hides):
    key = principal(**fields)
    for name in sees + hides:
        remote, _, own = name.partition("__")
        assert [key.allows(kind, remote, own, name) for kind in ("tool", "prompt")] == [name in sees] * 2, name


def test_a_tool_is_denied_by_its_own_name_as_by_the_one_that_clients_see():
    key = principal(deny=("a__purge", "a__long_x_0c1d2e"))
    assert not key.allows("tool", "a", "purge", "a__tidy")
    assert not key.allows("tool", "a", "long_x…", "a__long_x_0c1d2e")
    assert key.allows("tool", "a", "tidy", "a__tidy")


def test_a_remote_cannot_name_a_resource_into_another_ones_permission():
    key = principal(allow=("stripe__*",))
    assert not key.allows("resource", "evil", "stripe__charges", "stripe__charges")
    assert key.allows("resource", "stripe", "file:///a", "file:///a")


@pytest.mark.parametrize(
    ("fields", "reached"),
    [
        ({}, True),
        ({"mcps": ("b",)}, False),
        ({"allow": ("a__get",)}, True),
        ({"allow": ("*__get",)}, True),
        ({"allow": ("b__*", "ab__*")}, False),
        ({"deny": ("a__*",)}, False),
        ({"deny": ("*",)}, False),
        ({"deny": ("a__x*",)}, True),
    ],
)
def test_a_remote_of_which_nothing_can_be_seen_is_not_there(fields, reached):
    assert principal(**fields).reaches("a") is reached


def test_equal_permissions_share_a_fingerprint_whatever_their_order_and_limits():
    one = Grant(mcps=("a", "b"), deny=("a__x",), rate=5)
    assert one.fingerprint == Grant(mcps=("b", "a"), deny=("a__x",)).fingerprint != ""
    assert Grant(rate=5, max_connections=1).fingerprint == EVERYTHING.fingerprint == ""


def test_what_is_stored_reads_back_and_what_is_not_known_is_refused():
    whole = Grant(("a",), ("a__*",), ("a__x",), 3, 600, (("a", 60),))
    assert grant.read(whole.document()) == whole
    assert grant.read({}) == EVERYTHING
    bad: list[Any] = [
        {"from_the_future": 1},
        {"mcps": "a"},
        {"allow": [1]},
        {"rate": 0},
        {"rate": True},
        {"rates": [1]},
        [],
        "x",
    ]
    for document in bad:
        with pytest.raises(GatewayError):
            grant.read(document)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"allow": ("stripe",)}, "'stripe' would never match"),
        ({"allow": ("a b*",)}, "'a b*' is not a pattern"),
        ({"deny": ("",)}, "'' is not a pattern"),
        ({"mcps": ("Not A Remote",)}, "'Not A Remote' cannot be the name of a remote"),
        ({"rates": (("a", 0),)}, "0 requests a minute: 1 to 1000000 can be allowed"),
        ({"max_connections": 0}, "0 connections: 1 to 10000 can be allowed"),
        ({"deny": ("a__x",) * 101}, "101 entries are too many: at most 100"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_is_wrong(changes, said):
    with pytest.raises(GatewayError) as refused:
        grant.changed(EVERYTHING, changes)
    assert (refused.value.code, refused.value.message, int(refused.value.exit_code)) == ("usage", said, 2)


def test_names_that_a_remote_makes_up_neither_stall_nor_fill_the_memory():
    key = principal(allow=("*a*a*a*a*a*a*a*b__*",))
    began = time.process_time()
    for number in range(grant._VERDICTS_MAX + 5):
        key.allows("tool", "a", f"{number}", f"a__{number}")
    assert not key.allows("tool", "a", "a" * 20_000, "")
    assert time.process_time() - began < 5
    assert len(key._sight._verdicts) < 10
