"""Tokens through everything: the real command logs in, the real gateway serves, probes from another process, over a restart."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.fernet import Fernet
from mcp.server.mcpserver import MCPServer

from remotes.tokens.grant import FRESH_S
from tests.component.token_world import assert_untold
from tests.peers.authorization import Desk, authorization_server, resource_server
from tests.system import gateway

pytestmark = pytest.mark.edge(4)


@dataclass
class World:
    desk: Desk
    gateway: gateway.Gateway
    logged_in: float = 0.0

    def login(self, *words: str) -> dict[str, Any]:
        """Run the command, and open what it shows on stderr as a person does."""
        process = subprocess.Popen(
            [sys.executable, "manage.py", "mcp", "remote", "login", "shop", *words],
            cwd=gateway.ROOT, env=dict(self.gateway.environment), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("http"):
                seen = " ".join(psutil.Process(process.pid).cmdline())
                assert_untold(self.desk, seen, *psutil.Process(process.pid).environ().values())
                urllib.request.urlopen(line.strip(), timeout=5).close()
                break
        out, _ = process.communicate(timeout=20)
        self.logged_in = time.monotonic()
        document: dict[str, Any] = json.loads(out)
        return document

    def echo(self, text: str = "hello") -> dict[str, Any]:
        return self.gateway.command("mcp", "tools", "call", "shop__echo", f"text={text}")

    def status(self) -> dict[str, Any]:
        return self.gateway.remotes()["shop"]

    def told(self) -> Iterator[str]:
        """Everything that anybody may read."""
        yield self.gateway.log()
        for words in (
            ("mcpstatus",),
            ("mcpconfig", "show"),
            ("mcp", "remote", "list"),
            ("mcp", "remote", "show", "shop"),
        ):
            yield json.dumps(self.gateway.command(*words))
        with urllib.request.urlopen(f"{self.gateway.url}/metrics", timeout=5) as page:
            yield page.read().decode()
        for path in Path(self.gateway.folder).rglob("*"):
            if path.is_file():
                yield path.read_bytes().decode("latin-1")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    server = MCPServer("shop", log_level="WARNING")
    server.tool(structured_output=False)(echo)
    with contextlib.ExitStack() as stack:
        desk = stack.enter_context(authorization_server())
        url = stack.enter_context(resource_server(desk, server.streamable_http_app()))
        key = Fernet.generate_key().decode()
        running = stack.enter_context(gateway.running({"shop": {"url": url}}, MCP_ENCRYPTION_KEYS=key))
        yield World(desk, running)


def echo(text: str) -> str:
    """Say it again."""
    return text


def test_from_no_login_to_a_called_tool_and_out_again(world):
    assert re.search("auth_expired", eventually(world, "auth_expired")["status"])
    assert world.status()["last_error"] == "shop wants a login: mcp remote login shop"
    done = world.login()
    assert (done["ok"], done["status"], done["scope"]) == (True, "logged_in", "tools")
    assert_untold(world.desk, json.dumps(done))
    eventually(world, "healthy")
    assert world.echo()["ok"]
    auth = world.status()["auth"]
    assert (auth["expires_at"], auth["renewable"], auth["tokens_unsaved"]) == (done["expires_at"], True, None)

    # Everybody gets 401 at once: the gateway's callers, and commands in processes of their own.
    age(world)
    world.desk.revoke_access()
    before = world.desk.count("refresh_token")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(world.echo) for _ in range(2)]
        tests = [pool.submit(world.gateway.command, "mcp", "remote", "test", "shop") for _ in range(2)]
        assert all(one.result()["ok"] for one in (*calls, *tests))
    assert world.desk.count("refresh_token") == before + 1
    assert not world.desk.ended, "no refresh token was used twice"

    world.gateway.command("mcpserver", "restart")
    eventually(world, "healthy")
    assert world.echo()["ok"]
    assert_untold(world.desk, *world.told())

    out = world.gateway.command("mcp", "remote", "logout", "shop")
    assert (out["status"], out["revoked"]) == ("logged_out", True)
    eventually(world, "auth_expired")
    assert not world.echo()["ok"]
    assert_untold(world.desk, *world.told())


def eventually(world: World, word: str) -> dict[str, Any]:
    return gateway.eventually(world.status, lambda one: one["status"] == word, within_s=20, what=f"shop is {word}")


def age(world: World) -> None:
    """Wait until the token is not one that was issued just now: such a one is not renewed."""
    time.sleep(max(0.0, world.logged_in + FRESH_S + 0.5 - time.monotonic()))
