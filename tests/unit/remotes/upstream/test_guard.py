"""The script between us and a stdio remote, run as what it is: a process."""

import os
import subprocess
import sys
from pathlib import Path

from remotes.upstream import stdio

GUARD = Path(stdio._GUARD)


def guarded(*command: str, parent: int | None = None, **options) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-I", "-S", str(GUARD), str(parent or os.getpid()), *command]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=10, check=False, **options)


def test_it_becomes_the_command_with_its_arguments_untouched():
    done = guarded("printf", "%s|", "a b", "$HOME", "; ls", "*", "")
    assert (done.returncode, done.stdout) == (0, "a b|$HOME|; ls|*||")


def test_a_command_that_does_not_exist_is_named_in_one_line_and_127():
    done = guarded("/nonexistent/server")
    assert (done.returncode, done.stderr) == (127, "/nonexistent/server: No such file or directory\n")


def test_a_command_that_may_not_run_is_named_in_one_line_and_127(tmp_path):
    (tmp_path / "server").write_text("no script")
    done = guarded(str(tmp_path / "server"))
    assert (done.returncode, done.stderr) == (127, f"{tmp_path}/server: Permission denied\n")


def test_it_starts_nothing_when_its_parent_is_gone_already():
    done = guarded("echo", "started", parent=1)
    assert (done.returncode, done.stdout) == (1, "")


def test_the_command_ignores_no_signal():
    done = guarded("grep", "SigIgn", "/proc/self/status")
    assert int(done.stdout.split()[1], 16) == 0


def test_the_command_inherits_no_descriptor():
    read, write = os.pipe()
    try:
        done = guarded("ls", "/proc/self/fd", pass_fds=(read, write))
        assert done.stdout.split() == ["0", "1", "2", "3"]  # the fourth is what ls opened to look
    finally:
        os.close(read)
        os.close(write)


def test_it_imports_nothing_of_the_project():
    source = GUARD.read_text()
    assert not any(line.startswith(("from ", "import remotes", "import mcpserver")) for line in source.splitlines())
