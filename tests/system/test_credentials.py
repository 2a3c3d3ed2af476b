"""Credentials stay on their side: a client's reach no remote, and one remote's reach neither another nor anybody who asks.

A real gateway in front of remotes of every transport and era that write down everything they are sent.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.component.real_gateway import Client, Gateway, prepared
from tests.component.upstreams import EventStream, Request, Served, Wire, legacy, modern, served

CLIENTS = {
    "Cookie": "session=client-cookie-secret",
    "Proxy-Authorization": "Basic client-proxy-secret",
    "X-Custom-Token": "client-custom-secret",
    "X-Forwarded-For": "203.0.113.77",
    "Referer": "https://client-page-secret.example/",
}
WRITES_DOWN = """
import json, os, sys
with open(sys.argv[1], "a", buffering=1) as file:
    print(json.dumps(dict(os.environ)), file=file)
    for line in sys.stdin:
        print(line, end="", file=file)
        message = json.loads(line)
        if "id" not in message:
            continue
        info = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
        tools = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        results = {"initialize": info, "tools/list": tools, "tools/call": {"content": []}}
        known = message["method"] in results
        answer = {"result": results[message["method"]]} if known else {"error": {"code": -32601, "message": "no"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"]} | answer), flush=True)
"""


async def quotes(request: Request, wire: Wire) -> None:
    """An error page that shows what was sent, credential and all."""
    await wire.answer(json.dumps(request.headers).encode(), status=500, kind="text/html")


class SecretiveClient(Client):
    """Sends with every request what is meant for the gateway alone."""

    def basics(self, *, accept: str = "application/json, text/event-stream") -> list[tuple[str, str]]:
        return [*super().basics(accept=accept), *CLIENTS.items()]


def through_every_door(client: Client) -> None:
    for name in ("new", "old", "sse", "child", "page"):
        call = {"name": f"{name}__echo", "arguments": {}}
        assert client.modern("tools/call", call).status == 200
        assert client.session().call("tools/call", call).status == 200
        with client.relay().opened() as relay:
            relay.call("tools/call", call)


def configured(servers: dict[str, Served], journal: Path) -> dict[str, Any]:
    remotes: dict[str, Any] = {
        name: {
            "url": f"{server.url}?key=query-secret-of-{name}",
            "headers": {"Authorization": f"Bearer header-secret-of-{name}"},
            **({"type": "sse"} if name == "sse" else {}),
        }
        for name, server in servers.items()
    }
    remotes["sse"]["url"] = servers["sse"].url
    arguments = ["-I", "-c", WRITES_DOWN, str(journal)]
    child = {
        "command": sys.executable,
        "args": arguments,
        "era": "2025-11-25",
        "env": {"TOKEN": "variable-secret-of-child"},
    }
    return remotes | {"child": child}


async def everything(gateway: Gateway, journal: Path) -> dict[str, str]:
    """Use all that is there as a client, and give back what others can read of it."""
    client = SecretiveClient(gateway.port, gateway.keys["main"])
    await asyncio.to_thread(through_every_door, client)
    page = await asyncio.to_thread(client.modern, "tools/call", {"name": "page__echo", "arguments": {}})
    shown = await asyncio.to_thread(gateway.command, "mcpconfig", "show", "--resolved")
    known = await asyncio.to_thread(gateway.command, "mcp", "tools", "list", "--all")
    status = await asyncio.to_thread(gateway.status)
    gateway.term()
    assert gateway.process is not None
    await asyncio.to_thread(gateway.process.wait, 20)
    logs = "".join(path.read_text() for path in (gateway.folder / "logs").glob("*.log"))
    output = (gateway.folder / "output").read_text()
    return {
        "an error": page.body.decode(), "config": json.dumps(shown), "tools": json.dumps(known),
        "status": json.dumps(status), "logs": logs + output,
    }  # fmt: skip


def seen_by(server: Served) -> str:
    return "\n".join(f"{one.target} {one.headers} {one.body.decode()}" for one in server.arrived)


async def test_no_credential_crosses_to_another_side(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with (
        served(modern()) as new,
        served(legacy()) as old,
        served(EventStream()) as sse,
        served(modern({"tools/call": quotes})) as page,
    ):
        servers = {"new": new, "old": old, "sse": sse, "page": page}
        with prepared(configured(servers, journal)) as gateway:
            await asyncio.to_thread(gateway.start)
            await asyncio.to_thread(gateway.healthy, *servers, "child")
            told = await everything(gateway, journal)
            keys = list(gateway.keys.values())
        side = {name: seen_by(server) for name, server in servers.items()} | {"child": journal.read_text()}
        for name, text in side.items():
            own = "variable-secret-of-child" if name == "child" else f"header-secret-of-{name}"
            assert own in text, f"{name} got its own"
            others = [one for one in secrets(servers) if not one.endswith(f"-of-{name}")]
            for secret in (*keys, *client_secrets(), *others):
                assert secret not in text, f"{name} saw {secret}"
        for where, text in told.items():
            for secret in (*keys, *client_secrets(), *secrets(servers)):
                assert secret not in text, f"{where} tells {secret}"
        assert "[redacted]" in told["an error"], "the page did quote it"


def secrets(servers: dict[str, Served]) -> Iterator[str]:
    yield "variable-secret-of-child"
    for name in servers:
        yield from (f"header-secret-of-{name}", f"query-secret-of-{name}")


def client_secrets() -> list[str]:
    return [value.rpartition("=")[2].rpartition(" ")[2] for value in CLIENTS.values()]


@pytest.fixture(autouse=True)
def _in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gateway itself was started with is no remote's business either."""
    monkeypatch.setenv("SOME_OTHER_SECRET", "secret-of-the-gateway")
