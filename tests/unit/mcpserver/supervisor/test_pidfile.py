import os

import pytest

from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.supervisor import pidfile


def test_the_file_names_its_owner_while_it_is_held_and_nobody_after(tmp_path):
    with pidfile.held(tmp_path / "run"):
        assert pidfile.owner(tmp_path / "run") == os.getpid()
    assert pidfile.owner(tmp_path / "run") is None
    assert (tmp_path / "run" / pidfile.NAME).read_text() == ""


def test_whoever_leaves_by_an_exception_leaves_no_name_either(tmp_path):
    with pytest.raises(SystemExit), pidfile.held(tmp_path):
        raise SystemExit(0)  # As `mcpserver start` does.
    assert (tmp_path / pidfile.NAME).read_text() == ""


def test_a_second_holder_is_refused_with_the_pid_of_the_first(tmp_path):
    with pidfile.held(tmp_path), pytest.raises(GatewayError) as refused, pidfile.held(tmp_path):
        pass
    assert refused.value.exit_code is Exit.CONFLICT
    assert refused.value.document() == {
        "ok": False,
        "error": "already_running",
        "message": f"the gateway is already running (pid {os.getpid()})",
        "hint": "stop it with: mcpserver stop",
        "pid": os.getpid(),
    }


def test_a_file_without_a_lock_claims_nothing(tmp_path):
    (tmp_path / pidfile.NAME).write_text("1\n")
    assert pidfile.owner(tmp_path) is None
    with pidfile.held(tmp_path) as was_killed:
        assert was_killed
        assert pidfile.owner(tmp_path) == os.getpid()
    with pidfile.held(tmp_path) as was_killed:
        assert not was_killed


def test_a_folder_without_a_file_has_no_owner(tmp_path):
    assert pidfile.owner(tmp_path / "absent") is None


def test_waiting_ends_when_the_owner_does_and_gives_up_in_time(tmp_path):
    assert pidfile.wait_until_free(tmp_path, timeout_s=0.0)
    with pidfile.held(tmp_path):
        assert not pidfile.wait_until_free(tmp_path, timeout_s=0.1)
