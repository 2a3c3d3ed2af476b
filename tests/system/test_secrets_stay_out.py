"""What was given in confidence is in no file: not in the log at its loudest, not in the database, not on stderr."""

import contextlib
import http.client
import json
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.component.real_gateway import Client, until
from tests.system import gateway
from tests.system.gateway import eventually

pytestmark = pytest.mark.edge(11)

LEAKY = Path(__file__).with_name("leaky.py")
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def test_a_remotes_secret_and_a_clients_key_are_in_no_file_however_they_are_thrown_about() -> None:
    password = f"Zx{secrets.token_hex(16)}"
    remote = {"command": sys.executable, "args": [str(LEAKY)], "env": {"LEAKY_PASSWORD": "${LEAKY_PASSWORD}"}}
    with gateway.running({"leaky": remote}, LEAKY_PASSWORD=password, LOG_LEVEL="debug") as running:
        assert running.command("mcpconfig", "set", "gateway.audit", "arguments")["ok"]
        eventually(
            lambda: running.command("mcpstatus")["calls"]["audit"], lambda mode: mode == "arguments", within_s=15,
            what="arguments are recorded",
        )  # fmt: skip
        eventually(running.remotes, lambda found: found["leaky"]["status"] == "healthy", within_s=20, what="healthy")
        client = Client(int(running.url.rpartition(":")[2]), running.key)
        for tool in ("refuse", "garble", "die"):
            client.modern("tools/call", {"name": f"leaky__{tool}", "arguments": {"password": running.key}})
        thrown(client, running.key)
        calls = eventually(
            lambda: running.command("mcp", "calls", "-n", "100")["calls"], lambda found: len(found) >= 7,
            within_s=15, what="the calls are recorded",
        )  # fmt: skip
        assert any("arguments" in call for call in calls)
        running.command("mcpserver", "stop")
        written = {path: path.read_bytes() for path in running.folder.rglob("*") if path.is_file()}
        said = b"".join(written.values())
        assert b"DEBUG" in said
        assert b"leaky__die" in said
        for secret in (password, running.key.rpartition("_")[2]):
            assert [path for path, content in written.items() if secret.lower().encode() in content.lower()] == []


def thrown(client: Client, key: str) -> None:
    """A key where no key belongs: names, URIs, methods, ids of sessions, the address, and credentials of other shapes."""
    client.modern("tools/call", {"name": f"leaky__{key}"})
    client.modern("prompts/get", {"name": f"Authorization: Bearer {key}"})
    client.modern("resources/read", {"uri": f"https://me:{key}@host/?token={key}"})
    client.modern("tools/call", {"name": "leaky__refuse", "arguments": {"deep": [{"text": f"use {key} please"}]}})
    client.modern(f"tools/{key}")
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    odd: list[Mapping[str, str]] = [
        {"Mcp-Session-Id": key},
        {"Last-Event-ID": key},
        {"Origin": f"http://{key}.example"},
        {"Host": f"{key}.example"},
        {"MCP-Protocol-Version": key},
        {"Authorization": f"Basic {key}"},
        {"Authorization": f"Bearer {key}x"},
        {"Content-Type": key},
        {"X-Long": key * 1000},
    ]
    for headers in odd:
        whole = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Accept": "*/*", **headers}
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", f"/mcp?key={key}", body, whole)
            connection.getresponse().read()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)) as connection:
        connection.request(key, f"/messages/?session_id={key}", b"x" * 2_000_000, {"Content-Length": "2000000"})
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.getresponse().read()


def test_the_log_is_as_loud_as_the_environment_says() -> None:
    with gateway.running({}, LOG_LEVEL="debug") as running:
        until(lambda: '"level":"DEBUG"' in running.log(), "debug lines")
        assert " info " in (running.folder / "stderr").read_text()
    with gateway.running({}, LOG_LEVEL="error") as running:
        Client(int(running.url.rpartition(":")[2]), "mcp_wrong").modern("tools/list")
        assert '"level":"INFO"' not in running.log()
