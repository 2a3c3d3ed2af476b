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
    "container/Containerfile": ("hadolint",),
    "container/compose.yaml": ("check-jsonschema", "--builtin-schema", "vendor.compose-spec"),
    "kubernetes/mcp-server.yaml": ("kubernetes-validate", "--strict"),
    "caddy/Caddyfile": ("caddy", "validate", "--adapter", "caddyfile", "--config"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_file_of_deploy_is_accepted_by_the_program_that_it_is_for(name: str) -> None:
    program, *words = CHECKS[name]
    require(program)
    done = run(program, *words, str(DEPLOY / name))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("prometheus/alerts.yml", "expr"),
        ("prometheus/prometheus.yml", "rule_files"),
        ("prometheus/alertmanager.yml", "receiver"),
        ("container/Containerfile", "WORKDIR"),
        ("container/compose.yaml", "stop_grace_period"),
        ("kubernetes/mcp-server.yaml", "terminationGracePeriodSeconds"),
        ("caddy/Caddyfile", "flush_interval"),
    ],
)
def test_a_misspelt_word_in_it_would_be_found(name: str, word: str, tmp_path: Path) -> None:
    program, *words = CHECKS[name]
    require(program)
    text = (DEPLOY / name).read_text()
    assert word in text
    misspelt = tmp_path / Path(name).name
    misspelt.write_text(text.replace(word, f"{word}x"))
    assert run(program, *words, str(misspelt)).returncode != 0


def test_no_file_of_deploy_goes_unchecked() -> None:
    elsewhere = {
        "LICENCES.md", "README.md", "env.example", "grafana/dashboard.json", "logrotate/mcp-server",
        "nginx/mcp-server.conf",
        "otel/requirements.txt", "systemd/mcp-server.service", "systemd/mcp-server.sysusers.conf",
    }  # fmt: skip
    found = {path.relative_to(DEPLOY).as_posix() for path in DEPLOY.rglob("*") if path.is_file()}
    assert found - elsewhere == set(CHECKS)


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
