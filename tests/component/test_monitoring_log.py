"""The log with its real faults: several processes at once, a file that cannot grow, a folder that cannot be written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from monitoring import logs
from tests.component.real_gateway import until

PRELUDE = """
import logging, resource, sys, time
from pathlib import Path
from mcpserver.lib import log
folder = Path(sys.argv[1])
"""


def run(script: str, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PRELUDE + script, str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def written(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in folder.glob("combined*.log") for line in path.read_text().splitlines()]


@pytest.mark.edge(11)
def test_no_line_is_lost_or_torn_when_three_processes_rotate_the_same_files(tmp_path: Path) -> None:
    script = """
log.start("worker", folder, max_bytes=64_000, files=100)
for number in range(3000):
    log.access({"who": sys.argv[2], "number": number}, request="r", ms=1.5)
    if number % 100 == 0:
        time.sleep(0.01)  # many small batches, so that the processes meet at the file
log.stop()
"""
    writers = [run(script, tmp_path, str(who)) for who in range(3)]
    ends = [writer.communicate(timeout=60) for writer in writers]
    assert [end[1] for end in ends] == ["", "", ""]
    found = sorted((str(line["who"]), line["number"]) for line in written(tmp_path))
    assert found == sorted((str(who), number) for who in range(3) for number in range(3000))
    assert len(list(tmp_path.glob("combined.*.log"))) > 5


@pytest.mark.edge(11)
def test_who_follows_the_log_sees_each_line_once_while_processes_rotate_it(tmp_path: Path) -> None:
    script = """
log.start("worker", folder, max_bytes=20_000, files=50)
for number in range(1500):
    log.access({"who": sys.argv[2], "number": number}, request="r", ms=1.5)
    if number % 50 == 0: time.sleep(0.02)
log.access({"who": sys.argv[2], "number": "last"}, request="r", ms=1.5)
log.stop()
"""
    (tmp_path / "combined.log").touch()
    tail, seen = logs.Tail(tmp_path), list[dict[str, object]]()

    def have_ended() -> bool:
        seen.extend(tail.news())
        return sum(line["number"] == "last" for line in seen) == 2

    writers = [run(script, tmp_path, str(who)) for who in range(2)]
    until(have_ended, "both have written their last line")
    for who in ("0", "1"):
        assert [line["number"] for line in seen if line["who"] == who] == [*range(1500), "last"]
    assert len(list(tmp_path.glob("combined.*.log"))) > 5
    assert [writer.communicate(timeout=10)[1] for writer in writers] == ["", ""]


@pytest.mark.edge(11)
@pytest.mark.edge(12)
def test_a_file_that_cannot_grow_loses_whole_lines_counts_them_and_says_so_once_it_can(tmp_path: Path) -> None:
    script = """
def settle():
    while log.state().waiting: time.sleep(0.01)
    time.sleep(0.3)
log.start("gateway", folder, max_bytes=1_000_000, files=5)
log.access({"number": 0}, request="r", ms=1.5); settle()
resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))
for number in range(1, 6):
    log.access({"number": number}, request="r", ms=1.5)
settle()
logging.getLogger("a").info("lost too"); settle()
full = log.state()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.access({"number": 6}, request="r", ms=1.5); settle()
after = log.state(); log.stop()
print(full.dropped, full.stopped, after.dropped, after.stopped)
"""
    out, err = run(script, tmp_path).communicate(timeout=60)
    assert out.split() == ["6", "True", "6", "False"]
    assert err.count("\n") == 1
    assert "log lines are dropped and counted" in err
    assert [(line.get("number"), line.get("dropped")) for line in written(tmp_path)] == [
        (0, None),
        (None, 6),
        (6, None),
    ]


@pytest.mark.edge(12)
def test_that_writing_resumed_is_known_although_nobody_has_anything_to_say(tmp_path: Path) -> None:
    script = """
log.RETRY_S = 0.05
log.start("gateway", folder, max_bytes=1_000_000, files=5)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
logging.getLogger("a").error("lost")
while not log.state().stopped: time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
while log.state().stopped: time.sleep(0.01)
log.stop()
"""
    _, err = run(script, tmp_path).communicate(timeout=60)
    assert "Traceback" not in err
    assert [line.get("dropped") for line in written(tmp_path)] == [1]


def test_a_folder_that_cannot_be_made_stops_no_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    script = """
log.start("gateway", folder, max_bytes=1_000_000, files=5)
log.access({"number": 0}, request="r", ms=1.5)
log.stop()
print("served")
"""
    out, err = run(script, tmp_path / "file" / "logs").communicate(timeout=60)
    assert out == "served\n"
    assert "Not a directory" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("target", ["external", "stdout"])
def test_others_may_rotate_or_keep_the_lines(tmp_path: Path, target: str) -> None:
    script = """
log.start("gateway", folder, max_bytes=1_000, files=5, target=sys.argv[2])
for number in range(30): log.access({"number": number}, request="r", ms=1.5)
log.stop()
"""
    out, _ = run(script, tmp_path, target).communicate(timeout=60)
    text = out if target == "stdout" else (tmp_path / "combined.log").read_text()
    assert [json.loads(line)["number"] for line in text.splitlines()] == list(range(30))


def test_nobody_waits_for_a_reader_that_does_not_read_not_even_the_end_of_the_process(tmp_path: Path) -> None:
    script = """
log.start("gateway", folder, max_bytes=1_000, files=5, target="stdout")
for number in range(30_000): log.access({"number": number, "padding": "x" * 100}, request="r", ms=1.5)
time.sleep(0.5)
log.access({}, request="r", ms=1.5)
print(log.state().dropped > 0, file=sys.stderr)
log.stop()
"""
    # The pipe is full after 64 KiB.
    process = run(script, tmp_path)
    assert process.stderr is not None
    assert process.stderr.readline() == "True\n"
    assert process.wait(timeout=30) == 0
    process.communicate(timeout=10)
