"""The locks: one version of everything in all three, each with its hashes, from what pyproject.toml asks for and nothing else."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from mcpserver.launch.development import LOCKS, ROOT

pytestmark = pytest.mark.edge(24)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAIN, TRACES, TESTS = LOCKS


def pins(lock: Path) -> set[tuple[str, str]]:
    """Names, each with version and marker; one may stand there twice, for two platforms."""
    return set(re.findall(r"(?m)^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==(.+?) \\$", lock.read_text()))


def names(lock: Path) -> set[str]:
    return {name for name, _ in pins(lock)}


def asked_for(*words: str) -> set[str]:
    return {re.split(r"[\[~=<>;]", word)[0].lower() for word in words}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_everything_is_pinned_with_hashes(lock: Path) -> None:
    text = lock.read_text()
    requirements = re.findall(r"(?m)^[a-z0-9].*(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+$", text)
    assert len(requirements) == len(pins(lock)) == len(re.findall(r"(?m)^[a-z0-9]", text)) > 40
    assert not re.search(r"(?m)^\s*--(?:extra-)?index-url|://", text), (
        "where packages come from is the machine's own matter"
    )


def test_one_version_of_everything_in_all_of_them() -> None:
    assert pins(MAIN) < pins(TRACES) < pins(TESTS)


def test_what_is_asked_for_is_locked_and_the_extra_is_only_in_its_own() -> None:
    extras = PROJECT["optional-dependencies"]
    assert asked_for(*PROJECT["dependencies"]) <= names(MAIN)
    assert asked_for(*extras["otel"]) <= names(TRACES) - names(MAIN)
    assert asked_for(*extras["dev"]) <= names(TESTS)


@pytest.mark.parametrize(("found", "ends"), [(0, 0), (1, 1), (2, 0), (124, 0)])
def test_ci_audits_and_fails_for_what_is_known_but_not_for_what_it_could_not_find_out(
    tmp_path: Path, found: int, ends: int
) -> None:
    part = re.search(r"(?ms)^audited=0\n.*?^\(\(audited != 1\)\)\n", (ROOT / ".ci" / "run").read_text())
    assert part is not None
    start = tmp_path / "start"
    start.write_text(f"#!/bin/sh\n[ $1 = audit ] && exit {found}\nexit 99\n")
    start.chmod(0o755)
    script = f"set -euo pipefail\n{part.group()}"
    assert subprocess.run(["bash", "-c", script], cwd=tmp_path, timeout=30, check=False).returncode == ends
