"""The systemd unit: read by systemd's own tools, and run as systemd would, with the notify socket played by the test."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mcpserver.lib.limits import Limits
from tests import peers
from tests.system.gateway import INHERITED, ROOT
from tests.system.tools import require

SYSTEMD = ROOT / "deploy" / "systemd"
UNIT = (SYSTEMD / "mcp-server.service").read_text()
PYTHON = "/opt/mcp-server/.venv/bin/python"
WATCHDOG_S = 2.0
SO_PASSCRED, SCM_CREDENTIALS = socket.SO_PASSCRED, socket.SCM_CREDENTIALS


def said(directive: str) -> list[str]:
    return re.findall(rf"(?m)^{directive}=(.*)$", UNIT)


def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    """It ends with 0 for a directive that it does not know: any word on stderr is a failure."""
    require("systemd-analyze")
    unit = tmp_path / "mcp-server.service"
    unit.write_text(UNIT.replace(PYTHON, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    misspelt = tmp_path / "misspelt.service"
    misspelt.write_text(UNIT.replace(PYTHON, sys.executable).replace("WatchdogSec", "WachdogSec"))
    control = subprocess.run(["systemd-analyze", "verify", str(misspelt)], capture_output=True, text=True, check=False)
    assert "WachdogSec" in control.stderr


def test_systemd_calls_the_unit_well_confined() -> None:
    require("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(SYSTEMD / "mcp-server.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-500:]


def test_the_user_of_the_unit_is_the_one_that_sysusers_makes() -> None:
    require("systemd-sysusers")
    file = SYSTEMD / "mcp-server.sysusers.conf"
    done = subprocess.run(["systemd-sysusers", "--dry-run", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"u {said('User')[0]} " in file.read_text()


def test_systemd_waits_longer_than_the_gateway_takes_to_stop() -> None:
    assert said("KillMode") == ["mixed"]
    assert int(said("TimeoutStopSec")[0]) >= Limits().shutdown_grace_s + 15


@contextlib.contextmanager
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """The unit's commands, in its environment, with the folders that it names under another root."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
        "SECRET_KEY": "only-for-tests"
    }
    for name, value in (line.split("=", 1) for line in said("Environment")):
        environment[name] = str(folder) + value
    for directory in ("data", "backups"):
        (folder / "var/lib/mcp-server" / directory).mkdir(parents=True)
    for directory in ("var/log/mcp-server", "run/mcp-server", "etc/mcp-server"):
        (folder / directory).mkdir(parents=True)
    (folder / "etc/mcp-server/mcp-config.yaml").write_text("mcpServers: {}\n")
    for command in said("ExecStartPre"):
        subprocess.run(argv(command), cwd=ROOT, env=environment, timeout=60, check=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "notify"))
        systemd.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
        watched = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)), "PORT": "0"}
        process = subprocess.Popen(
            argv(said("ExecStart")[0]),
            cwd=ROOT,
            env=environment | watched,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield process, systemd
        finally:
            peers.end_group(process, signal.SIGTERM)
            if process.stdout is not None:
                process.stdout.close()


def argv(command: str) -> list[str]:
    return command.replace(PYTHON, sys.executable).split()


def notified(systemd: socket.socket, process: subprocess.Popen[bytes], *, within_s: float) -> str:
    """The next notification; NotifyAccess=main takes it from the main process alone."""
    systemd.settimeout(within_s)
    message, ancillary, _, _ = systemd.recvmsg(4096, socket.CMSG_SPACE(struct.calcsize("3i")))
    senders = [struct.unpack("3i", data)[0] for _, kind, data in ancillary if kind == SCM_CREDENTIALS]
    assert senders == [process.pid]
    return message.decode()


def test_systemd_hears_that_it_is_ready_that_it_lives_and_that_it_stops(tmp_path: Path) -> None:
    assert said("NotifyAccess") == ["main"]
    with started(tmp_path) as (process, systemd):
        first = notified(systemd, process, within_s=40)
        while first == "WATCHDOG=1":
            first = notified(systemd, process, within_s=40)
        assert re.fullmatch(r"READY=1\nSTATUS=serving at http://127\.0\.0\.1:\d+/mcp", first)
        assert process.stdout is not None
        assert b'"ok": true' in process.stdout.readline(), "ready was said before everything was"
        for _ in range(3):
            assert notified(systemd, process, within_s=WATCHDOG_S) == "WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        while (word := notified(systemd, process, within_s=10)) == "WATCHDOG=1":
            pass
        assert word == "STOPPING=1"
        assert process.wait(float(said("TimeoutStopSec")[0])) == 0
        assert time.monotonic() - began < 15
