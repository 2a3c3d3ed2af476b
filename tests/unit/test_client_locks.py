"""The locks of the real clients pin every package by its hash, and name no package registry."""

from __future__ import annotations

import json
import re

import pytest

from tests.clients import install

REQUIREMENTS = sorted(path.name for path in (install.HERE / "requirements").glob("*.txt"))
NPM_TOOLS = sorted(name for name, tool in install.TOOLS.items() if tool.npm)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_python_package_is_pinned_with_hashes_and_no_index_is_named(name: str) -> None:
    text = (install.HERE / "requirements" / name).read_text()
    packages = re.findall(r"^[\w.-]+==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", text, re.MULTILINE)
    assert len(packages) == len(re.findall(r"^\w", text, re.MULTILINE)) > 0
    assert "://" not in text
    assert "--index-url" not in text


@pytest.mark.parametrize("name", NPM_TOOLS)
def test_every_npm_package_is_pinned_with_a_hash_and_no_registry_is_named(name: str) -> None:
    packages = json.loads(install.TOOLS[name].lock.read_text())["packages"]
    packages.pop("")
    assert packages
    assert [path for path, facts in packages.items() if "integrity" not in facts or "resolved" in facts] == []


def test_every_environment_has_its_lock() -> None:
    assert {f"{name}.txt" for name, tool in install.TOOLS.items() if not tool.npm} == set(REQUIREMENTS)
