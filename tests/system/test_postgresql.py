"""PostgreSQL in place of SQLite: everything works on it, and serving does not need it from one moment to the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.component.real_gateway import Client
from tests.system import gateway, servers
from tests.system.gateway import ROOT, Gateway, eventually
from tests.system.load import load, modern, session

DEMO = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}
# Tests of what is stored: every kind of row, each change of it, and who wins when two change it at once.
STORED = ("keys_services", "circuits", "backups", "tokens_stored", "tool_pins", "calls_record")


@pytest.fixture(scope="module")
def database() -> Iterator[servers.Postgres]:
    with servers.postgres() as server:
        yield server


@pytest.fixture
def running(database: servers.Postgres) -> Iterator[Gateway]:
    with gateway.running({"demo": DEMO}, DATABASE_URL=database.url) as one:
        reached = lambda found: found["demo"]["status"] == "healthy"  # noqa: E731
        eventually(one.remotes, reached, within_s=30, what="demo is reached")
        yield one


def client(running: Gateway, key: str | None = None) -> Client:
    return Client(int(running.url.rpartition(":")[2]), key or running.key)


def test_what_is_stored_is_stored_there_as_well(database: servers.Postgres) -> None:
    files = [f"tests/component/test_{name}.py" for name in STORED]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *files],
        cwd=ROOT, env=os.environ | {"MCP_TEST_DATABASE_URL": database.url},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.edge(19)
def test_it_is_killed_and_hangs_under_load_and_nobody_who_calls_notices(
    running: Gateway, database: servers.Postgres
) -> None:
    caller = client(running)
    with load(lambda: modern(caller), lambda: session(caller)) as calls:
        calls.goes_on()
        database.kill()
        eventually(lambda: word(running), lambda db: db == "down", within_s=20, what="status says that it is away")
        calls.goes_on()
        database.start()
        opens_new_keys(running)
        database.freeze()
        eventually(lambda: word(running), lambda db: db == "down", within_s=20, what="status says that it hangs")
        calls.goes_on()
        database.freeze(signal.SIGCONT)
        opens_new_keys(running)
    assert calls.failures == []
    assert calls.slowest_s < 2


def test_commands_change_it_and_the_gateway_follows(running: Gateway) -> None:
    assert running.command("mcp", "remote", "disable", "demo")["ok"]
    eventually(lambda: running.remotes()["demo"]["status"], lambda w: w == "disabled", within_s=10, what="disabled")
    made = running.command("mcpbackup", "create")
    assert running.command("mcp", "remote", "enable", "demo")["ok"]
    eventually(lambda: running.remotes()["demo"]["status"], lambda w: w == "healthy", within_s=10, what="back")
    assert running.command("mcprestore", made["file"])["restored"] == ["keys", "pins", "config"]
    eventually(lambda: running.remotes()["demo"]["status"], lambda w: w == "disabled", within_s=10, what="restored")


def word(running: Gateway) -> str:
    said = running.command("mcpstatus")["dependencies"]["db"]
    return "ok" if said == "ok" else "down"


def opens_new_keys(running: Gateway) -> None:
    """The gateway reads it again, without a restart."""
    key = eventually(
        lambda: running.command("mcpkey", "generate", "later"), lambda made: made["ok"], within_s=20, what="a new key"
    )["key"]
    eventually(
        lambda: client(running, key).modern("tools/list").status, lambda s: s == 200, within_s=20, what="it opens"
    )
