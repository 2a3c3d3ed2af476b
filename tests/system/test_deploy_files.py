"""What lies in deploy/, each file read by the program that it is for. A file that nothing here can check is not shipped."""

import subprocess
from pathlib import Path

import pytest

from tests.system.gateway import ROOT
from tests.system.tools import require

DEPLOY = ROOT / "deploy"
CHECKS = {
    "prometheus/alerts.yml": ("promtool", "check", "rules"),
    "prometheus/alerts.test.yml": ("promtool", "test", "rules"),
    "prometheus/prometheus.yml": ("promtool", "check", "config"),
    "prometheus/alertmanager.yml": ("amtool", "check-config"),
    "caddy/Caddyfile": ("caddy", "validate", "--adapter", "caddyfile", "--config"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_file_of_deploy_is_accepted_by_the_program_that_it_is_for(name: str) -> None:
    program, *words = CHECKS[name]
    require(program)
    done = run(program, *words, str(DEPLOY / name))
    assert done.returncode == 0, done.stdout + done.stderr


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
