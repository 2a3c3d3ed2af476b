"""What system tests need from the machine, and how they drive the real clients.

A tool that is missing skips its tests on a developer's machine; where CI=true it fails them, so that nothing goes
unproved without anybody noticing. It installs nothing: `python tests/clients/install.py` does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from tests.clients import install

CLIENTS_DIR = install.HERE
MARGIN_S = 15.0  # for starting Node or Python on a busy machine, on top of the client's own deadline


@dataclass(frozen=True)
class Client:
    """One real client: its script, what it needs, and the modes in which it connects."""

    name: str
    tools: tuple[str, ...]
    modes: tuple[str, ...]
    script: str

    def command(self) -> list[str]:
        path = str(CLIENTS_DIR / self.script)
        return [str(install.node()), path] if path.endswith(".mjs") else [sys.executable, path]


CLIENTS = {
    client.name: client
    for client in (
        Client("sdk1", ("sdk1",), ("session", "sse"), "sdk1.py"),
        Client("sdk2", ("sdk2",), ("modern", "auto", "session", "sse"), "sdk2.py"),
        Client("fastmcp4", ("fastmcp",), ("modern", "auto", "session", "sse"), "fastmcp4.py"),
        Client("node-sdk1", ("npm",), ("session", "sse"), "node/sdk1.mjs"),
        Client("node-client2", ("npm",), ("modern", "auto", "session", "sse"), "node/client2.mjs"),
        Client("inspector", ("npm",), ("modern", "auto", "session", "sse"), "inspector.py"),
        Client("mcp_remote", ("npm", "sdk2"), ("session", "sse"), "mcp_remote.py"),
    )
}
CLIENTS_AND_MODES = [(client.name, mode) for client in CLIENTS.values() for mode in client.modes]

# Their clients are the SDKs above, worn differently: they have a file of their own, and no place in the matrix.
FRAMEWORKS = {
    client.name: client
    for client in (
        Client("langchain", ("frameworks",), ("session", "sse"), "langchain_mcp.py"),
        Client("openai-agents", ("frameworks",), ("session", "sse"), "openai_agents.py"),
        Client("pydantic-ai", ("frameworks",), ("session", "sse"), "pydantic_agents.py"),
    )
}
FRAMEWORKS_AND_MODES = [(client.name, mode) for client in FRAMEWORKS.values() for mode in client.modes]


def require(*tools: str) -> None:
    """Skip the test, or fail it where CI=true, unless all of these are here: tools of install.py, or programs."""
    missing = [tool for tool in tools if not present(tool)]
    if not missing:
        return
    unavailable(
        f"not installed: {', '.join(missing)} (python tests/clients/install.py, or the packages that .ci/run names)"
    )


def unavailable(words: str) -> NoReturn:
    """What the machine lacks skips a test, and fails it where CI=true."""
    if in_ci():
        pytest.fail(words, pytrace=False)
    pytest.skip(words)


def in_ci() -> bool:
    """Whether what is missing fails a test, instead of skipping it."""
    return os.environ.get("CI", "").lower() in ("1", "true")


def present(tool: str) -> bool:
    return install.TOOLS[tool].installed if tool in install.TOOLS else shutil.which(tool) is not None


def visit(name: str, url: str, key: str, *options: str, mode: str, timeout_s: float = 30.0) -> dict[str, Any]:
    """Run a real client once and return its document: `visit("sdk1", url, key, "--call", "demo__add", mode="sse")`."""
    client = (CLIENTS | FRAMEWORKS)[name]
    require(*client.tools)
    arguments = [url, key, "--mode", mode, "--timeout", str(timeout_s), *options]
    done = subprocess.run(
        [*client.command(), *arguments],
        env=install.node_environment() | {"NO_PROXY": "127.0.0.1,localhost"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s + MARGIN_S,
        check=False,
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        pytest.fail(f"{name} ended with {done.returncode} and no document:\n{done.stderr[-3000:]}", pytrace=False)
    if done.returncode == 2:
        pytest.fail(f"{name}: {document['error']}", pytrace=False)
    return document | {"stderr": done.stderr}


def arguments(**values: Any) -> Iterable[str]:
    """`*arguments(text="hi")`: the arguments of the tool that `--call` names."""
    return ("--args", json.dumps(values))
