"""`mcp`: remotes and tools as documents and exit codes, with a real gateway and without one."""

import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcpserver.lib import control
from remotes import services
from remotes.config import following
from remotes.management.commands.mcp import Command
from tests import peers
from tests.component.real_gateway import until

ROOT = Path(__file__).resolve().parents[2]
DEMO = f"""\
version: 1
mcpServers:
  demo:
    command: {sys.executable}
    args: ["-m", "remotes.demo"]
    cwd: {ROOT}
    timeout: 5
"""

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def mcp(capfd):
    """The command in this process: exit code, document, words."""

    def mcp(*words):
        code: object = 0
        try:
            Command().run_from_argv(["manage.py", "mcp", *words])
        except SystemExit as exit:
            code = exit.code
        out, err = capfd.readouterr()
        return code, json.loads(out), err

    return mcp


@pytest.fixture
def folder(settings, tmp_path):
    """An installation without a gateway; write its mcp-config.yaml."""
    settings.MCP_CONFIG = tmp_path / "mcp-config.yaml"
    settings.MCP_RUN_DIR = tmp_path / "run"
    settings.MCP_CONFIG.write_text(DEMO)
    following.forget()
    return tmp_path


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """A gateway as the supervisor starts it, with a database of its own; its folder."""
    folder = tmp_path_factory.mktemp("gateway")
    port = peers.free_port()
    (folder / "mcp-config.yaml").write_text(
        DEMO
        + "    tools: {disabled: [fail], alias: {add: echo}}\n"
        + f"  gone: {{url: 'http://127.0.0.1:{port}/mcp'}}\n"
        + f"  off: {{url: 'http://127.0.0.1:{port}/mcp', enabled: false}}\n"
        + f"  needs: {{url: 'http://127.0.0.1:{port}/mcp', headers: {{X-Key: '${{NO_SUCH_VARIABLE_HERE}}'}}}}\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MCP_") and name != "DATABASE_URL"
    }
    for variable, name in {"DATA": "data", "LOG": "logs", "BACKUP": "backups", "RUN": "run"}.items():
        environment[f"MCP_{variable}_DIR"] = str(folder / name)
        (folder / name).mkdir()
    environment |= {"MCP_CONFIG": str(folder / "mcp-config.yaml"), "SECRET_KEY": "only-for-tests"}
    manage = [sys.executable, str(ROOT / "manage.py")]
    subprocess.run([*manage, "migrate", "-v0"], env=environment, check=True, timeout=60)
    read_end, write_end = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "log").open("wb") as log:
        inherited = (listener.fileno(), write_end)
        process = subprocess.Popen(
            [*manage, "mcpgateway", "--fd", str(inherited[0]), "--ready-fd", str(inherited[1])],
            env=environment, pass_fds=inherited, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        os.close(write_end)
    try:
        with os.fdopen(read_end) as pipe:
            assert json.loads(pipe.readline() or "{}").get("ok"), (folder / "log").read_text()
        yield folder
    finally:
        process.terminate()
        process.wait(40)


@pytest.fixture
def gateway(serving, settings):
    settings.MCP_CONFIG = serving / "mcp-config.yaml"
    settings.MCP_RUN_DIR = serving / "run"
    return serving


# mcp remote test


def test_a_remote_is_tested_without_a_gateway_and_without_a_revision(mcp, folder):
    code, document, _ = mcp("remote", "test", "demo")
    assert code == 0
    assert document.pop("latency_ms") > 0
    assert document == {
        "schema": 1, "ok": True, "name": "demo", "status": "healthy", "error": None, "phase": None, "message": None,
        "hint": None, "transport": "stdio", "era": "2026-07-28", "tools": 6, "enabled": True,
    }  # fmt: skip


@pytest.mark.edge(1)
def test_a_remote_that_hangs_is_a_timeout_within_its_limit(mcp, folder, settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings.MCP_CONFIG.write_text(f"version: 1\nmcpServers:\n  stripe: {{url: 'http://127.0.0.1:{port}/mcp'}}\n")
        began = time.monotonic()
        code, document, _ = mcp("remote", "test", "stripe", "--timeout", "1")
    assert time.monotonic() - began < 20, "not its own 60 s"
    assert code == 1
    assert (document["ok"], document["error"], document["phase"]) == (False, "timeout", "http")
    assert document["latency_ms"] >= 1000


def test_all_are_tested_and_those_that_are_switched_off_do_not_count(mcp, folder, settings):
    port = peers.free_port()
    settings.MCP_CONFIG.write_text(DEMO + f"  off: {{url: 'http://127.0.0.1:{port}/mcp', enabled: false}}\n")
    code, document, _ = mcp("remote", "test", "--all")
    assert code == 0
    assert {name: row["status"] for name, row in document["mcps"].items()} == {"demo": "healthy", "off": "disabled"}
    settings.MCP_CONFIG.write_text(DEMO + f"  gone: {{url: 'http://127.0.0.1:{port}/mcp'}}\n")
    code, document, _ = mcp("remote", "test", "--all")
    assert code == 1
    assert (document["error"], document["message"]) == ("unhealthy", "1 of 2 remotes failed: gone")
    assert document["mcps"]["gone"]["phase"] == "tcp"


def test_one_that_is_disabled_is_tested_before_it_is_enabled_again(mcp, folder, settings):
    settings.MCP_CONFIG.write_text(DEMO + "    enabled: false\n")
    code, document, words = mcp("remote", "test", "demo")
    assert code == 0
    assert (document["status"], document["enabled"], document["tools"]) == ("healthy", False, 6)
    assert "disabled in the configuration" in words


def test_a_name_that_nobody_has_is_answered_with_those_there_are(mcp, folder):
    code, document, _ = mcp("remote", "test", "dmeo")
    assert code == 5
    assert document == {
        "schema": 1, "ok": False, "error": "not_found", "message": "there is no remote dmeo",
        "hint": "did you mean demo?", "names": ["demo"],
    }  # fmt: skip


def test_an_edit_that_is_not_applied_yet_is_tested_and_one_that_is_not_valid_is_not(mcp, folder, settings):
    services.bootstrap(settings.MCP_CONFIG, os.environ)
    settings.MCP_CONFIG.write_text(DEMO.replace("  demo:", "  renamed:"))
    assert mcp("remote", "test", "demo")[1]["names"] == ["renamed"]
    settings.MCP_CONFIG.write_text("version: 1\nmcpServers: 5\n")
    assert mcp("remote", "test", "nobody")[1]["names"] == ["demo"]
    settings.MCP_CONFIG.unlink()
    assert mcp("remote", "test", "nobody")[1]["names"] == ["demo"]


@pytest.mark.parametrize("words", [(), ("demo", "--all"), ("demo", "--timeout", "0"), ("demo", "--timeout", "nan")])
def test_what_is_no_use_of_test_is_a_usage_error(mcp, folder, words):
    assert mcp("remote", "test", *words)[0] == 2


# mcp remote list


def test_without_a_gateway_the_list_tells_what_was_last_known(mcp, folder, settings):
    settings.MCP_CONFIG.write_text(DEMO + "  off: {command: nothing, enabled: false}\n")
    services.record_health("demo", status="healthy", latency_ms=4.0, era="2026-07-28", transport="stdio", tools=6)
    code, document, words = mcp("remote", "list")
    assert code == 0
    assert document["running"] is False
    assert "what was last known" in words
    demo = document["mcps"]["demo"]
    assert (demo["status"], demo["latency_ms"], demo["tools"]) == ("healthy", 4.0, 6)
    assert document["mcps"]["off"]["status"] == "disabled"


def test_with_a_gateway_the_list_is_live(mcp, gateway):
    expected = {"demo": "healthy", "gone": "unhealthy", "off": "disabled", "needs": "misconfigured"}

    def listed():
        code, document, _ = mcp("remote", "list")
        assert (code, document["running"]) == (0, True)
        return document if {name: row["status"] for name, row in document["mcps"].items()} == expected else None

    document = until(listed, "every remote tried once")
    assert document["mcps"]["needs"]["missing_env"] == ["NO_SUCH_VARIABLE_HERE"]


# mcp tools


def test_tools_are_listed_as_clients_see_them(mcp, gateway):
    code, document, _ = mcp("tools", "list", "--mcp", "demo")
    assert code == 0
    names = [tool["name"] for tool in document["tools"]]
    assert names == ["demo__echo", "demo__slow", "demo__big", "demo__ask"]
    assert mcp("tools", "list", "--mcp", "gone")[1]["tools"] == []
    assert mcp("tools", "list", "--mcp", "nobody")[0] == 5


@pytest.mark.edge(13)
def test_all_tools_are_listed_with_the_reason_why_some_are_not_seen(mcp, gateway):
    tools = mcp("tools", "list", "--all")[1]["tools"]
    unseen = {tool["upstream_name"]: tool for tool in tools if tool["disabled"] or tool["shadowed_by"]}
    assert unseen["fail"] == {
        "name": "demo__fail", "mcp": "demo", "upstream_name": "fail", "description": "", "disabled": True,
        "disabled_by": "tools.disabled", "shadowed_by": None, "alias": None, "too_long": False, "full_name": None,
        "malformed": None, "pin": None, "withheld": False, "unreachable": None,
    }  # fmt: skip
    assert (unseen["echo"]["name"], unseen["echo"]["shadowed_by"]) == ("demo__echo", "add of demo")
    assert set(unseen) == {"fail", "echo"}


def test_a_tool_is_called_with_arguments_of_the_right_kind(mcp, gateway):
    code, document, _ = mcp("tools", "call", "demo__echo", "a=1", "b=2.5")
    assert code == 0
    assert document["result"]["structuredContent"] == {"result": 3.5}
    assert document["latency_ms"] > 0


def test_arguments_come_from_standard_input_too(mcp, gateway, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1, "b": 1}')))
    assert mcp("tools", "call", "demo__echo", "b=5", "--args", "-")[1]["result"]["structuredContent"] == {"result": 6}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: NAME"),
        (("demo__echo", "--args", '{"text": "\\ud83d"}'), "--args holds half a character"),
        (("demo__echo", "--args", "[1]"), "--args must be a JSON object"),
    ],
)
def test_what_is_no_call_is_a_usage_error(mcp, folder, words, message):
    code, document, _ = mcp("tools", "call", *words)
    assert (code, document["error"]) == (2, "usage")
    assert document["message"].startswith(message)


def test_an_answer_that_is_an_error_exits_1_and_shows_it(mcp, gateway):
    code, document, _ = mcp("tools", "call", "demo__echo", "a=one")
    assert code == 1
    assert (document["ok"], document["error"]) == (False, "tool_error")
    assert document["result"]["isError"] is True


def test_a_call_may_take_as_long_as_its_remote_may_and_then_the_gateway_says_so(mcp, gateway):
    began = time.monotonic()
    code, document, _ = mcp("tools", "call", "demo__slow", "seconds=60")
    assert code == 1
    assert 5 <= time.monotonic() - began < 20
    assert "did not answer within 5 s" in json.dumps(document["result"])


def test_a_tool_that_is_not_there_is_answered_with_the_nearest_that_is(mcp, gateway):
    code, document, _ = mcp("tools", "call", "demo__sloow")
    assert code == 5
    assert (document["error"], document["hint"]) == ("not_found", "did you mean demo__slow?")
    assert "demo__big" in document["names"]


@pytest.mark.parametrize("words", [("list",), ("call", "demo__echo", "text=x")])
def test_without_a_gateway_there_are_no_tools(mcp, folder, words):
    code, document, _ = mcp("tools", *words)
    assert code == 7
    assert (document["error"], document["hint"]) == ("not_running", "start the gateway with: mcpserver start")


def test_a_process_is_pinged_over_its_warm_connection(mcp, gateway):
    mcp("tools", "list")
    answer = control.ask(gateway / "run" / "gateway-0.sock", {"op": "ping", "remote": "demo"})
    assert (answer["ok"], answer["transport"]) == (True, "stdio")


# mcp remote reset


@pytest.mark.edge(1)
def test_a_remote_is_reset_connected_anew_and_said_how_it_is_then(mcp, gateway):
    before = control.ask(gateway / "run" / "gateway-0.sock", {"op": "status"})["mcps"]["demo"]["process"]["pid"]
    code, document, _ = mcp("remote", "reset", "demo")
    assert code == 0
    assert (document["name"], document["status"], document["circuit_before"]) == ("demo", "healthy", "closed")
    assert document["circuit"]["state"] == "closed"
    after = control.ask(gateway / "run" / "gateway-0.sock", {"op": "status"})["mcps"]["demo"]["process"]["pid"]
    assert before != after, "another process"
    code, document, _ = mcp("remote", "reset", "gone")
    assert (code, document["status"]) == (0, "unhealthy"), "the reset is done, the remote is as it is"


@pytest.mark.parametrize(
    ("name", "code", "error"), [("demi", 5, "not_found"), ("off", 1, "not_called"), ("needs", 1, "not_called")]
)
def test_what_cannot_be_reset_is_said(mcp, gateway, name, code, error):
    found, document, _ = mcp("remote", "reset", name)
    assert (found, document["error"]) == (code, error)
    assert document["hint"]


def test_without_a_gateway_nothing_is_reset(mcp, folder):
    code, document, _ = mcp("remote", "reset", "demo")
    assert (code, document["error"], document["hint"]) == (7, "not_running", "start the gateway with: mcpserver start")
    assert mcp("remote", "reset", "nobody")[0] == 5


def test_it_is_a_command_of_manage_py_like_any_other(folder, settings):
    environment = os.environ | {"MCP_CONFIG": str(settings.MCP_CONFIG), "MCP_RUN_DIR": str(settings.MCP_RUN_DIR)}
    done = subprocess.run(
        [sys.executable, "manage.py", "mcp", "remote", "test", "nobody"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert json.loads(done.stdout)["names"] == ["demo"]
