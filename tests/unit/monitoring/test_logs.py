"""The log read back: filters, order, rotations."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from monitoring import logs

pytestmark = pytest.mark.edge(11)
ALL = logs.Wanted()


def write(path: Path, *numbers: int, **fields: Any) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps({"number": number, "level": "INFO", **fields}) + "\n" for number in numbers)


def numbers(lines: Any) -> list[int]:
    return [line["number"] for line in lines]


def test_the_last_lines_come_from_as_many_files_as_are_needed(tmp_path: Path) -> None:
    write(tmp_path / "combined.10.log", 1, 2)
    write(tmp_path / "combined.2.log", 3, 4)
    write(tmp_path / "combined.1.log", 5, 6)
    write(tmp_path / "combined.log", 7)
    write(tmp_path / "error.log", 99)
    assert numbers(logs.last(tmp_path, ALL, 4)) == [4, 5, 6, 7]
    assert numbers(logs.last(tmp_path, ALL, 100)) == [1, 2, 3, 4, 5, 6, 7]


def test_files_that_logrotate_made_are_read_too(tmp_path: Path) -> None:
    write(tmp_path / "combined.log.2", 1)
    write(tmp_path / "combined.log.1", 2)
    write(tmp_path / "combined.log", 3)
    (tmp_path / "combined.log.3.gz").write_bytes(b"\x1f\x8b")
    assert numbers(logs.last(tmp_path, ALL, 10)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (logs.Wanted(remote="docs"), [1]),
        (logs.Wanted(keys=frozenset({"k1", "k2"})), [1, 2]),
        (logs.Wanted(request="r2"), [2]),
        (logs.Wanted(level="warning"), [3]),
        (logs.Wanted(since=datetime(2026, 11, 22, 12, tzinfo=UTC)), [2, 3]),
        (logs.Wanted(remote="docs", level="error"), []),
    ],
)
def test_filters(tmp_path: Path, wanted: logs.Wanted, found: list[int]) -> None:
    path = tmp_path / "combined.log"
    write(path, 1, remote="docs", key="k1", request="r1", time="2026-11-22T11:59:59.999Z")
    write(path, 2, remote="shop", key="k2", request="r2", time="2026-11-22T12:00:00.000Z")
    write(path, 3, level="ERROR", time="2026-11-22T12:00:01.000Z")
    assert numbers(logs.last(tmp_path, wanted, 10)) == found


def test_what_is_no_line_of_ours_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "combined.log").write_bytes(b'\xff\x00{\n[1]\n{"number": 1}\n{"number": 2')
    assert numbers(logs.last(tmp_path, ALL, 10)) == [1]


def test_following_loses_and_doubles_nothing_over_rotations(tmp_path: Path) -> None:
    current = tmp_path / "combined.log"
    write(current, 0)
    tail = logs.Tail(tmp_path)
    write(current, 1)
    assert numbers(tail.news()) == [1]
    write(current, 2)
    for number in (3, 5):  # two rotations between two looks
        for old in reversed(logs.files(tmp_path)[:-1]):
            old.rename(tmp_path / f"combined.{int(old.name.split('.')[1]) + 1}.log")
        current.rename(tmp_path / "combined.1.log")
        write(current, number, number + 1)
    assert numbers(tail.news()) == [2, 3, 4, 5, 6]
    assert numbers(tail.news()) == []
    current.write_text("")
    assert numbers(tail.news()) == []
    write(current, 7)
    assert numbers(tail.news()) == [7]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    tail = logs.Tail(tmp_path)
    current = tmp_path / "combined.log"
    current.write_text('{"number"')
    assert numbers(tail.news()) == []
    with current.open("a") as file:
        file.write(": 1}\n")
    assert numbers(tail.news()) == [1]
