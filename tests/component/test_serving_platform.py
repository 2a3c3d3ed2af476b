"""Fails loudly when Daphne or Twisted change under us: each name that we lean on, each tuning that must take effect."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)


def test_daphne_and_twisted_are_as_we_know_them_and_every_tuning_took_effect():
    ran = run("-m", "tests.component.serving_platform")
    assert ran.returncode == 0, ran.stderr
    facts = json.loads(ran.stdout)
    assert len(facts) > 50
    assert [name for name, holds in facts.items() if not holds] == []


def test_a_twisted_that_was_imported_too_early_is_not_put_up_with():
    ran = run(
        "-c",
        "import twisted.internet.reactor\nfrom gateway.serving import server, tuning\ntuning.loop_of(server.reactor)",
    )
    assert ran.returncode == 1
    assert "RuntimeError: Twisted was imported before gateway.serving.server" in ran.stderr


def test_the_rest_of_the_gateway_imports_neither_daphne_nor_twisted():
    code = "import sys, gateway.serving, gateway.serving.rules; print([m for m in sys.modules if m in ('daphne', 'twisted')])"
    assert run("-c", code).stdout.strip() == "[]"


def test_a_django_process_does_not_import_twisted_first():
    code = (
        "import django, sys; django.setup();"
        "from gateway.serving import server, tuning; print(type(tuning.loop_of(server.reactor)).__module__)"
    )
    ran = run("-c", code)
    assert ran.stdout.strip() == "uvloop", ran.stderr
