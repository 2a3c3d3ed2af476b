"""What an operator is told about a remote that failed: the step, the word, and what to do, without a secret in it."""

import itertools

import pytest

from remotes.config.snapshot import RemoteSpec
from remotes.diagnosis import Phase, diagnose, overrun
from remotes.upstream.outcome import Failure, Fault

HTTP = RemoteSpec("shop", "http", url="https://user:pass-word@shop.example/mcp?key=sec-ret")
STDIO = RemoteSpec("local", "stdio", command="uvx", args=("--token", "sec-ret"))


@pytest.mark.parametrize(
    ("spec", "failure", "reached", "phase", "error"),
    [
        (HTTP, Failure(Fault.NOT_SENT, "dns", ""), Phase.DNS, Phase.DNS, "unreachable"),
        (HTTP, Failure(Fault.NOT_SENT, "tcp", ""), Phase.TCP, Phase.TCP, "unreachable"),
        (HTTP, Failure(Fault.NOT_SENT, "tls", ""), Phase.TCP, Phase.TLS, "unreachable"),
        (HTTP, Failure(Fault.HTTP_STATUS, "http", "", status=404), Phase.HANDSHAKE, Phase.HTTP, "http_status"),
        (HTTP, Failure(Fault.UNAUTHORIZED, "auth", "", status=401), Phase.HANDSHAKE, Phase.AUTH, "auth_expired"),
        (HTTP, Failure(Fault.HTTP_STATUS, "http", "", status=403), Phase.HANDSHAKE, Phase.AUTH, "http_status"),
        (HTTP, Failure(Fault.UNAUTHORIZED, "auth", "", status=401), Phase.LIST, Phase.AUTH, "auth_expired"),
        (HTTP, Failure(Fault.TIMEOUT, "answer", ""), Phase.HTTP, Phase.HTTP, "timeout"),
        (HTTP, Failure(Fault.INVALID, "answer", ""), Phase.HANDSHAKE, Phase.HANDSHAKE, "invalid"),
        (HTTP, Failure(Fault.BROKEN, "answer", ""), Phase.HTTP, Phase.HTTP, "connection_lost"),
        (HTTP, Failure(Fault.HTTP_STATUS, "http", "", status=503), Phase.LIST, Phase.LIST, "http_status"),
        (HTTP, Failure(Fault.NOT_SENT, "tcp", ""), Phase.LIST, Phase.TCP, "unreachable"),
        (STDIO, Failure(Fault.NOT_SENT, "spawn", ""), Phase.HANDSHAKE, Phase.SPAWN, "not_started"),
        (STDIO, Failure(Fault.BROKEN, "answer", ""), Phase.HANDSHAKE, Phase.SPAWN, "not_started"),
        (STDIO, Failure(Fault.BROKEN, "answer", ""), Phase.LIST, Phase.LIST, "connection_lost"),
        (STDIO, Failure(Fault.INVALID, "handshake", ""), Phase.HANDSHAKE, Phase.HANDSHAKE, "invalid"),
        (STDIO, overrun("local", Phase.HANDSHAKE, 10), Phase.HANDSHAKE, Phase.HANDSHAKE, "timeout"),
    ],
)
def test_each_failure_has_its_step_and_its_word(spec, failure, reached, phase, error):
    found = diagnose(spec, failure, reached)
    assert (found.phase, found.error) == (phase, error)


@pytest.mark.parametrize("spec", [HTTP, STDIO])
def test_every_failure_has_advice_that_quotes_no_credential(spec):
    for fault, phase, status in itertools.product(Fault, Phase, (0, 301, 403, 404, 429, 500)):
        found = diagnose(spec, Failure(fault, phase, "", status=status), phase)
        assert found.hint
        assert "sec-ret" not in found.hint
        assert "pass-word" not in found.hint


def test_a_folder_that_is_missing_is_told_from_a_program_that_is():
    nowhere = RemoteSpec("local", "stdio", command="sh", cwd="/nowhere")
    for told, words in (("'/nowhere'", "`cwd`"), ("'sh'", "is sh installed")):
        failure = Failure(Fault.NOT_SENT, "spawn", "", detail=f"'sh': [Errno 2] No such file or directory: {told}")
        assert words in diagnose(nowhere, failure, Phase.SPAWN).hint


def test_an_overrun_says_what_it_was_waiting_for():
    assert overrun("shop", Phase.TLS, 10.002).message == "shop: time was up after 10 s, in the TLS handshake"


def test_an_address_that_is_not_allowed_is_told_from_a_name_that_does_not_exist():
    refused = Failure(Fault.NOT_SENT, "dns", "shop resolves to what allow_private_networks does not allow")
    assert "allow_private_networks" in diagnose(HTTP, refused, Phase.DNS).hint
    assert "getent hosts shop.example" in diagnose(HTTP, Failure(Fault.NOT_SENT, "dns", "no"), Phase.DNS).hint


def test_an_address_is_named_with_its_port():
    assert "shop.example:443" in diagnose(HTTP, Failure(Fault.NOT_SENT, "tcp", ""), Phase.TCP).hint
    six = RemoteSpec("six", "http", url="http://[::1]:81/mcp")
    assert "[::1]:81" in diagnose(six, Failure(Fault.NOT_SENT, "tcp", ""), Phase.TCP).hint


@pytest.mark.parametrize(
    ("headers", "fault", "words"),
    [
        ({}, Fault.UNAUTHORIZED, "mcp remote login shop"),
        ({"authorization": "Bearer x"}, Fault.UNAUTHORIZED, "in the headers of shop"),
        ({}, Fault.NOT_SENT, "its authorization server"),
    ],
)
def test_who_refuses_a_credential_decides_what_to_do(headers, fault, words):
    spec = RemoteSpec("shop", "http", url="https://shop.example/mcp", headers=headers)
    found = diagnose(spec, Failure(fault, "auth", "no", status=401 if fault is Fault.UNAUTHORIZED else 0), Phase.HTTP)
    assert found.phase is Phase.AUTH
    assert words in found.hint
