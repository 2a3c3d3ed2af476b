"""deploy/env.example names every variable that the gateway reads, with its default, and no other."""

import re
from dataclasses import fields
from pathlib import Path

from mcpserver.lib.limits import Limits, variable

ROOT = Path(__file__).resolve().parents[2]
# Read by the launchers and by commands, or by OpenTelemetry; not by settings.
ELSEWHERE = {"MCP_OUTPUT", "MCP_PYTHON"}
ELSEWHERE |= {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER"}


def example() -> dict[str, str]:
    lines = re.findall(r"(?m)^#?([A-Z_]+)=(.*)$", (ROOT / "deploy" / "env.example").read_text())
    assert len(dict(lines)) == len(lines), "a variable stands there twice"
    return dict(lines)


def settings() -> set[str]:
    return set(
        re.findall(r'(?:env\.\w+|_number|_folder)\(\s*"([A-Z_]+)"', (ROOT / "mcpserver" / "settings.py").read_text())
    )


def test_the_example_is_complete() -> None:
    limits = {variable(field.name) for field in fields(Limits)}
    assert len(limits) > 20
    assert len(settings()) > 15
    assert set(example()) == settings() | limits | ELSEWHERE


def test_the_limits_in_the_example_are_the_defaults() -> None:
    told = example()
    assert {name: told[name] for field in fields(Limits) if (name := variable(field.name))} == {
        variable(field.name): str(field.default) for field in fields(Limits)
    }


def test_nothing_in_deploy_sets_a_variable_that_does_not_exist() -> None:
    known = set(example()) | {"HOME", "PATH", "PYTHONUNBUFFERED"}
    deploy = ROOT / "deploy"
    unit = re.findall(r"(?m)^Environment=(\w+)=", (deploy / "systemd" / "mcp-server.service").read_text())
    image = re.findall(r"(?m)^(?:ENV|   ) (\w+)=", (deploy / "container" / "Containerfile").read_text())
    manifest = re.findall(r"(?m)^ +- name: ([A-Z_]+)$", (deploy / "kubernetes" / "mcp-server.yaml").read_text())
    assert len(unit) > 5
    assert len(image) > 8
    assert len(manifest) == 2
    assert {*unit, *image, *manifest} <= known
