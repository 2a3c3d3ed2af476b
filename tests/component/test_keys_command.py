"""`mcpkey`, as documents and exit codes; a few times as the process that people start."""

import io
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from keys import format, selectors
from keys.grant import EVERYTHING
from keys.management.commands.mcpkey import Command
from keys.models import ApiKey, KeyEvent
from mcpserver.lib.clock import SystemClock

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def mcpkey(capsys):
    def mcpkey(*words):
        code: object = 0
        try:
            Command().run_from_argv(["manage.py", "mcpkey", *words])
        except SystemExit as exit:
            code = exit.code
        out, err = capsys.readouterr()
        return code, json.loads(out) if out.startswith("{") else out, err

    return mcpkey


@pytest.fixture
def manage(tmp_path):
    """manage.py in an environment of its own; exit code, stdout, stderr."""

    def manage(*words, **changed):
        environment = {"PATH": os.environ["PATH"], "SECRET_KEY": "x", "MCP_DATA_DIR": str(tmp_path)} | changed
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return manage


def test_generate_prints_the_key_once_and_says_so(mcpkey):
    code, document, words = mcpkey("generate", "main")
    row = ApiKey.objects.get()
    assert code == 0
    assert format.parse(document["key"]).key_id == row.key_id
    assert document == {
        "schema": 1,
        "ok": True,
        "key": document["key"],
        "id": row.key_id,
        "name": "main",
        "prefix": f"mcp_{row.key_id}",
        "created_at": row.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expires_at": None,
        **EVERYTHING.document(),
        "deprecated": [],
    }
    assert "cannot be shown again" in words
    assert KeyEvent.objects.get().actor.startswith("cli:")


def test_grace_and_expiry_are_spans(mcpkey):
    first = mcpkey("generate", "main")[1]
    second = mcpkey("generate", "main", "--grace", "1h", "--expires", "90d")[1]
    old, new = ApiKey.objects.order_by("pk")
    assert old.retires_at == new.created_at + timedelta(hours=1)
    assert new.expires_at == new.created_at + timedelta(days=90)
    assert second["deprecated"] == [{"id": first["id"], "until": old.retires_at.strftime("%Y-%m-%dT%H:%M:%SZ")}]


def test_list_shows_working_keys_and_never_a_secret(mcpkey):
    made = mcpkey("generate", "main")[1]
    code, document, _ = mcpkey("list")
    assert code == 0
    assert document == {
        "schema": 1,
        "ok": True,
        "keys": [
            {
                "id": made["id"],
                "name": "main",
                "prefix": made["prefix"],
                "status": "active",
                "created_at": made["created_at"],
                "last_used_at": None,
                "expires_at": None,
                "retires_at": None,
                "revoked_at": None,
                **EVERYTHING.document(),
            }
        ],
    }


def test_list_all_shows_those_that_ended_too(mcpkey):
    mcpkey("generate", "main")
    mcpkey("revoke", "main")
    assert mcpkey("list")[1]["keys"] == []
    assert [key["status"] for key in mcpkey("list", "--all")[1]["keys"]] == ["revoked"]


def test_list_as_a_table(mcpkey):
    made = mcpkey("generate", "main")[1]
    lines = mcpkey("list", "-o", "table")[1].splitlines()
    assert lines[0] == "KEYS"
    assert lines[1].split()[:4] == ["ID", "NAME", "PREFIX", "STATUS"]
    assert lines[2].split()[:4] == [made["id"], "main", made["prefix"], "active"]


def test_revoke_by_name_and_by_id(mcpkey):
    made = [mcpkey("generate", name)[1] for name in ("main", "other")]
    ended = [{"id": key["id"], "name": key["name"]} for key in made]
    answers = [mcpkey("revoke", "main"), mcpkey("revoke", "--id", made[1]["id"])]
    assert answers == [
        (0, {"schema": 1, "ok": True, "revoked": [key], "already_revoked": [], "connections_closed": None}, "")
        for key in ended
    ]
    assert not selectors.any_opens(SystemClock().now())


@pytest.mark.parametrize(
    ("words", "code", "document"),
    [
        (
            ["revoke", "nobody"],
            5,
            {
                "error": "not_found",
                "message": "no key has the name or id 'nobody'",
                "hint": "there is no key yet: mcpkey generate NAME",
                "names": [],
            },
        ),
        (
            ["generate", "not good"],
            2,
            {
                "error": "usage",
                "message": "'not good' cannot name a key",
                "hint": "use 1 to 64 letters, digits and . _ @ - with a letter or digit at both ends, such as main-v2",
            },
        ),
        (
            ["revoke"],
            2,
            {"error": "usage", "message": "give either NAME or --id ID", "hint": "see: mcpkey revoke --help"},
        ),
        (
            ["generate", "main", "--expires", "soon"],
            2,
            {
                "error": "usage",
                "message": "argument --expires: 'soon' is not a duration such as 90d, 24h, 30m or 0",
                "hint": "see: mcpkey generate --help",
            },
        ),
        (
            ["genrate", "main"],
            2,
            {
                "error": "usage",
                "message": "unknown command: genrate",
                "hint": "did you mean generate? see: mcpkey --help",
                "choices": ["generate", "list", "show", "set", "revoke", "verify", "audit"],
            },
        ),
    ],
)
def test_what_cannot_be_done_is_said_whole_and_changes_nothing(mcpkey, words, code, document):
    assert mcpkey(*words) == (code, {"schema": 1, "ok": False} | document, "")
    assert not ApiKey.objects.exists()


def test_as_a_process_a_key_lives_from_generate_to_revoke(manage):
    assert manage("migrate", "-v", "0")[0] == 0
    code, out, words = manage("mcpkey", "generate", "main")
    made = json.loads(out)
    assert (code, out.count("\n"), words) == (
        0,
        1,
        "Keep the key now: it is stored nowhere and cannot be shown again. A gateway that runs knows it in a second.\n",
    )
    assert [key["id"] for key in json.loads(manage("mcpkey", "list")[1])["keys"]] == [made["id"]]
    assert manage("mcpkey", "revoke", "main", "-q")[0] == 0
    assert json.loads(manage("mcpkey", "list")[1])["keys"] == []


def test_as_a_process_a_usage_error_is_one_document_and_exit_2(manage):
    code, out, words = manage("mcpkey", "generate")
    assert (code, words) == (2, "")
    assert json.loads(out) == {
        "schema": 1,
        "ok": False,
        "error": "usage",
        "message": "the following arguments are required: NAME",
        "hint": "see: mcpkey generate --help",
    }


def test_without_tables_the_answer_names_the_command_that_makes_them(manage):
    code, out, words = manage("mcpkey", "list")
    assert (code, words) == (1, "")
    assert json.loads(out) == {
        "schema": 1,
        "ok": False,
        "error": "database",
        "message": "the database cannot be used: no such table: keys_apikey",
        "hint": "create its tables with: .venv/bin/python manage.py migrate",
    }


def test_settings_that_cannot_be_read_are_a_document_too(manage):
    code, out, words = manage("mcpkey", "list", MCP_MAX_REQUEST_SIZE="lots")
    assert (code, words) == (3, "")
    assert json.loads(out) == {
        "schema": 1,
        "ok": False,
        "error": "settings",
        "message": "MCP_MAX_REQUEST_SIZE='lots' is not a number",
        "hint": "check the environment and .env",
    }


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    line = f"{sys.executable} manage.py mcpkey generate --help | true; {sys.executable} manage.py mcpkey bad | true"
    environment = {"PATH": os.environ["PATH"], "SECRET_KEY": "x", "MCP_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        ["sh", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_what_a_key_may_use_is_given_shown_changed_and_cleared(mcpkey):
    words = "generate ci --mcps a,b --allow a__* --deny *__delete_* --max-connections 2 --rate 600 --rate a=60"
    given = {"mcps": ["a", "b"], "allow": ["a__*"], "deny": ["*__delete_*"], "max_connections": 2, "rate": 600}
    made = mcpkey(*words.split())[1]
    assert {name: made[name] for name in (*given, "rates")} == given | {"rates": {"a": 60}}
    mcpkey("set", "ci", "--clear", "rate", "--clear", "allow", "--rate", "b=5", "--mcps", "b")
    code, document, _ = mcpkey("show", "ci")
    (key,) = document["keys"]
    assert code == 0
    assert {name: key[name] for name in (*given, "rates")} == given | {
        "mcps": ["b"],
        "allow": [],
        "rate": None,
        "rates": {"b": 5},
    }
    assert [event["event"] for event in document["events"]] == ["generated", "changed"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("set ci", 2, "nothing to set"),
        ("set --rate 5", 2, "give either NAME or --id ID"),
        ("set ci --allow stripe", 2, "'stripe' would never match"),
        ("set ci --rate a=x", 2, "argument --rate: 'x' is not a number from 1 to 1000000"),
        ("set ci --mcps ,", 2, "--mcps names no remote"),
        ("set nobody --rate 5", 5, "no key has the name or id 'nobody'"),
        ("show nobody", 5, "no key has the name or id 'nobody'"),
        ("generate new --replaces nobody", 5, "no key has the name or id 'nobody'"),
    ],
)
def test_a_change_that_cannot_be_made_says_why_and_makes_none(mcpkey, words, code, message):
    mcpkey("generate", "ci")
    failed, document, _ = mcpkey(*words.split())
    assert (failed, document["message"]) == (code, message)
    assert KeyEvent.objects.count() == 1


def test_verify_reads_the_key_from_stdin_and_ends_with_0_or_4(mcpkey, monkeypatch):
    key = mcpkey("generate", "main")[1]["key"]

    def verify(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        code, document, _ = mcpkey("verify")
        return code, document["valid"], document["name"], document["status"]

    assert verify(key + "\n") == (0, True, "main", "active")
    assert verify(key[:-1]) == (4, False, None, "malformed")
    mcpkey("revoke", "main")
    assert verify(key) == (4, False, "main", "revoked")


def test_a_snippet_for_the_client_comes_with_the_key(mcpkey):
    made = mcpkey("generate", "main", "--client", "claude-code")[1]
    assert made["snippet"].startswith("claude mcp add --transport http")
    assert f"Bearer {made['key']}" in made["snippet"]


def test_the_audit_is_followed_line_by_line_until_nobody_reads(manage, tmp_path):
    assert manage("migrate", "-v", "0")[0] == 0
    manage("mcpkey", "generate", "main")
    environment = {"PATH": os.environ["PATH"], "SECRET_KEY": "x", "MCP_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "manage.py", "mcpkey", "audit", "--follow"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as following:
        assert json.loads(following.stdout.readline())["event"] == "generated"
        manage("mcpkey", "revoke", "main")
        assert json.loads(following.stdout.readline())["event"] == "revoked"
        following.stdout.close()  # it notices without anything new to write
        assert following.wait(10) == 0


def test_a_remote_that_is_not_there_is_named_with_the_one_that_was_meant(mcpkey, settings, tmp_path):
    settings.MCP_CONFIG = tmp_path / "mcp-config.yaml"
    settings.MCP_CONFIG.write_text("version: 1\nmcpServers: {stripe: {url: http://127.0.0.1:1/mcp}}\n")
    assert "no remote strpie yet: did you mean stripe?" in mcpkey("generate", "ci", "--mcps", "strpie")[2]
    assert "no remote" not in mcpkey("set", "ci", "--mcps", "stripe", "--rate", "stripe=5")[2]
