"""Exposed names: in every client's characters and length, the same at every start."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.protocol.naming import REMOTE, distinct_uri, exposed

remotes = st.from_regex(REMOTE, fullmatch=True).filter(lambda name: len(name) <= 24)


def test_a_name_that_fits_is_prefixed_and_kept() -> None:
    assert exposed("ev", "echo", 55) == "ev__echo"
    assert exposed("my-mcp_2", "Get-It_now", 55) == "my-mcp_2__Get-It_now"


def test_other_characters_become_underscores() -> None:
    assert exposed("ev", "größe/1 x.y", 55) == "ev__gr__e_1_x_y"


# Written down, not computed: clients and permissions hold on to these names across versions.
@pytest.mark.parametrize(
    ("longest", "name"), [(55, "ev__aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_387df7"), (16, "ev__aaaaa_387df7")]
)
def test_a_shortened_name_is_the_same_for_ever(longest: int, name: str) -> None:
    assert exposed("ev", "a" * 60, longest) == name


def test_names_that_differ_only_behind_the_cut_stay_apart() -> None:
    assert exposed("ev", "a" * 60 + "x", 55) != exposed("ev", "a" * 60 + "y", 55)
    assert exposed("ev", "a" * 60 + "é", 55) != exposed("ev", "a" * 60 + "è", 55)


@pytest.mark.edge(13)
@given(remote=remotes, name=st.text(min_size=1, max_size=300), longest=st.integers(40, 64))
def test_every_name_fits_every_client(remote: str, name: str, longest: int) -> None:
    made = exposed(remote, name, longest)
    assert len(made) <= longest
    assert re.fullmatch(r"[A-Za-z0-9_-]+", made)
    assert made.startswith(remote + "__")
    assert made == exposed(remote, name, longest)


@given(remote=remotes)
def test_a_distinct_uri_has_a_scheme_of_rfc_3986(remote: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9+.-]*://x", distinct_uri(remote, "file://x"))
