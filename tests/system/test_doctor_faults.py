"""`mcp doctor` as an operator runs it, beside a gateway and a machine of which one thing after the other is broken."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.component.real_gateway import until
from tests.system import gateway
from tests.system.gateway import ROOT, Gateway

COMMAND = [sys.executable, "manage.py", "mcp", "doctor"]


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    demo = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}
    with gateway.running({"demo": demo}, worker=True) as one:
        until(
            lambda: found(one, "celery")["detail"] == "ok" and found(one, "gateway")["detail"] == "it is healthy",
            "well, and the schedule has begun",
            within_s=60,
        )
        yield one


def checks(environment: dict[str, str]) -> list[dict[str, str]]:
    done = subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    failed = [check for check in document["checks"] if check["status"] == "failed"]
    assert done.returncode == (1 if failed else 0)
    assert [check for check in document["checks"] if check["status"] != "ok" and not check["fix"]] == []
    return list(document["checks"])


def found(one: Gateway, name: str, **changed: str) -> dict[str, str]:
    return next(check for check in checks(dict(one.environment) | changed) if check["name"] == name)


def test_a_gateway_that_is_well_has_its_port_and_nothing_failed(running: Gateway) -> None:
    seen = checks(dict(running.environment))
    assert [check for check in seen if check["status"] == "failed"] == []
    assert "the gateway has" in next(check["detail"] for check in seen if check["name"] == "address")


@pytest.mark.parametrize(
    "content", [b"this is no database, whatever its name says" * 100, b""], ids=["broken", "empty"]
)
def test_a_database_that_cannot_be_used(running: Gateway, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.sqlite3").write_bytes(content)
    assert found(running, "database", DATABASE_URL=f"sqlite:///{tmp_path}/other.sqlite3")["status"] == "failed"


def test_a_disk_that_is_full(running: Gateway, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    try:
        disk = found(running, "disk", MCP_DATA_DIR=str(folder))
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert (disk["status"], "mcpbackup prune" in disk["fix"]) == ("failed", True)


def test_a_schedule_that_stands_still(running: Gateway) -> None:
    """Celery is stopped as by a debugger, and its last beat is of two minutes ago."""
    children = psutil.Process(running.process.pid).children()
    celery = next(one for one in children if "celery_worker" in " ".join(one.cmdline()))
    celery.send_signal(signal.SIGSTOP)
    try:
        past = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - 120))
        with (
            closing(sqlite3.connect(running.folder / "data" / "gateway.sqlite3", timeout=10)) as connection,
            connection,
        ):
            connection.execute("UPDATE monitoring_heartbeat SET at=?", (past,))
        late = found(running, "celery")
    finally:
        celery.send_signal(signal.SIGCONT)
    assert (late["status"], "mcpserver restart" in late["fix"]) == ("warning", True), late


def test_a_gateway_that_has_ended(running: Gateway) -> None:
    running.process.terminate()
    running.process.wait(30)
    assert found(running, "gateway") | {"detail": ""} == {
        "name": "gateway", "status": "warning", "detail": "", "fix": "mcpserver start",
    }  # fmt: skip
