import time

import pytest

from mcpserver.lib import redact

KEY = "mcp_0a1B2c3D4e_" + "x9Y" * 16 + "z"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"refused {KEY} from 10.0.0.1", "refused mcp_0a1B2c3D4e_[redacted] from 10.0.0.1"),
        ("sent Bearer abc.def-ghi to it", "sent Bearer [redacted] to it"),
        ("Authorization: Basic dXNlcjpwYXNz\nnext", "Authorization: [redacted]\nnext"),
        ('{"x-api-key": "s3cr3t", "a": 1}', '{"x-api-key": "[redacted]", "a": 1}'),
        ("Cookie: a=1; b=2", "Cookie: [redacted]"),
        (
            "GET https://me:pa@ss@host/x?a=1&access_token=t0k&b=2",
            "GET https://[redacted]@host/x?a=1&access_token=[redacted]&b=2",
        ),
        ("https://host/cb?code=4%2Fabc&state=1", "https://host/cb?code=[redacted]&state=1"),
        ("client_secret=hush, done", "client_secret=[redacted], done"),
        (f"got {JWT}", "got [redacted]"),
    ],
)
def test_a_secret_in_text_is_masked_and_the_rest_stays(text: str, expected: str) -> None:
    assert redact.text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "mcp_connection_authentication_seconds_total 3",
        "tools/call demo__echo took 12 ms",
        "https://host:8080/path?page=2",
        "50 tokens were counted",
    ],
)
def test_words_that_are_no_secret_stay_as_they_are(text: str) -> None:
    assert redact.text(text) == text


def test_fields_are_masked_by_their_name_at_any_depth() -> None:
    document = {
        "headers": {"Authorization": "x", "accept": "y"},
        "auth": [{"refreshToken": "z", "password": ""}],
        "token": 5,
    }
    assert redact.document(document) == {
        "headers": {"Authorization": "[redacted]", "accept": "y"},
        "auth": [{"refreshToken": "[redacted]", "password": ""}],
        "token": 5,
    }


def test_a_document_of_any_depth_is_answered_and_the_deepest_part_is_hidden() -> None:
    document: object = KEY
    for _ in range(5000):
        document = [document]
    assert KEY not in str(redact.document(document))


@pytest.mark.parametrize("unit", ["token", "://", "mcp_", "bearer ", "eyJ", "authorization:", "a?key=", "eyJaaaaaaaa."])
def test_no_text_of_a_stranger_makes_the_search_slow(unit: str) -> None:
    hostile = unit * (200_000 // len(unit))
    began = time.process_time()
    redact.text(hostile)
    assert time.process_time() - began < 2
