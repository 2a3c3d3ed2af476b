"""Logs that somebody else rotates: a real logrotate, while processes write."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.gateway import ROOT
from tests.system.tools import require

pytestmark = pytest.mark.edge(11)

# Writes so many lines in batches of its own making for each line that it reads, and says when they are in the file.
WRITER = """
import sys, time
from pathlib import Path
from mcpserver.lib import log
folder, who = Path(sys.argv[1]), sys.argv[2]
log.start("worker", folder, max_bytes=1_000_000, files=5, target="external")
number = 0
for line in sys.stdin:
    for _ in range(int(line)):
        log.access({"who": who, "number": number}, request="r", ms=1.5)
        number += 1
        time.sleep(0.0005)
    while log.state().waiting: time.sleep(0.01)
    time.sleep(0.2)
    print(number, flush=True)
log.stop()
"""
EACH = 600


class Writer:
    def __init__(self, folder: Path, who: str) -> None:
        command = [sys.executable, "-c", WRITER, str(folder), who]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def begin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{EACH}\n")

    def is_done(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline()


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[Writer]]:
    require("logrotate")
    (tmp_path / "logs").mkdir(mode=0o750)
    started = [Writer(tmp_path / "logs", who) for who in ("a", "b")]
    yield started
    for writer in started:
        writer.process.communicate(timeout=20)


def rotate(folder: Path, how: str) -> None:
    """The file of deploy/ with its folder changed, and one word in it; every rotation is due."""
    text = (ROOT / "deploy/logrotate/mcp-server").read_text()
    assert text.count("/var/log/mcp-server/") == text.count("nocreate") == 1
    config = folder / "logrotate.conf"
    config.write_text(text.replace("/var/log/mcp-server/", f"{folder}/logs/").replace("nocreate", how))
    config.chmod(0o644)
    words = ["logrotate", "--force", "--state", str(folder / "state"), str(config)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def written(folder: Path) -> list[tuple[str, int]]:
    """Every line of every file, those of logrotate's archives too."""
    for archive in (folder / "logs").glob("*.gz"):
        subprocess.run(["gunzip", str(archive)], check=True, timeout=30)
    files = (folder / "logs").glob("combined.log*")
    lines = [json.loads(line) for path in files for line in path.read_bytes().splitlines()]
    return sorted((line["who"], line["number"]) for line in lines)


@pytest.mark.parametrize("how", ["nocreate", "create 0640"])
def test_no_line_is_lost_while_files_are_moved_away(tmp_path: Path, writers: list[Writer], how: str) -> None:
    for _ in range(3):
        for writer in writers:
            writer.begin()
        rotate(tmp_path, how)
        for writer in writers:
            writer.is_done()
    assert written(tmp_path) == [(who, number) for who in "ab" for number in range(3 * EACH)]
    assert (tmp_path / "logs/combined.log").stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_copied_and_emptied_is_written_on_from_its_beginning(
    tmp_path: Path, writers: list[Writer]
) -> None:
    """In a quiet moment: what is written between the copy and the emptying is lost by logrotate itself."""
    for _ in range(2):
        for writer in writers:
            writer.begin()
        for writer in writers:
            writer.is_done()
        rotate(tmp_path, "copytruncate")
    for writer in writers:
        writer.begin()
    for writer in writers:
        writer.is_done()
    assert b"\0" not in (tmp_path / "logs/combined.log").read_bytes()
    assert written(tmp_path) == [(who, number) for who in "ab" for number in range(3 * EACH)]
