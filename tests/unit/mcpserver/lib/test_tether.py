"""The script between us and every child of ours, run as what it is: a process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcpserver.lib import tether


def run(argv: list[str], **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("alone", [False, True])
def test_it_becomes_the_command_with_its_arguments_untouched_and_its_exit_code(alone):
    done = run(
        tether.command(["sh", "-c", 'printf "%s|" "$@"; exit 3', "sh", "a b", "$HOME", "; ls", "*", ""], alone=alone)
    )
    assert (done.stdout, done.returncode) == ("a b|$HOME|; ls|*||", 3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_gets_term_when_who_started_it_is_killed():
    child = (
        "import signal, time; signal.signal(15, lambda *_: (print('told', flush=True), exit())); "
        "print('up', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys; from mcpserver.lib import tether; "
        f"subprocess.Popen(tether.command([sys.executable, '-c', {child!r}])).wait()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGKILL)
        assert process.stdout.readline() == "told\n"


def test_nothing_is_started_when_its_parent_is_gone_already():
    done = run([sys.executable, "-I", "-S", tether.__file__, "1", sys.executable, "-c", "print('ran')"])
    assert (done.stdout, done.returncode) == ("", 1)
    assert "its parent is gone" in done.stderr


def test_a_command_that_does_not_exist_is_named_in_one_line_and_127():
    done = run(tether.command(["/no/such/program"], alone=True))
    assert (done.returncode, done.stderr) == (127, "/no/such/program: No such file or directory\n")


def test_a_command_that_may_not_run_is_named_in_one_line_and_127(tmp_path):
    (tmp_path / "server").write_text("no script")
    done = run(tether.command([str(tmp_path / "server")]))
    assert (done.returncode, done.stderr) == (127, f"{tmp_path}/server: Permission denied\n")


def test_the_command_ignores_no_signal():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = run(tether.command(["grep", "SigIgn", "/proc/self/status"]))
    finally:
        signal.signal(signal.SIGINT, before)
    assert int(done.stdout.split()[1], 16) == 0


@pytest.mark.parametrize("alone", [False, True])
def test_descriptors_are_handed_on_but_to_one_that_is_to_be_alone(alone):
    read, write = os.pipe()
    try:
        done = run(tether.command(["readlink", f"/proc/self/fd/{write}"], alone=alone), pass_fds=(read, write))
        assert bool(done.stdout) is not alone
    finally:
        os.close(read)
        os.close(write)


def test_it_imports_nothing_of_the_project():
    source = Path(tether.__file__).read_text()
    assert not any(
        line.strip().startswith(("from ", "import remotes", "import mcpserver")) for line in source.splitlines()
    )
