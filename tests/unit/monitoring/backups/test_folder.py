"""The folder of backups: what is kept, what goes, and whose files are never touched."""

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mcpserver.lib.errors import GatewayError
from monitoring.backups import folder

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


def put(where: Path, number: int, kind: str = "change", *, becomes_latest: bool = True) -> str:
    at = NOON + timedelta(minutes=number)
    return folder.put(where, b"%d" % number, kind=kind, at=at, becomes_latest=becomes_latest).name  # type: ignore[arg-type]


def test_a_backup_is_named_by_its_time_and_kind_and_the_latest_is_a_copy(tmp_path: Path) -> None:
    assert put(tmp_path, 0, "daily") == "backup-20261122T120000Z-123456-daily.json"
    put(tmp_path, 1, "restore", becomes_latest=False)
    assert (tmp_path / folder.LATEST).read_bytes() == b"0"
    assert [(one.kind, one.at, one.size) for one in folder.kept(tmp_path)] == [
        ("restore", NOON + timedelta(minutes=1), 1),
        ("daily", NOON, 1),
    ]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.edge(12)
@pytest.mark.edge(20)
def test_the_newest_of_each_kind_are_kept(tmp_path: Path) -> None:
    daily = [put(tmp_path, number, "daily") for number in range(12)]
    change = [put(tmp_path, number, "change") for number in range(3)]
    folder.remove(folder.superfluous(folder.kept(tmp_path), 10))
    assert {one.path.name for one in folder.kept(tmp_path)} == {*daily[2:], *change}


def test_what_has_another_name_is_neither_listed_nor_removed(tmp_path: Path) -> None:
    foreign = {"backup-1.json", "backup-20261399T120000Z-123456-daily.json", "notes.txt", folder.LATEST}
    for name in foreign:
        (tmp_path / name).touch()
    (tmp_path / "backup-20261122T120000Z-123456-daily.json").mkdir()
    (tmp_path / "backup-20261122T120000Z-123456-change.json").symlink_to("notes.txt")
    assert folder.kept(tmp_path) == []
    assert folder.kept(tmp_path / "nowhere") == []


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path: Path) -> None:
    leftover = tmp_path / ".backup-20261122T120000Z-123456-daily.json.0a1b.tmp"
    leftover.touch()
    with folder.locked(tmp_path):
        assert not leftover.exists()


def test_only_a_file_is_read_and_never_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for name, code in (("pipe.json", "not_a_backup"), ("none.json", "not_found"), (".", "unreadable")):
        with pytest.raises(GatewayError) as refused:
            folder.content(tmp_path / name)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk_full"), (errno.EROFS, "read_only"), (errno.EACCES, "read_only"), (errno.EIO, "io_error")],
)
def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(number: int, code: str) -> None:
    error = folder.unwritable(Path("/backups"), OSError(number, "why"))
    assert (error.code, error.message[:27]) == (code, "/backups cannot be written:")
    assert error.hint
