"""What was configured for a remote is in nothing that is told of its failures."""

import pytest

from remotes.config.snapshot import AuthSpec, RemoteSpec
from remotes.upstream.outcome import Answer, Failure, Fault, Refusal
from remotes.upstream.secrets import masked

SPEC = RemoteSpec(
    "r", "http", url="https://mcp.example/mcp?api=query-secret&page=1",
    headers={"Authorization": "Bearer header-secret", "X-Mode": "fast"}, env={"TOKEN": "variable-secret", "N": "1"},
    auth=AuthSpec("https://id.example", "me", "client-secret", "refresh-secret"),
)  # fmt: skip
QUOTED = (
    "got Bearer header-secret, header-secret, variable-secret, query-secret, client-secret, refresh-secret, fast 1 me"
)
CLEAN = "got [redacted], [redacted], [redacted], [redacted], [redacted], [redacted], fast 1 me"


def test_a_failure_tells_none_of_them():
    failure = Failure(Fault.INVALID, "answer", QUOTED, QUOTED.encode(), 500, detail=QUOTED)
    assert masked(SPEC, failure) == Failure(Fault.INVALID, "answer", CLEAN, CLEAN.encode(), 500, detail=CLEAN)


def test_a_refusal_tells_none_of_them_and_stays_json():
    refused = Refusal(b'{"code":-1,"message":"' + QUOTED.encode() + b'"}', 400)
    assert masked(SPEC, refused) == Refusal(b'{"code":-1,"message":"' + CLEAN.encode() + b'"}', 400)


def test_a_token_that_was_shown_is_told_of_as_little():
    failure = Failure(Fault.HTTP_STATUS, "http", "no: Bearer renewed-token")
    shown = {"Authorization": "Bearer renewed-token"}
    assert masked(SPEC, failure, shown) == Failure(Fault.HTTP_STATUS, "http", "no: [redacted]")


@pytest.mark.parametrize(
    "outcome", [Answer(QUOTED.encode(), False), Failure(Fault.BROKEN, "answer", "nothing"), Refusal(b"{}")]
)
def test_a_result_and_what_holds_no_secret_stay_the_same_object(outcome):
    assert masked(SPEC, outcome) is outcome
