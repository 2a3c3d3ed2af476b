"""What a token endpoint's answers mean, and when a token is due, over, fresh: values in, values out."""

from dataclasses import replace

import pytest

from remotes.config.snapshot import AuthSpec, RemoteSpec
from remotes.tokens import grant
from remotes.tokens.grant import Denied, Grant, Holding, Token, Unclear

NOW = 1_800_000_000.0
HOUR = Token("a", "secret-access", "tools", NOW, 3600.0)
REMOTE = RemoteSpec("shop", "http", url="https://shop.example/mcp?key=1", auth=AuthSpec("https://id/", "me", "s", "r"))


def read(status, raw):
    return grant.read_answer(status, raw, id="b", now=NOW, asked_scope="asked")


def test_an_answer_is_a_token_with_what_came_along():
    raw = b'{"access_token":"x","token_type":"bearer","expires_in":60,"refresh_token":"y","scope":"z","more":[1]}'
    assert read(200, raw) == (Token("b", "x", "z", NOW, 60.0), "y")
    assert read(200, b'{"access_token":"x"}') == (Token("b", "x", "asked", NOW, None), "")


@pytest.mark.parametrize(
    ("said", "lifetime"),
    [
        (b'"60"', 60.0),
        (b"60.5", 60.5),
        (b"0", None),
        (b"-5", None),
        (b'"soon"', None),
        (b"null", None),
        (b"1e300", 315360000.0),
    ],
)
def test_lifetimes_come_in_all_forms(said, lifetime):
    answer = read(200, b'{"access_token":"x","expires_in":%b}' % said)
    assert isinstance(answer, tuple)
    assert answer[0].lifetime_s == lifetime


@pytest.mark.parametrize(
    "word", ["invalid_grant", "invalid_client", "unauthorized_client", "invalid_scope", "invalid_target"]
)
def test_what_only_a_person_can_mend_is_a_denial(word):
    assert read(400, b'{"error":"%b"}' % word.encode()) == Denied(word)
    assert read(401, b'{"error":"%b","error_description":"long"}' % word.encode()) == Denied(word)


@pytest.mark.parametrize(
    ("status", "raw", "why"),
    [
        (503, b"<html>", "it answered HTTP 503"),
        (429, b'{"error":"invalid_grant"}', "it answered HTTP 429"),
        (400, b'{"error":"temporarily_unavailable"}', "it answered HTTP 400 (temporarily_unavailable)"),
        (400, b'{"error":"\\u001b[31m"}', "it answered HTTP 400"),
        (404, b"not here", "it answered HTTP 404"),
        (302, b"", "it answered HTTP 302, a redirect, which is not followed"),
        (200, b"<html>", "its answer holds no token"),
        (200, b"[" * 100_000, "its answer holds no token"),
        (200, b'{"access_token":"x","token_type":"DPoP"}', "its tokens are not of the type Bearer"),
        (
            200,
            b'{"access_token":"x\\r\\nEvil: 1"}',
            "its token holds characters that no header can carry, or is too long",
        ),
        (200, b'{"access_token":""}', "its token holds characters that no header can carry, or is too long"),
    ],
)
def test_everything_else_may_pass(status, raw, why):
    answer = read(status, raw)
    assert isinstance(answer, Unclear)
    assert answer.why == why


def test_a_rotated_refresh_token_replaces_its_predecessor_and_a_missing_one_keeps_it():
    held = Holding("b", Grant("https://id/", "me", refresh_token="old"), HOUR)
    fresh = replace(HOUR, id="n", scope="")
    assert grant.followed(held, fresh, "new").grant.refresh_token == "new"
    kept = grant.followed(held, fresh, "")
    assert (kept.grant.refresh_token, kept.token.scope) == ("old", "tools")


def test_it_is_due_five_minutes_before_its_end_or_a_fifth_of_its_life_and_a_little_earlier_by_chance():
    assert grant.due_in_s(HOUR, NOW, 0.0) == 3300
    assert grant.due_in_s(HOUR, NOW, 1.0) == 3240
    assert grant.due_in_s(replace(HOUR, lifetime_s=10.0), NOW, 0.0) == 8
    assert grant.due_in_s(HOUR, NOW + 4000, 0.5) == 0
    assert grant.due_in_s(replace(HOUR, lifetime_s=None), NOW, 0.5) is None


@pytest.mark.edge(22)
def test_a_clock_that_is_five_minutes_off_ends_no_token_and_one_set_back_prolongs_none():
    assert not grant.is_over(HOUR, NOW + 3600 + 299)
    assert grant.is_over(HOUR, NOW + 3600 + 301)
    assert grant.left_s(HOUR, NOW - 7200) == 3600
    assert not grant.is_over(replace(HOUR, lifetime_s=None), NOW * 2)


def test_a_token_is_fresh_for_ten_seconds_or_half_its_life():
    assert grant.is_fresh(HOUR, 9.9)
    assert not grant.is_fresh(HOUR, 10.1)
    assert not grant.is_fresh(replace(HOUR, lifetime_s=2.0), 1.1)


def test_it_is_bound_to_address_and_auth_and_not_to_timeouts_or_what_the_query_holds():
    same = replace(REMOTE, url="https://SHOP.example/mcp?key=2", timeout_s=5, headers={"X": "1"})
    assert grant.binding(same) == grant.binding(REMOTE)
    for other in (
        replace(REMOTE, url="https://shop.example/other"),
        replace(REMOTE, url="http://shop.example/mcp"),
        replace(REMOTE, url="https://shop.example:8443/mcp"),
        replace(REMOTE, auth=None),
        replace(REMOTE, auth=AuthSpec("https://id/", "me", "s", "another")),
    ):
        assert grant.binding(other) != grant.binding(REMOTE)


def test_nothing_prints_a_secret():
    held = Holding("b", Grant("https://id/", "me", "secret-client", refresh_token="secret-refresh"), HOUR)
    assert "secret" not in repr(held)
    assert grant.from_stored(grant.to_stored(held)) == held
