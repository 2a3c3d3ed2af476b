"""What an HTTP client's errors mean, in words that give nothing away."""

from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp.http_exceptions import ContentEncodingError, ContentLengthError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from remotes.upstream.outcome import Fault
from remotes.upstream.session import classified, unexpected_status


def payload_error(cause: Exception) -> aiohttp.ClientPayloadError:
    error = aiohttp.ClientPayloadError("Response payload is not completed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (payload_error(ContentLengthError("too short")), Fault.BROKEN),
        (payload_error(ContentEncodingError("no gzip")), Fault.INVALID),
        (aiohttp.ServerDisconnectedError(), Fault.BROKEN),
        (aiohttp.ClientOSError(104, "Connection reset by peer"), Fault.BROKEN),
        (ConnectionResetError(), Fault.BROKEN),
        (TimeoutError(), Fault.TIMEOUT),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_classified_by_whether_the_remote_may_have_seen_the_request(error, fault):
    assert classified("remote", error, "answer").fault is fault


def test_the_address_that_an_error_quotes_is_not_repeated():
    url = URL("http://h/x?key=secret")
    info = aiohttp.RequestInfo(url, "POST", CIMultiDictProxy(CIMultiDict()), url)
    error = aiohttp.ClientResponseError(info, (), status=400, message="bad http://h/x?key=secret here")
    assert "secret" not in classified("remote", error, "answer").message


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]


def response(status: int, retry_after: str = "") -> Any:
    """As much of a response as is looked at."""
    return Answered(status, {"Retry-After": retry_after})


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


def test_a_401_is_about_our_credential():
    failure = unexpected_status("remote", response(401), b"x" * 10_000)
    assert (failure.fault, failure.phase, failure.status, len(failure.excerpt)) == (
        Fault.UNAUTHORIZED,
        "auth",
        401,
        4096,
    )


def test_a_redirect_says_that_it_is_not_followed():
    assert "not followed" in unexpected_status("remote", response(308), b"").message
