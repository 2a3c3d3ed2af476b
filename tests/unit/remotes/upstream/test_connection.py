"""What a handshake or a discovery told, and what a response means."""

import pytest

from mcpserver.protocol import jsonrpc
from remotes.upstream.connection import as_outcome, discovered, greeting
from remotes.upstream.outcome import Answer, Failed, Failure, Fault, Refusal

INITIALIZE = (
    b'{"protocolVersion":"2025-06-18","capabilities":{"tools":{"x":1}},"serverInfo":{"name":"s"},"instructions":"do"}'
)
DISCOVER = (
    b'{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"instructions":"do",'
    b'"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}}'
)


def test_an_initialize_result_is_read_whole():
    said = greeting("http", INITIALIZE)
    assert (said.transport, said.revision, said.instructions, said.server_info) == (
        "http",
        "2025-06-18",
        "do",
        b'{"name":"s"}',
    )
    assert bytes(said.capabilities["tools"]) == b'{"x":1}'
    assert not said.modern


def test_an_initialize_result_may_say_no_more_than_its_version():
    said = greeting("stdio", b'{"protocolVersion":"2025-06-18"}')
    assert (said.capabilities, said.server_info, said.instructions) == ({}, b"{}", "")


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b"[]",
        b'"x"',
        b"{}",
        b'{"protocolVersion":7}',
        b'{"protocolVersion":null}',
        b'{"protocolVersion":"2025-06-18","capabilities":[]}',
        b'{"protocolVersion":"2025-06-18","capabilities":"all"}',
        b'{"protocolVersion":"2025-06-18","capabilities":null}',
    ],
)
def test_what_is_no_initialize_result_is_a_failed_handshake_with_an_excerpt(raw):
    with pytest.raises(Failed) as failed:
        greeting("http", raw)
    failure = failed.value.failure
    assert (failure.fault, failure.phase, failure.excerpt) == (Fault.INVALID, "handshake", raw)


def test_an_excerpt_is_never_longer_than_4_kib():
    with pytest.raises(Failed) as failed:
        greeting("http", b'{"x":"' + b"a" * 10_000 + b'"}')
    assert len(failed.value.failure.excerpt) == 4096


def test_a_discover_result_is_read_whole():
    said = discovered("http", DISCOVER)
    assert said is not None
    assert (said.revision, said.instructions, said.server_info, said.modern) == (
        "2026-07-28",
        "do",
        b'{"name":"s"}',
        True,
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b"[]",
        b"{}",
        b'{"supportedVersions":["2025-11-25"]}',
        b'{"supportedVersions":"2026-07-28"}',
        b'{"supportedVersions":[7,"2026-07-28"]}',
        b'{"supportedVersions":["2026-07-28"],"capabilities":[]}',
        b'{"supportedVersions":["2026-07-28"],"_meta":7}',
    ],
)
def test_what_is_no_discover_result_of_this_era_is_none(raw):
    assert discovered("http", raw) is None


def test_a_result_is_an_answer_in_the_era_it_was_asked_in():
    response = jsonrpc.Response(b"1", result=b'{"a":1}')
    assert as_outcome("r", response, modern=True) == Answer(b'{"a":1}', True)


def test_an_error_is_a_refusal_with_its_bytes_and_its_status():
    error = b'{"code":-32602,"message":"no","data":[1.0]}'
    assert as_outcome("r", jsonrpc.Response(b"1", error=error), modern=False, status=400) == Refusal(error, 400)


@pytest.mark.parametrize(
    "error",
    [b"null", b'"boom"', b"[]", b"{}", b'{"code":"x","message":"m"}', b'{"code":1}', b'{"code":1,"message":null}'],
)
def test_an_error_that_is_none_is_a_failure_that_quotes_it(error):
    outcome = as_outcome("r", jsonrpc.Response(b"1", error=error), modern=False)
    assert isinstance(outcome, Failure)
    assert (outcome.fault, outcome.excerpt) == (Fault.INVALID, error)
