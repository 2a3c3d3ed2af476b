"""`mcp remote add|remove|enable|disable|show` and `mcp tools enable|disable`: edits of the file, without a gateway."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mcpserver.lib import files as writing
from remotes import selectors
from remotes.config import following
from remotes.management.commands.mcp import Command
from remotes.models import ConfigRevision

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]
FILE = f"""\
# ours
mcpServers:
  # the demo
  demo:
    command: {sys.executable}   # ours, too
    args: ["-m", "remotes.demo"]
    cwd: {ROOT}
    # timeout: 5
  off: {{url: 'http://127.0.0.1:9/mcp', disabled: true}}
  # the end
"""


@pytest.fixture
def path(settings, tmp_path):
    settings.MCP_CONFIG = tmp_path / "mcp-config.yaml"
    settings.MCP_RUN_DIR = tmp_path / "run"
    settings.MCP_CONFIG.write_text(FILE)
    following.forget()
    return settings.MCP_CONFIG


@pytest.fixture
def mcp(path, capfd):
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


def test_a_remote_is_disabled_and_enabled_again_in_its_own_words(mcp, path):
    code, document, _ = mcp("remote", "disable", "demo", "--reason", "it is noisy")
    assert (code, document["enabled"], document["revision"], document["changed"]) == (0, False, 2, True)
    assert document["diff"] == [{"path": "mcpServers.demo.enabled", "change": "added", "after": False}]
    assert path.read_text() == FILE.replace(f"    cwd: {ROOT}\n", f"    cwd: {ROOT}\n    enabled: false\n")
    assert ConfigRevision.objects.get(number=2).actor.endswith(": it is noisy")
    code, document, _ = mcp("remote", "enable", "demo")
    assert (document["revision"], path.read_text()) == (
        3, FILE.replace(f"    cwd: {ROOT}\n", f"    cwd: {ROOT}\n    enabled: true\n"),
    )  # fmt: skip
    mcp("remote", "enable", "off")
    assert "off: {url: 'http://127.0.0.1:9/mcp', disabled: false}" in path.read_text()


def test_what_is_so_already_is_no_revision(mcp, path):
    code, document, _ = mcp("remote", "disable", "off")
    assert (code, document["changed"], document["diff"]) == (0, False, [])
    assert (path.read_text(), ConfigRevision.objects.count()) == (FILE, 1)


def test_a_server_is_added_and_taken_away_and_the_file_is_as_it_was(mcp, path):
    code, document, _ = mcp(
        "remote", "add", "docs", "https://docs.example/mcp", "--header", "Authorization: Bearer ${D}"
    )
    assert (code, document["added"], [one["code"] for one in document["warnings"]]) == (0, True, ["missing_variable"])
    assert path.read_text() == FILE.replace(
        "disabled: true}\n",
        "disabled: true}\n  docs:\n    url: https://docs.example/mcp\n    headers:\n      Authorization: Bearer ${D}\n",
    )
    code, document, _ = mcp("remote", "remove", "docs")
    assert (code, document["removed"], path.read_text()) == (0, True, FILE)


def test_a_command_is_added_with_its_arguments_and_variables(mcp, path):
    words = ("--env", "API_KEY", "--env", "MODE=on", "--timeout", "30", "--", "npx", "-y", "server", "--flag")
    code, document, _ = mcp("remote", "add", "every", *words)
    assert code == 0
    assert document["diff"] == [
        {
            "path": "mcpServers.every", "change": "added",
            "after": {
                "command": "npx", "args": ["-y", "server", "--flag"],
                "env": {"API_KEY": "${API_KEY}", "MODE": "on"}, "timeout": 30,
            },
        }
    ]  # fmt: skip
    assert '\n      MODE: "on"\n    timeout: 30\n' in path.read_text()
    assert [warning["code"] for warning in document["warnings"]] == ["missing_variable"]


def test_a_credential_in_plain_text_is_taken_with_a_warning_that_says_how_to_do_better(mcp, path):
    code, document, words = mcp(
        "remote", "add", "docs", "https://d.example/", "--header", "Authorization: Bearer hunter2222"
    )
    assert code == 0
    assert document["warnings"] == [
        {
            "path": "mcpServers.docs.headers.Authorization", "code": "literal_secret",
            "message": "a credential is written into the file as it is",
            "hint": "put it into .env and write ${DOCS_TOKEN} in its place",
        }
    ]  # fmt: skip
    assert "hunter2222" not in json.dumps(document) + words
    assert "hunter2222" in path.read_text()


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("add", "demo", "http://x.example/"), 6, "exists"),
        (("add", "Not Good", "http://x.example/"), 3, "invalid_config"),
        (("add", "docs", "http://169.254.169.254/"), 3, "invalid_config"),
        (("add", "docs", "ftp://x.example/"), 3, "invalid_config"),
        (("add", "docs", "http://x.example/", "--env", "A=1"), 2, "usage"),
        (("add", "docs", "--header", "A: 1", "--", "npx"), 2, "usage"),
        (("add", "docs"), 2, "usage"),
        (("remove", "dem"), 5, "not_found"),
        (("disable", "dem"), 5, "not_found"),
    ],
)
def test_what_is_refused_changes_nothing(mcp, path, words, code, error):
    exit_code, document, _ = mcp("remote", *words)
    assert (exit_code, document["ok"], document["error"]) == (code, False, error)
    assert document["hint"]
    assert (path.read_text(), selectors.head()) == (FILE, None)


def test_an_added_remote_is_tested_when_asked(mcp):
    code, document, _ = mcp(
        "remote", "add", "again", "--test", "--cwd", str(ROOT), "--", sys.executable, "-m", "remotes.demo"
    )
    assert (code, document["test"]["ok"], document["test"]["tools"]) == (0, True, 6)
    code, document, _ = mcp("remote", "add", "gone", "http://127.0.0.1:9/mcp", "--test")
    assert (code, document["ok"], document["added"], document["test"]["phase"]) == (1, False, True, "tcp")


def test_a_remote_is_shown_as_written_and_as_it_works_out(mcp):
    code, document, _ = mcp("remote", "show", "off")
    assert (code, document["written"]["disabled"], document["resolved"]["enabled"]) == (0, True, False)
    assert (document["running"], document["health"]["status"]) == (False, "disabled")
    assert mcp("remote", "show", "of")[0] == 5


def test_a_tool_is_disabled_and_enabled_again(mcp, path):
    code, document, _ = mcp("tools", "disable", "demo__echo")
    assert (code, document["mcp"], document["upstream_name"], document["enabled"]) == (0, "demo", "echo", False)
    assert path.read_text() == FILE.replace(f"cwd: {ROOT}\n", f"cwd: {ROOT}\n    tools:\n      disabled: [echo]\n")
    mcp("tools", "enable", "demo__echo")
    assert path.read_text() == FILE
    assert mcp("tools", "disable", "nobody__echo")[0] == 5


def test_an_edit_that_is_not_applied_is_never_overwritten_by_a_command(mcp, path):
    mcp("remote", "disable", "demo")
    by_hand = path.read_text().replace("# ours", "# theirs")
    path.write_text(by_hand)
    code, document, _ = mcp("remote", "enable", "demo")
    assert (code, document["error"], path.read_text()) == (6, "unapplied_edit", by_hand)
    assert "mcpconfig apply" in document["hint"]


def test_what_stands_behind_an_alias_is_left_to_a_person(mcp, path):
    text = "mcpServers:\n  a: &one {url: 'http://127.0.0.1:9/'}\n  b: *one\n"
    path.write_text(text)
    code, document, _ = mcp("remote", "disable", "b")
    assert (code, document["error"], document["line"], path.read_text()) == (1, "cannot_edit", 3, text)


@pytest.mark.edge(21)
def test_a_lock_that_is_held_is_named_and_a_dead_holder_blocks_nobody(mcp, path, monkeypatch):
    lock = path.with_name(f".{path.name}.lock")
    program = "import sys, time; from pathlib import Path; from mcpserver.lib.files import locked\n"
    program += "with locked(Path(sys.argv[1])):\n    print(flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program, str(lock)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert holder.stdout.readline()
        monkeypatch.setattr(writing, "LOCK_WAIT_S", 0.1)
        code, document, _ = mcp("remote", "disable", "demo")
        assert (code, document["error"], document["holder"]["pid"]) == (6, "locked", holder.pid)
        assert str(holder.pid) in document["message"]
    finally:
        holder.kill()
        holder.wait()
    assert mcp("remote", "disable", "demo")[0] == 0


def test_a_folder_that_cannot_be_written_takes_no_edit_and_says_why(mcp, path, tmp_path):
    """A mounted ConfigMap: the file is a link into ..data, which is swapped from outside."""
    (tmp_path / "first").mkdir()
    path.rename(tmp_path / "first" / path.name)
    (tmp_path / "..data").symlink_to("first")
    path.symlink_to(f"..data/{path.name}")
    code, document, _ = mcp("remote", "disable", "demo")
    assert (code, document["error"]) == (1, "read_only")
    assert "ConfigMap" in document["message"]
    assert "watched" in document["hint"]
    assert path.read_text() == FILE


@pytest.mark.edge(21)
def test_two_edits_at_once_are_both_made(path):
    def edit(number):
        out = io.StringIO()
        command = Command(stdout=out)
        command.run_from_argv(["manage.py", "mcp", "remote", "add", f"r{number}", "http://127.0.0.1:9/"])
        assert json.loads(out.getvalue())["ok"], out.getvalue()

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(path.read_text().count(f"\n  r{number}:\n") for number in range(6)) == 6
    assert selectors.head_number() == 7
    assert os.listdir(path.parent).count(path.name) == 1
