"""The recovery procedures of the guide, word for word where they are safe, on a gateway that runs and on one that cannot."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import gateway
from tests.system.gateway import ROOT, Gateway, eventually

DEMO = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    with gateway.running({"demo": DEMO}) as one:
        yield one


def shell(running: Gateway, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """As an operator types it, in the installation's folder with `bin` on the PATH."""
    environment = dict(running.environment) | {"MCP_PYTHON": sys.executable, "MCP_OUTPUT": "json"} | more
    environment["PATH"] = f"{ROOT / 'bin'}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["sh", "-c", line],
        cwd=running.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(running: Gateway, line: str, code: int = 0) -> dict[str, Any]:
    done = shell(running, line)
    assert done.returncode == code, (line, done.stdout, done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def opens(url: str, key: str) -> bool:
    """Whether a key passes the door; what it asks is refused for another reason."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("POST", "/mcp", b"{}", {"Authorization": f"Bearer {key}"})
    status = connection.getresponse().status
    connection.close()
    assert status in (401, 415), status
    return status == 415


@pytest.mark.edge(5)
def test_a_key_is_rotated_without_a_moment_in_which_neither_works(running: Gateway) -> None:
    old = said(running, "mcpkey generate main")["key"]
    new = said(running, "mcpkey generate main-v2")["key"]
    for key in (old, new):
        eventually(lambda key=key: opens(running.url, key), bool, within_s=5, what="the new key opens")  # type: ignore[misc]
    head = {"Authorization": f"Bearer {old}", "Accept": "text/event-stream"}
    stream = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=35)
    stream.request("GET", "/sse", headers=head)
    answer = stream.getresponse()
    assert answer.readline() == b"event: endpoint\n"
    assert said(running, "mcpkey revoke main")["connections_closed"] == 1
    answer.read()  # to its end, within the 35 s of the connection
    eventually(lambda: opens(running.url, old), lambda yes: not yes, within_s=5, what="the old key is refused")
    assert opens(running.url, new)
    eventually(
        lambda: [event["name"] for event in said(running, "mcpkey audit --event used")["events"]],
        lambda names: {"main", "main-v2"} <= set(names),
        within_s=20,
        what="the audit tells which key was used",
    )


@pytest.mark.edge(8)
@pytest.mark.edge(20)
def test_config_corrupted(running: Gateway) -> None:
    config = running.folder / "mcp-config.yaml"
    good = config.read_text()
    said(running, "mcpbackup create")
    config.write_bytes(b"\x00\xff{{{")
    eventually(
        lambda: running.command("mcpstatus")["config"]["pending_error"], bool, within_s=10, what="the damage is noticed"
    )
    told = said(running, "mcprestore ./backups/backup-latest.json")
    assert (told["restored"], config.read_text()) == (["keys", "pins", "config"], good)
    eventually(
        lambda: running.command("mcpstatus")["config"]["pending_error"],
        lambda pending: pending is None,
        within_s=10,
        what="the gateway is in step again",
    )
    assert running.remotes()["demo"]["status"] == "healthy"


@pytest.mark.edge(12)
@pytest.mark.edge(20)
def test_out_of_disk_space_by_the_guides_own_line_leaves_a_working_installation(running: Gateway) -> None:
    for _ in range(3):
        said(running, "mcpbackup create")
    before = sorted(path.name for path in running.folder.iterdir())
    shell(running, "ls -la backups/ | head -n -10 | xargs rm")
    assert sorted(path.name for path in running.folder.iterdir()) == before
    # The same, with the names as whoever repairs the line would have them: what is left is enough.
    shell(running, "cd backups && ls -a | head -n -10 | xargs rm")
    assert said(running, "mcpbackup verify")["backups"]
    assert said(running, "mcprestore ./backups/backup-latest.json")["ok"]
    assert said(running, "mcpbackup prune --keep 1")["ok"]
    assert said(running, "mcpbackup create")["ok"]
    assert running.remotes()["demo"]["status"] == "healthy"


@pytest.mark.edge(8)
@pytest.mark.edge(20)
def test_a_server_that_will_not_start_is_looked_into_and_brought_back(running: Gateway) -> None:
    config = running.folder / "mcp-config.yaml"
    said(running, "mcpbackup create")
    said(running, "mcpserver stop")
    config.write_text(config.read_text()[:60])
    refused = said(running, "mcpserver start --no-worker", code=3)
    assert "mcp-config.yaml:" in refused["message"]
    assert "mcpserver start --last-known-good" in refused["hint"]
    meanwhile = said(running, "mcpserver start --no-worker --detach --last-known-good")
    ((warning),) = meanwhile["warnings"]
    assert (warning["code"], warning["errors"][0]["code"]) == ("config_pending", refused["errors"][0]["code"])
    assert opens(meanwhile["url"].removesuffix("/mcp"), running.key)
    status = said(running, "mcpstatus")
    assert status["server"]["status"] == "degraded"
    assert status["config"]["pending_error"] == warning["errors"]
    assert status["mcps"]["demo"]["status"] == "healthy"
    assert "which ran last, runs on" in shell(running, "cat logs/combined.log").stdout
    assert config.stat().st_size == 60, "what is wrong is the operator's to mend"
    said(running, "mcpserver stop")
    looked = shell(running, f'cat mcp-config.yaml | {sys.executable} -c "import yaml, sys; yaml.safe_load(sys.stdin)"')
    assert looked.returncode == 1
    assert shell(running, "cat logs/error.log | tail -50").returncode == 0
    assert said(running, "mcprestore ./backups/backup-latest.json")["restored"] == ["keys", "pins", "config"]
    started = shell(running, "LOG_LEVEL=debug mcpserver start --no-worker --detach")
    try:
        url = json.loads(started.stdout.splitlines()[0])["url"].removesuffix("/mcp")
        assert opens(url, running.key)
    finally:
        shell(running, "mcpserver stop")


@pytest.mark.edge(20)
@pytest.mark.edge(21)
def test_killed_at_random_moments_it_is_the_old_or_the_new_and_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crashes", "--rounds", "20"],
        cwd=ROOT, env=clean(), capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def clean() -> dict[str, str]:
    return {name: os.environ[name] for name in gateway.INHERITED if name in os.environ}


@pytest.mark.edge(12)
@pytest.mark.edge(20)
@pytest.mark.parametrize("case", ["stopped", "serving", "inodes"])
def test_on_a_full_disk_serving_goes_on_and_changes_fail_whole(tmp_path: Path, case: str) -> None:
    tools = shutil.which("unshare") and shutil.which("mkfs.ext4")
    if os.geteuid() != 0 or not tools or not Path("/dev/loop-control").exists():
        reason = "needs root, unshare, mkfs.ext4 and loop devices"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-m", "tests.system.full_disk", case, str(tmp_path)],
        cwd=ROOT, env=clean(), capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
