"""What is tried again: the whole table, with the time that is left."""

import pytest

from gateway.policy.retry import Attempt, is_repeatable, wait_s
from remotes.upstream.outcome import Failure, Fault

UNSENT = Failure(Fault.NOT_SENT, "tcp", "")
BROKEN = Failure(Fault.BROKEN, "answer", "")


def wait(
    failure: Failure, method: str = "tools/call", tried: int = 1, left_s: float = 60.0, **more: bool
) -> float | None:
    return wait_s(Attempt(method, failure, tried, left_s, **more), 0.5)


@pytest.mark.edge(1)
def test_what_the_remote_has_not_seen_is_tried_three_more_times():
    assert [wait(UNSENT, tried=tried) for tried in (1, 2, 3, 4)] == [1, 2, 4, None]


@pytest.mark.edge(1)
@pytest.mark.parametrize("chance", [0.0, 0.25, 0.999])
def test_waits_are_spread_by_a_fifth(chance):
    waits = [wait_s(Attempt("ping", UNSENT, tried, 60), chance) for tried in (1, 2, 3)]
    for found, middle in zip(waits, (1, 2, 4), strict=True):
        assert found is not None
        assert 0.8 * middle <= found <= 1.2 * middle


@pytest.mark.edge(1)
def test_no_wait_reaches_beyond_the_deadline():
    assert wait(UNSENT, tried=3, left_s=4.1) == 4
    assert wait(UNSENT, tried=3, left_s=4.0) is None


SENT = [
    BROKEN,
    Failure(Fault.TIMEOUT, "answer", ""),
    Failure(Fault.HTTP_STATUS, "http", "", status=503),
    Failure(Fault.HTTP_STATUS, "http", "", status=429, retry_after_s=1),
]


@pytest.mark.edge(1)
@pytest.mark.parametrize("failure", SENT)
@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "completion/complete", "tasks/result"])
def test_a_call_that_may_have_been_executed_is_never_repeated(failure, method):
    assert wait(failure, method) is None


@pytest.mark.edge(1)
@pytest.mark.parametrize("failure", SENT)
def test_reads_and_tools_that_allow_it_are_repeated(failure):
    assert wait(failure, "resources/read") is not None
    assert wait(failure, may_repeat=True) is not None


@pytest.mark.edge(1)
def test_a_handshake_that_failed_before_the_call_was_sent_lets_it_be_tried_again():
    for failure in SENT:
        unsent = Failure(failure.fault, failure.phase, "", status=failure.status, before_request=True)
        assert wait(unsent) is not None


def test_the_remote_s_own_word_on_when_to_come_back_counts_if_it_fits():
    busy = Failure(Fault.HTTP_STATUS, "http", "", status=503, retry_after_s=7)
    assert wait(busy, "resources/read") == 7
    assert wait(busy, "resources/read", left_s=7) is None
    soon = Failure(Fault.HTTP_STATUS, "http", "", status=429, retry_after_s=0)
    assert wait(soon, "resources/read") == 1


@pytest.mark.parametrize(
    "failure",
    [
        Failure(Fault.INVALID, "handshake", "", before_request=True),
        Failure(Fault.HTTP_STATUS, "http", "", status=404, before_request=True),
        Failure(Fault.UNAUTHORIZED, "auth", "", status=401),
        Failure(Fault.TOO_LARGE, "answer", ""),
        Failure(Fault.NOT_SENT, "spawn", ""),
        Failure(Fault.BUSY, "send", ""),
        Failure(Fault.DEGRADED, "send", ""),
    ],
)
def test_what_will_be_the_same_a_second_later_is_not_tried_again(failure):
    assert wait(failure, "resources/read", may_repeat=True) is None


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (b'{"name":"t","annotations":{"idempotentHint":true}}', True),
        (b'{"name":"t","annotations":{"readOnlyHint":true}}', True),
        (b'{"name":"t","annotations":{"readOnlyHint":false,"destructiveHint":false}}', False),
        (b'{"name":"t","annotations":{"readOnlyHint":"yes"}}', False),
        (b'{"name":"t","annotations":null}', False),
        (b'{"name":"t"}', False),
        (b"", False),
    ],
)
def test_a_tool_may_be_repeated_only_if_it_says_so(tool, expected):
    assert is_repeatable(tool) is expected
