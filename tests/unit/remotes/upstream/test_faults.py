"""What an HTTP remote's failures mean, in words that give nothing away."""

from unittest.mock import Mock

import pytest

from remotes.upstream.faults import classified, unexpected_status
from remotes.upstream.http1 import Broken, NotHttp, Response, TooLarge, Unreachable
from remotes.upstream.outcome import Failure, Fault, untold


@pytest.mark.parametrize(
    ("error", "fault", "phase"),
    [
        (Unreachable("dns", "no such name"), Fault.NOT_SENT, "dns"),
        (Unreachable("tls", "certificate has expired"), Fault.NOT_SENT, "tls"),
        (Unreachable("tcp", "Connection refused"), Fault.NOT_SENT, "tcp"),
        (Broken("was reset without a byte of an answer"), Fault.BROKEN, "answer"),
        (NotHttp("Expected HTTP/"), Fault.INVALID, "answer"),
        (TooLarge("more than 5 bytes"), Fault.TOO_LARGE, "answer"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_classified_by_whether_the_remote_may_have_seen_the_request(error, fault, phase):
    failure = classified("shop", error, "answer")
    assert (failure.fault, failure.phase) == (fault, phase)
    assert "shop" in failure.message
    assert str(error) in failure.message


def response(status: int, retry_after: str = "") -> Response:
    return Response(status, {b"retry-after": retry_after.encode("latin-1", "replace")}, Mock())


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("\u00b2", None),
        ("\u0663", None),
        ("9" * 400, None),
        ("Fri, 31 Dec 1999", None),
    ],
)
def test_a_retry_after_is_seconds_or_nothing(said, seconds):
    assert unexpected_status("remote", response(503, said), b"").retry_after_s == seconds


def test_a_401_is_about_our_credential_and_repeats_nothing_of_what_may_quote_it():
    failure = unexpected_status("remote", response(401), b"you sent: Bearer secret")
    assert (failure.fault, failure.phase, failure.status, failure.excerpt) == (Fault.UNAUTHORIZED, "auth", 401, b"")


def test_a_redirect_says_that_it_is_not_followed():
    assert "not followed" in unexpected_status("remote", response(308), b"").message


def test_an_error_page_that_quotes_our_credential_is_quoted_without_it():
    failure = Failure(
        Fault.HTTP_STATUS, "http", "shop answered HTTP 500", b"GET /mcp Authorization: Bearer abcdef-123 X: short", 500
    )
    assert untold(failure, ("Bearer abcdef-123", "short")).excerpt == b"GET /mcp Authorization: [redacted] X: short"
    assert untold(failure, ("Token abcdef-123",)).excerpt == b"GET /mcp Authorization: Bearer [redacted] X: short"
    assert untold(failure, ()) is failure
