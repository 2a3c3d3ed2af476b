"""The proof that it works: one call of a tool, through the real endpoint, with a real key.

Plain HTTP as any client sends it (stateless, revision 2026-07-28); nothing of the gateway's own code takes part.
"""

import json
import time
import urllib.error
import urllib.request
from typing import Any

from mcpserver.lib.errors import GatewayError

REVISION = "2026-07-28"
TOOL = "demo__echo"
WORDS = "hello from ./start"
REQUEST_TIMEOUT_S = 15
# A fresh machine starts the demo's Python for the first time.
PATIENCE_S = 30.0


def check(url: str, key: str, *, must_echo: bool) -> str:
    """What was seen, in words; GatewayError when it is not what must be.

    The demo may have been taken out of the configuration (`must_echo` False): then the list of tools is proof enough.
    """
    deadline = time.monotonic() + PATIENCE_S
    names = _tool_names(url, key)
    while must_echo and TOOL not in names and time.monotonic() < deadline:
        time.sleep(0.25)
        names = _tool_names(url, key)
    if TOOL in names:
        began_at = time.monotonic()
        _echo(url, key)
        return f"{TOOL} answered in {(time.monotonic() - began_at) * 1000:.0f} ms"
    if must_echo:
        raise GatewayError("self_check", f"{TOOL} is not among the tools", hint="see: bin/mcpstatus -o table")
    return f"{len(names)} tools listed"


def _tool_names(url: str, key: str) -> list[str]:
    names: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        result = _ask(url, key, "tools/list", cursor)
        names += [tool["name"] for tool in result.get("tools", [])]
        if not result.get("nextCursor"):
            return names
        cursor = {"cursor": result["nextCursor"]}


def _echo(url: str, key: str) -> None:
    result = _ask(url, key, "tools/call", {"name": TOOL, "arguments": {"text": WORDS}})
    text = "".join(block.get("text", "") for block in result.get("content", []))
    if result.get("isError") or WORDS not in text:
        raise GatewayError("self_check", f"{TOOL} answered {text[:200]!r}", hint="see: bin/mcp remote test demo")


def request(url: str, key: str, method: str, params: dict[str, Any]) -> urllib.request.Request:
    meta = {
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientInfo": {"name": "start", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Authorization": f"Bearer {key}",
        "MCP-Protocol-Version": REVISION,
        "Mcp-Method": method,
    }
    if "name" in params:
        headers["Mcp-Name"] = params["name"]
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310  http, to ourselves


def _ask(url: str, key: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
    # A proxy in the environment is for the world, not for this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request(url, key, method, params), timeout=REQUEST_TIMEOUT_S) as response:
            answer = _message(response.read(), response.headers.get_content_type())
    except urllib.error.HTTPError as error:
        raise _failed(method, f"HTTP {error.code}: {error.read(300).decode(errors='replace')}") from None
    except (OSError, ValueError) as error:
        raise _failed(method, f"{type(error).__name__}: {error}") from None
    result = answer.get("result")
    if not isinstance(result, dict):
        raise _failed(method, json.dumps(answer.get("error", answer))[:300])
    return result


def _message(body: bytes, kind: str) -> dict[str, Any]:
    """The answer: the body itself, or the last event of a stream."""
    if kind != "text/event-stream":
        document = json.loads(body)
    else:
        events = [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:") and line[5:].strip()]
        document = json.loads(events[-1]) if events else {}
    return document if isinstance(document, dict) else {}


def _failed(method: str, words: str) -> GatewayError:
    return GatewayError("self_check", f"{method} through the gateway failed: {words}", hint="see the logs folder")
