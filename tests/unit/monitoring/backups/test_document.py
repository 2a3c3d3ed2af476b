"""The file of a backup: whole or refused, whatever happened to its bytes."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.lib.errors import GatewayError
from monitoring.backups import document
from monitoring.backups.document import Backup

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECTIONS = {"config": {"text": "version: 1\n# größe\n"}, "keys": []}
SMALL = document.encode(SECTIONS, kind="daily", created_at=NOON, product="0.1.0", note="x")


def refusal(content: bytes, product: str = "0.1.0") -> str:
    with pytest.raises(GatewayError) as refused:
        document.read(content, product=product)
    return refused.value.code


def sealed(**changes: object) -> bytes:
    """A backup with a right checksum, as somebody could write it who knows how."""
    told = json.loads(SMALL) | changes
    told.pop("sha256")
    rest = (json.dumps(told, indent=1).removeprefix("{\n") + "\n").encode()
    return document._first(rest) + rest


def test_what_was_written_reads_back() -> None:
    assert document.read(SMALL, product="0.1.0") == Backup(
        "daily", NOON, "0.1.0", "x", SECTIONS, json.loads(SMALL)["sha256"]
    )
    assert SMALL.isascii()


@pytest.mark.edge(20)
def test_every_single_bit_counts() -> None:
    for position in range(len(SMALL)):
        for bit in range(8):
            flipped = bytearray(SMALL)
            flipped[position] ^= 1 << bit
            assert refusal(bytes(flipped)) in ("damaged", "not_a_backup"), (position, bit)


@pytest.mark.edge(20)
def test_every_length_but_its_own_is_refused() -> None:
    assert {refusal(SMALL[:length]) for length in range(100, len(SMALL))} == {"damaged"}
    assert {refusal(SMALL[:length]) for length in range(100)} <= {"damaged", "not_a_backup"}
    assert {refusal(SMALL + more) for more in (b"\n", b" ", b"\0", SMALL)} == {"damaged"}
    assert refusal(b"\xef\xbb\xbf" + SMALL) == "damaged"
    assert refusal(SMALL.replace(b"\n", b"\r\n")) == "damaged"


@pytest.mark.edge(20)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"null",
        b"version: 1\nmcpServers: {}\n",
        b'{"sha256"',
        b"\x00" * 500,
        b"PK\x03\x04",
        b"[" * 100_000,
        sealed(format="another-backup"),
        sealed(version="1"),
        sealed(version=0),
        sealed(version=True),
        sealed(product="yesterday"),
        sealed(kind="weekly"),
        sealed(created_at="soon"),
        sealed(created_at="2026-11-22T12:00:00"),
        sealed(sections=[]),
        sealed(note=None),
    ],
)
def test_a_foreign_file_is_refused(content: bytes) -> None:
    assert refusal(content) in ("not_a_backup", "damaged")


@pytest.mark.edge(20)
def test_a_backup_of_a_newer_version_says_which_version_can_read_it() -> None:
    for newer in (sealed(version=2), sealed(product="0.2.0"), sealed(product="1.0.0")):
        assert refusal(newer) == "newer_version"
    assert document.read(sealed(product="0.1.7"), product="0.1.0").product == "0.1.7"
    assert document.read(SMALL, product="2.0.0").product == "0.1.0"
    with pytest.raises(GatewayError, match=r"version 0\.2\.0 made this backup, this is 0\.1\.0"):
        document.read(sealed(product="0.2.0"), product="0.1.0")


@given(st.binary(max_size=400))
def test_no_bytes_are_more_than_refused(content: bytes) -> None:
    assert refusal(content) in ("not_a_backup", "damaged")
