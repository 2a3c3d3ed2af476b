"""`mcpconfig` as people run it: a process of its own, one JSON document, a documented exit code, no database needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remotes.config import schema, starter

ROOT = Path(__file__).parents[2]


def mcpconfig(*words, config, **environment):
    finished = subprocess.run(
        [sys.executable, "manage.py", "mcpconfig", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        # A database that cannot be opened: nothing here may need it.
        env=os.environ | {"MCP_CONFIG": str(config), "DATABASE_URL": "sqlite:////nowhere/at/all.sqlite3"} | environment,
    )  # fmt: skip
    return json.loads(finished.stdout), finished.returncode


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mcp-config.yaml"
    starter.write(path, installation=ROOT)
    return path


def test_a_good_file_is_valid_without_a_database(config):
    assert mcpconfig("validate", config=config) == (
        {"schema": 1, "ok": True, "path": str(config), "remotes": ["demo"], "warnings": []}, 0,
    )  # fmt: skip


@pytest.mark.edge(8)
def test_a_bad_file_is_answered_with_every_error_and_exit_3(config, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("mcpServers:\n  time:\n    comand: uvx\n    timeout: 60000\n")
    document, code = mcpconfig("validate", str(bad), config=config)
    first, second = document["errors"]
    assert code == 3
    assert first == {
        "path": "mcpServers.time.comand", "line": 3, "column": 5, "code": "unknown_key",
        "message": "`comand` is not known here", "hint": "did you mean `command`?",
    }  # fmt: skip
    assert (second["path"], second["line"], second["code"]) == ("mcpServers.time.timeout", 4, "out_of_range")
    assert document == {
        "schema": 1,
        "ok": False,
        "error": "invalid_config",
        "message": "bad.yaml:3:5: mcpServers.time.comand: `comand` is not known here (and 1 more)",
        "hint": "did you mean `command`?",
        "file": str(bad),
        "path": str(bad),
        "errors": [first, second],
        "warnings": [],
    }


@pytest.mark.edge(9)
def test_a_missing_variable_is_a_warning_and_an_error_only_when_strict(config):
    config.write_text("mcpServers: {a: {url: 'https://a.example/', headers: {Authorization: 'Bearer ${TEST_UNSET}'}}}")
    document, code = mcpconfig("validate", config=config)
    assert (code, [warning["code"] for warning in document["warnings"]]) == (0, ["missing_variable"])
    document, code = mcpconfig("validate", "--strict", config=config)
    assert (code, document["ok"], document["error"], document["errors"]) == (3, False, "warnings", [])


def test_no_file_is_one_clear_error(tmp_path):
    document, code = mcpconfig("validate", config=tmp_path / "absent.yaml")
    assert (code, document["error"]) == (3, "invalid_config")
    assert str(tmp_path / "absent.yaml") in document["message"]
    assert "./start" in document["hint"]


def test_show_resolves_without_showing_a_secret(config):
    config.write_text(
        "mcpServers: {a: {url: 'https://a.example/', headers: {Authorization: 'Bearer ${TEST_TOKEN}', B: hunter2}}}"
    )
    written, _ = mcpconfig("show", config=config, TEST_TOKEN="hunter2")
    resolved, code = mcpconfig("show", "--resolved", config=config, TEST_TOKEN="hunter2")
    assert code == 0
    assert "hunter2" not in json.dumps([written, resolved])
    assert written["config"]["mcpServers"]["a"]["headers"]["Authorization"] == "Bearer ${TEST_TOKEN}"
    assert resolved["config"]["mcpServers"]["a"]["timeout"] == 60
    assert (resolved["revision"], resolved["applied"]) == (None, None)


def test_the_schema_is_the_document_itself(config):
    document, code = mcpconfig("schema", config=config)
    assert code == 0
    assert document == {"schema": 1, "ok": True} | schema.json_schema()
