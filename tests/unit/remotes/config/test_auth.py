"""What an entry's `auth` may say, and what is wrong with it otherwise."""

from pathlib import Path

import pytest

from remotes.config import load
from remotes.config.snapshot import AuthSpec


def reading(auth, **entry):
    extra = "".join(f"    {name}: {value}\n" for name, value in entry.items())
    text = f"version: 1\nmcpServers:\n  shop:\n    url: https://shop.example/mcp\n    auth: {auth}\n{extra}"
    return load.read(text, {"S": "secret"}, Path("/"))


@pytest.mark.parametrize(
    ("auth", "spec"),
    [
        ("{type: oauth}", AuthSpec()),
        ("{}", AuthSpec()),
        ("{client_id: me, client_secret: '${S}', scope: a b}", AuthSpec("", "me", "secret", "", "a b")),
        ("{client_metadata_url: 'https://me.example/c.json'}", AuthSpec(client_metadata_url="https://me.example/c.json")),
        ("{token_url: 'https://id.example/t', client_id: me, client_secret: '${S}', resource: 'https://shop.example/mcp'}",
         AuthSpec("https://id.example/t", "me", "secret", resource="https://shop.example/mcp")),
    ],
)  # fmt: skip
def test_a_login_or_a_token_url(auth, spec):
    found = reading(auth)
    assert not found.errors
    assert found.snapshot.remotes["shop"].auth == spec


@pytest.mark.parametrize(
    ("auth", "code", "words"),
    [
        ("{refresh_token: r}", "missing_field", "`token_url` is required"),
        ("{token_url: 'https://id.example/t', client_secret: s}", "missing_field", "`client_id` is required"),
        ("{token_url: 'https://id.example/t', client_id: me}", "missing_field", "`refresh_token` or `client_secret`"),
        (
            "{type: oauth, token_url: 'https://id.example/t', client_id: me, client_secret: s}",
            "contradiction",
            "found out",
        ),
        ("{client_metadata_url: 'http://me.example/c.json'}", "bad_url", "it must be https"),
        ("{token_url: 'http://169.254.169.254/t', client_id: me, client_secret: s}", "forbidden_address", "never"),
        ("{type: basic}", "bad_value", "oauth"),
    ],
)
def test_what_is_wrong_is_said(auth, code, words):
    errors = reading(auth).errors
    assert [error.code for error in errors] == [code]
    assert words in errors[0].message
