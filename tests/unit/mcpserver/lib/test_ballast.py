import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
from django.db.utils import ConnectionHandler

from mcpserver.lib import ballast

pytestmark = pytest.mark.edge(12)


def test_the_ballast_is_made_where_there_is_plenty_and_takes_its_size_at_once(tmp_path: Path) -> None:
    database = tmp_path / "one.sqlite3"
    for _ in range(2):
        ballast.make_room(database)
    found = ballast.beside(database).stat()
    assert (found.st_size, found.st_blocks * 512) == (ballast.BALLAST_BYTES, ballast.BALLAST_BYTES)


def test_a_folder_that_is_not_there_is_left_to_who_opens(tmp_path: Path) -> None:
    ballast.make_room(tmp_path / "no" / "one.sqlite3")
    assert not (tmp_path / "no").exists()


def test_short_of_space_the_ballast_goes_unless_somebody_holds_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "one.sqlite3"
    ballast.make_room(database)
    room = iter([False, False, True, False, False])
    monkeypatch.setattr(ballast, "PLENTY_BYTES", float("inf"))
    monkeypatch.setattr(ballast, "_has_room", lambda _: next(room))
    holder = sqlite3.connect(database)
    holder.execute("PRAGMA journal_mode=WAL")
    holder.execute("CREATE TABLE here (one)")
    assert ballast.is_held(database)
    ballast.make_room(database)
    assert ballast.beside(database).exists()
    holder.close()
    ballast.make_room(database)
    assert not ballast.beside(database).exists()
    with pytest.raises(OSError, match="the disk is full"):
        ballast.make_room(database)


def test_only_a_connections_own_lock_says_that_it_is_held() -> None:
    lines = ["1: POSIX  ADVISORY  READ 5087 fd:00:4711 128 128", "2: FLOCK  ADVISORY  WRITE 12 fd:00:4712 0 EOF"]
    assert ballast.locks_index(lines, 4711)
    assert not ballast.locks_index(lines, 4712)
    assert not ballast.locks_index(lines, 711)
    assert not ballast.locks_index(["1: POSIX  ADVISORY  WRITE 5087 fd:00:4711 120 120", ""], 4711)


def test_room_is_taken_for_a_moment_and_nothing_of_it_stays(tmp_path: Path) -> None:
    assert ballast._has_room(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_database_that_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new.sqlite3"
    wrapper = ConnectionHandler({"default": {"ENGINE": "mcpserver.lib.sqlite", "NAME": str(file)}})["default"]
    with contextlib.closing(wrapper.get_new_connection(wrapper.get_connection_params())) as connection:
        connection.execute("CREATE TABLE secrets (one TEXT)")
    assert file.stat().st_mode & 0o777 == 0o600
