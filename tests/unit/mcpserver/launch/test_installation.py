from pathlib import Path

import pytest

from mcpserver.launch import installation
from mcpserver.launch.installation import Installation
from mcpserver.lib.errors import GatewayError

ROOT = Path(__file__).resolve().parents[4]


def test_a_clone_without_its_lock_is_told_so(tmp_path):
    with pytest.raises(GatewayError, match="not complete"):
        Installation(tmp_path, print).ensure(tmp_path / "requirements.txt")


def test_the_fingerprint_follows_the_content(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text("a==1")
    first = installation.fingerprint(lock)
    lock.write_text("a==2")
    assert installation.fingerprint(lock) != first


@pytest.mark.parametrize("lock", ["requirements.txt", "tests/requirements.txt"])
def test_every_locked_release_has_a_hash_and_no_index_is_named(lock):
    entries = (ROOT / lock).read_text().replace("\\\n", " ").splitlines()
    releases = [line for line in entries if line and not line.startswith("#")]
    assert len(releases) > 50
    assert [line.split()[0] for line in releases if "==" not in line or "--hash=sha256:" not in line] == []
    assert "://" not in (ROOT / lock).read_text()
