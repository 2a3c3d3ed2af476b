from pathlib import Path

import pytest

from monitoring import resources
from monitoring.health import Disk


def test_the_disk_of_a_folder_that_is_yet_to_be_made_is_that_of_its_parent(tmp_path: Path) -> None:
    disk = resources.disk(tmp_path / "not" / "yet")
    assert disk.percent is not None
    assert 0 <= disk.percent <= 100
    assert disk.free_mb == pytest.approx(resources.disk(tmp_path).free_mb, abs=500)


@pytest.mark.edge(12)
def test_a_file_system_without_inodes_has_stopped_writes_however_many_bytes_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resources.disk(tmp_path).stopped_writes is False
    monkeypatch.setattr(resources, "INODES_RESERVE", float("inf"))
    disk = resources.disk(tmp_path)
    assert disk.stopped_writes is (disk.free_inodes is not None)


@pytest.mark.edge(12)
def test_a_disk_that_is_all_but_full_has_stopped_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "DISK_RESERVE_MB", float("inf"))
    assert resources.disk(tmp_path).stopped_writes
    assert not Disk().stopped_writes


@pytest.mark.edge(22)
def test_the_kernel_is_asked_whether_the_clock_is_synchronised() -> None:
    assert resources.clock_synchronised() in {True, False, None}
