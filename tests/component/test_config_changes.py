"""`mcpconfig apply|set|unset|diff|history|rollback|reload` without a gateway; with one: tests/system/test_config_changes.py."""

import json
from pathlib import Path

import pytest

from remotes import selectors, services
from remotes.config import following
from remotes.management.commands.mcpconfig import Command

pytestmark = pytest.mark.django_db(transaction=True)

FILE = "# ours\r\nmcpServers:\r\n  a:\r\n    command: uvx # why\r\n    timeout: 5\r\n"


@pytest.fixture
def path(settings, tmp_path):
    settings.MCP_CONFIG = tmp_path / "mcp-config.yaml"
    settings.MCP_RUN_DIR = tmp_path / "run"
    Path(settings.MCP_CONFIG).write_text(FILE, newline="")
    following.forget()
    services.bootstrap(settings.MCP_CONFIG, {})
    return settings.MCP_CONFIG


@pytest.fixture
def mcpconfig(path, capfd):
    def mcpconfig(*words):
        code: object = 0
        try:
            Command().run_from_argv(["manage.py", "mcpconfig", *words])
        except SystemExit as exit:
            code = exit.code
        return code, json.loads(capfd.readouterr().out)

    return mcpconfig


def bytes_of(path):
    return Path(path).read_bytes().decode()


def test_a_value_is_set_and_unset_and_the_rest_keeps_its_bytes(mcpconfig, path):
    code, document = mcpconfig("set", "mcpServers.a.timeout", "7.5")
    assert (code, document) == (
        0,
        {
            "schema": 1, "ok": True, "revision": 2, "dry_run": False, "warnings": [],
            "diff": [{"path": "mcpServers.a.timeout", "change": "changed", "before": 5, "after": 7.5}],
        },
    )  # fmt: skip
    assert bytes_of(path) == FILE.replace("5", "7.5")
    assert mcpconfig("set", "mcpServers.a.env.PORT", "8080")[0] == 0
    assert bytes_of(path) == FILE.replace("5", "7.5") + '    env:\r\n      PORT: "8080"\r\n'
    mcpconfig("unset", "mcpServers.a.env")
    mcpconfig("set", "mcpServers.a.timeout", "5")
    assert bytes_of(path) == FILE


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("set", "mcpServers.a.timeot", "7"), 3, "invalid_config"),
        (("set", "mcpServers.a.timeout", "7", "--expect-version", "4"), 6, "conflict"),
        (("set", "mcpServers.a.timeout[0]", "7"), 5, "not_found"),
        (("unset", "mcpServers.b"), 5, "not_found"),
        (("unset", "mcpServers"), 3, "invalid_config"),
        (("set", "a..b", "1"), 2, "usage"),
        (("rollback", "9"), 5, "not_found"),
        (("reload",), 7, "not_running"),
    ],
)
@pytest.mark.edge(8)
def test_what_is_refused_changes_nothing(mcpconfig, path, words, code, error):
    exit_code, document = mcpconfig(*words)
    assert (exit_code, document["error"], bytes_of(path), selectors.head_number()) == (code, error, FILE, 1)
    assert document["hint"] or error == "invalid_config"


def test_a_dry_run_shows_the_difference_and_changes_nothing(mcpconfig, path):
    code, document = mcpconfig("set", "mcpServers.a.timeout", "7", "--dry-run")
    assert (code, document["dry_run"], len(document["diff"])) == (0, True, 1)
    assert (bytes_of(path), selectors.head_number()) == (FILE, 1)


def test_a_file_is_applied_compared_and_rolled_back_with_its_actors(mcpconfig, path, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("mcpServers: {b: {command: uvx}}\n")
    code, document = mcpconfig("diff", str(other))
    assert (code, document["error"], document["revision"]) == (1, "different", 1)
    assert [(one["path"], one["change"]) for one in document["changes"]] == [
        ("mcpServers.a", "removed"), ("mcpServers.b", "added"),
    ]  # fmt: skip
    assert mcpconfig("apply", str(other))[1]["revision"] == 2
    assert bytes_of(path) == other.read_text()
    assert mcpconfig("diff")[0] == 0
    code, document = mcpconfig("rollback", "1")
    assert (code, document["revision_before"], document["revision"], bytes_of(path)) == (0, 2, 3, FILE)
    rows = mcpconfig("history")[1]["revisions"]
    assert [(row["revision"], row["actor"].split(":")[0], row["runs"]) for row in rows] == [
        (3, "cli", True), (2, "cli", False), (1, "start", False),
    ]  # fmt: skip
    assert rows[0]["actor"].endswith(": rollback to 1")
    assert rows[0]["at"].endswith("Z")


def test_an_edit_by_hand_is_applied_as_it_is(mcpconfig, path):
    Path(path).write_text(FILE.replace("5", "6"), newline="")
    assert mcpconfig("set", "mcpServers.a.timeout", "9")[1]["error"] == "unapplied_edit"
    code, document = mcpconfig("apply")
    assert (code, document["revision"], len(document["diff"])) == (0, 2, 1)


def test_a_file_that_lags_behind_another_machines_change_is_brought_up_to_date_and_not_applied(
    mcpconfig, path, tmp_path
):
    (tmp_path / "there").mkdir()
    there = tmp_path / "there" / "mcp-config.yaml"
    there.write_text(FILE, newline="")
    services.apply(FILE.replace("5", "6"), path=there, expected=1, actor="another machine")
    code, document = mcpconfig("apply")
    assert (code, document["revision"], bytes_of(path)) == (0, 2, FILE.replace("5", "6"))


@pytest.mark.edge(8)
def test_a_broken_file_is_not_applied_and_named_with_line_and_cause(mcpconfig, path):
    Path(path).write_text("mcpServers:\n  a: {comand: x}\n")
    code, document = mcpconfig("apply")
    assert (code, document["error"]) == (3, "invalid_config")
    assert document["message"].startswith("mcp-config.yaml:2:7: mcpServers.a.comand")
    (other := Path(path).with_name("other.yaml")).write_text("mcpServers:\n  a: {comand: x}\n")
    assert mcpconfig("apply", str(other))[1]["message"].startswith("other.yaml:2:7: mcpServers.a.comand")


def test_an_older_revision_and_the_source_of_every_value_are_shown(mcpconfig, path, monkeypatch):
    monkeypatch.setenv("MCP_BACKUP_KEEP", "3")
    mcpconfig("set", "mcpServers.a.timeout", "7")
    assert mcpconfig("show", "--revision", "1")[1]["config"]["mcpServers"]["a"]["timeout"] == 5
    source = mcpconfig("show", "--source")[1]["source"]
    assert source["mcpServers.a.timeout"] == "mcp-config.yaml:5"
    assert source["mcpServers.a.list_timeout"] == "default"
    assert source["gateway.backup_keep"] == "environment MCP_BACKUP_KEEP"


def test_variables_of_another_file_count_for_a_validation(mcpconfig, path, tmp_path):
    Path(path).write_text("mcpServers: {a: {command: uvx, env: {T: '${SOME_TOKEN}'}}}\n")
    assert len(mcpconfig("validate")[1]["warnings"]) == 1
    (tmp_path / "env").write_text("SOME_TOKEN=x\n")
    assert mcpconfig("validate", "--env-file", str(tmp_path / "env"))[1]["warnings"] == []


CURSOR = """\
{"mcpServers": { // theirs
  "Far Away": {"url": "https://far.example.com/mcp", "headers": {"Authorization": "Bearer ${env:FAR_TOKEN}"}, "timeout": 30000},
  "a": {"command": "other"},
  "wrong": {"url": "http://169.254.169.254/"},
  "gw": {"url": "http://127.0.0.1:%s/mcp"},
}}
"""


@pytest.fixture
def theirs(tmp_path, settings):
    theirs = tmp_path / "mcp.json"
    theirs.write_text(CURSOR % settings.PORT)
    return str(theirs)


def test_servers_of_another_program_are_taken_over_and_what_is_not_is_said(mcpconfig, path, theirs):
    code, document = mcpconfig("import", theirs)
    assert (code, document["added"], document["renamed"]) == (0, ["far-away"], {"Far Away": "far-away"})
    assert [(one["name"], one["reason"].split(":")[0].split(";")[0]) for one in document["skipped"]] == [
        ("a", "there is a remote a already"), ("wrong", "url"), ("gw", "this is the gateway itself"),
    ]  # fmt: skip
    assert document["needs_env"] == ["FAR_TOKEN"]
    assert document["notes"] == ["far-away: timeout: 30000 milliseconds are 30 seconds"]
    assert bytes_of(path) == FILE + (
        "  far-away:\r\n    url: https://far.example.com/mcp\r\n    headers:\r\n"
        "      Authorization: Bearer ${FAR_TOKEN}\r\n    timeout: 30\r\n"
    )


def test_a_dry_import_shows_the_difference_and_a_replacing_one_replaces(mcpconfig, path, theirs):
    code, document = mcpconfig("import", theirs, "--dry-run", "--replace", "--only", "a")
    assert (code, document["replaced"], bytes_of(path), selectors.head_number()) == (0, ["a"], FILE, 1)
    assert [(one["path"], one["change"]) for one in document["diff"]] == [
        ("mcpServers.a.command", "changed"), ("mcpServers.a.timeout", "removed"),
    ]  # fmt: skip
    mcpconfig("import", theirs, "--replace", "--only", "a")
    assert bytes_of(path) == FILE.replace("uvx", "other").replace("    timeout: 5\r\n", "")


@pytest.mark.parametrize(
    ("content", "code", "error"),
    [("{", 3, "unreadable"), ('{"a": 1}', 3, "unknown_format"), ('{"mcpServers": {"x": {}}}', 1, "nothing_imported")],
)
def test_what_cannot_be_imported_changes_nothing(mcpconfig, path, tmp_path, content, code, error):
    (tmp_path / "x").write_text(content)
    exit_code, document = mcpconfig("import", str(tmp_path / "x"))
    assert (exit_code, document["error"], bytes_of(path)) == (code, error, FILE)
    assert mcpconfig("import", str(tmp_path / "absent"))[0] == 5


def test_an_export_is_the_clients_file_itself_and_a_document_when_asked(mcpconfig, path, capfd, settings):
    url = f"http://{settings.HOST}:{settings.PORT}/mcp"
    assert mcpconfig("export")[1]["mcpServers"]["gw"]["url"] == url
    with pytest.raises(ValueError, match="Expecting value"):
        mcpconfig("export", "--format", "codex")
    code, document = mcpconfig("export", "--format", "codex", "--direct", "-o", "json")
    assert (code, document["document"]["mcp_servers"]["a"]) == (0, {"command": "uvx", "tool_timeout_sec": 5})
