"""Reading the configuration and the files that it names: every trouble has a name, and none makes anybody wait."""

import os
from pathlib import Path

import pytest

from mcpserver.lib.errors import Exit, GatewayError
from remotes.config import files
from remotes.config.document import TEXT_MAX_BYTES


def refusal_of(path):
    with pytest.raises(GatewayError) as raised:
        files.read(path)
    assert (raised.value.code, raised.value.exit_code) == ("invalid_config", Exit.CONFIG)
    assert raised.value.message.startswith(str(path))
    (problem,) = raised.value.facts["errors"]
    return problem


def test_the_text_is_read_byte_for_byte(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_bytes("\ufeffa: ü\r\n".encode())
    assert files.read(path) == "\ufeffa: ü\r\n"


def test_what_is_not_utf8_is_refused_with_its_place(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    problem = refusal_of(path)
    assert (problem["code"], problem["line"], problem["column"]) == ("encoding", 2, 4)


def test_what_is_too_large_is_refused_and_what_just_fits_is_not(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_bytes(b"#" * TEXT_MAX_BYTES)
    assert len(files.read(path)) == TEXT_MAX_BYTES
    path.write_bytes(b"#" * (TEXT_MAX_BYTES + 1))
    assert refusal_of(path)["code"] == "too_large"


def test_a_folder_in_its_place_is_refused(tmp_path):
    assert refusal_of(tmp_path)["code"] == "unreadable"


def test_a_missing_file_points_at_the_last_known_good_one(tmp_path):
    path = tmp_path / "it.yaml"
    assert "./start" in refusal_of(path)["hint"]
    assert files.keep_as_good(path, "mcpServers: {}")
    assert "cp .mcp-config.backup.yaml it.yaml" in refusal_of(path)["hint"]


def test_a_secret_is_read_from_its_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    assert files.read_secret(str(path)) == "s3cret\n"


@pytest.mark.timeout(10)
def test_a_secret_that_cannot_be_used_is_none_and_waits_for_nobody(tmp_path):
    fifo, large, binary = tmp_path / "fifo", tmp_path / "large", tmp_path / "binary"
    os.mkfifo(fifo)
    large.write_bytes(b"x" * (files.SECRET_MAX_BYTES + 1))
    binary.write_bytes(b"\xff\xfe")
    for path in (large, binary, tmp_path, tmp_path / "absent", Path("/nul\0")):
        assert files.read_secret(str(path)) is None
    assert not files.read_secret(str(fifo))
