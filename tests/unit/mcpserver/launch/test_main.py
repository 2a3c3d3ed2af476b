import ast
import errno
import os
import socket
from pathlib import Path

import pytest

from mcpserver.launch import main
from mcpserver.lib import sockets
from mcpserver.lib.errors import GatewayError
from mcpserver.supervisor import pidfile

ROOT = Path(__file__).resolve().parents[4]


def test_the_script_itself_can_be_read_by_a_python_that_is_too_old():
    ast.parse((ROOT / "start").read_text(), feature_version=(3, 6))


def test_a_taken_port_is_refused_with_its_holder_and_the_next_try(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(GatewayError) as refused:
            main.require_free(tmp_path, "127.0.0.1", port)
    assert refused.value.message == f"port {port} is taken by pid {os.getpid()}"
    assert refused.value.hint == f"./start --port {port + 1}"
    assert int(refused.value.exit_code) == 1


def test_a_free_port_and_a_free_folder_are_fine(tmp_path):
    main.require_free(tmp_path, "127.0.0.1", 0)


def test_a_running_gateway_is_named_before_its_port_is_blamed(tmp_path):
    with pidfile.held(tmp_path), pytest.raises(GatewayError) as refused:
        main.require_free(tmp_path, "127.0.0.1", 0)
    assert refused.value.code == "already_running"


def test_nobody_is_found_where_nobody_listens():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert sockets.listener_at(bound.getsockname()[1]) is None


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "/some/folder cannot be written: clone into a folder of your own"),
        (errno.EACCES, "/some/folder cannot be written: clone into a folder of your own"),
        (errno.ENOSPC, "no space left: /some/folder cannot be written"),
        (errno.EIO, "/some/folder: Input/output error"),
    ],
)
def test_what_the_system_refuses_is_one_clear_line(number, words, capsys):
    error = main._from_system(OSError(number, os.strerror(number), "/some/folder"))
    assert main._told(error) == 1
    assert capsys.readouterr().err == f"./start: {words}\n"


def test_each_problem_of_a_configuration_has_its_line(capsys):
    error = GatewayError(
        "invalid_config", "mcp-config.yaml is not valid", errors=[{"line": 3, "message": "no such key"}]
    )
    main._told(error)
    assert capsys.readouterr().err == "./start: mcp-config.yaml is not valid\n  line 3: no such key\n"


def test_a_port_that_is_none_in_the_environment_is_one_clear_line():
    with pytest.raises(GatewayError, match="PORT=eighty is not a port"):
        main._configured_port({"PORT": "eighty"})
    assert main._configured_port({}) == 3000


@pytest.mark.parametrize("argv", [["--port", "70000"], ["--port", "x"], ["nonsense"], ["--chekc"], ["lint", "--more"]])
def test_a_wrong_word_is_a_usage_error(argv, capsys):
    with pytest.raises(SystemExit) as left:
        main.main(argv)
    assert left.value.code == 2
    capsys.readouterr()
