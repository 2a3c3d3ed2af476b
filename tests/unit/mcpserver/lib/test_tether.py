import signal
import subprocess
import sys

import pytest

from mcpserver.lib import tether

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")


def run(argv: list[str], **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, **options)  # type: ignore[call-overload, no-any-return]


def test_the_command_runs_with_its_own_arguments_and_exit_code():
    done = run(tether.command([sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(3)", "a b", ""]))
    assert (done.stdout, done.returncode) == ("['a b', '']\n", 3)


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


def test_a_parent_that_is_gone_already_is_not_waited_for():
    done = run([sys.executable, "-I", "-S", tether.__file__, "1", sys.executable, "-c", "print('ran')"])
    assert (done.stdout, done.returncode) == ("", 1)
    assert "its parent is gone" in done.stderr


def test_a_command_that_is_not_there_says_so():
    done = run(tether.command(["/no/such/program"]))
    assert done.returncode == 1
    assert done.stderr == "cannot run /no/such/program: No such file or directory\n"
