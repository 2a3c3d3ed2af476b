"""`mcpserver` where nothing is running, or nothing may: the documents and exit codes of its refusals."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from mcpserver.lib.database import unapplied

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *argv: str, **environment: str) -> tuple[int, dict[str, Any]]:
    mine = {f"MCP_{name}_DIR": str(folder / name.lower()) for name in ("DATA", "LOG", "RUN", "BACKUP")}
    (folder / "data").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "mcpserver", *argv],
        env={**os.environ, **mine, "DATABASE_URL": f"sqlite:///{folder}/data/db.sqlite3", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("word", ["status", "restart", "reload", "stop"])
def test_asking_a_gateway_that_does_not_run_is_exit_7(tmp_path, word):
    exit_code, document = run(tmp_path, word)
    assert exit_code == 7
    assert (document["ok"], document["error"]) == (False, "not_running")
    assert "mcpserver start" in document["hint"]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PORT", "http", "PORT=http is not a number"),
        ("MCP_WORKERS", "two", "MCP_WORKERS=two is not a number"),
        ("DATABASE_URL", "nonsense", "DATABASE_URL is not understood"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL='loud' is none of debug, info, warning, error, critical"),
        ("REDIS_URL", "foo", "REDIS_URL is not understood: write redis://"),
        ("MCP_MAX_OPEN_FILES", "20", "MCP_MAX_OPEN_FILES='20' must be 128 or more"),
    ],
)
def test_a_setting_that_cannot_be_read_is_a_document_that_names_it(tmp_path, variable, value, words):
    exit_code, document = run(tmp_path, "status", **{variable: value})
    assert (exit_code, document["error"]) == (3, "settings")
    assert document["message"].startswith(words)


def test_more_than_one_worker_is_refused_where_they_could_not_find_each_other(tmp_path):
    exit_code, document = run(tmp_path, "start", "--workers", "2", REDIS_URL="")
    assert (exit_code, document["error"]) == (2, "usage")
    assert document["message"].endswith("REDIS_URL is not set")
    assert "MCP_WORKERS" in document["hint"]


def test_a_taken_port_names_who_has_it(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        exit_code, document = run(tmp_path, "start", "--port", str(port))
    assert exit_code == 1
    assert (document["error"], document["port"], document["pid"]) == ("port_taken", port, os.getpid())
    assert document["message"] == f"port {port} is taken (pid {os.getpid()})"


def test_detached_it_leaves_with_the_same_words_and_code(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        exit_code, document = run(tmp_path, "start", "--detach", "--port", str(holder.getsockname()[1]))
    assert (exit_code, document["error"]) == (1, "port_taken")


def test_on_a_database_that_was_not_migrated_it_does_not_start(tmp_path):
    exit_code, document = run(tmp_path, "start", "--port", "0")
    assert (exit_code, document["error"], document["hint"]) == (
        1,
        "not_migrated",
        "run: .venv/bin/python manage.py migrate",
    )
    assert document["message"].endswith("migrations, the first is contenttypes.0001_initial")


@pytest.mark.django_db
def test_one_migration_that_is_missing_is_named():
    assert unapplied() == []
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'remotes' AND name LIKE '0002%'")
    assert [name[:13] for name in unapplied()] == ["remotes.0002_"]


def test_beyond_this_machine_it_does_not_start_without_a_key(tmp_path):
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/data/db.sqlite3"}
    (tmp_path / "data").mkdir()
    migrate = [sys.executable, str(ROOT / "manage.py"), "migrate", "--skip-checks", "-v0"]
    subprocess.run(migrate, env=environment, check=True, timeout=60)
    exit_code, document = run(tmp_path, "start", "--host", "0.0.0.0", "--port", "0")
    assert (exit_code, document["error"]) == (4, "no_key")
    assert "mcpkey generate" in document["hint"]


@pytest.mark.parametrize(
    "argv", [["start", "--port", "70000"], ["start", "--port", "-1"], ["start", "--workers", "0"], ["begin"], []]
)
def test_a_wrong_word_is_a_usage_document(tmp_path, argv):
    exit_code, document = run(tmp_path, *argv)
    assert (exit_code, document["error"]) == (2, "usage")
