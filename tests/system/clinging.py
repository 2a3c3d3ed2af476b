"""A stdio server that is hard to get rid of: `python clinging.py [wrapped] [stubborn]`. Standard library only.

`wrapped`: as npx does it, the process that was started only waits for the one that serves. `stubborn`: neither the end of its
input nor TERM ends it. Its tools: `echo` answers, `hold` never does.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "hold")]
RESULTS: dict[str, dict[str, Any]] = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "clinging", "version": "1"},
    },
    "ping": {},
    "tools/list": {"tools": TOOLS},
    "tools/call": {"content": [{"type": "text", "text": "here"}]},
}


def entry(*manners: str) -> dict[str, Any]:
    """What the configuration says of it; the mark is what tests find it by."""
    return {"command": sys.executable, "args": [__file__, *manners], "env": {"MARK": "${MCP_DATA_DIR}"}}


def main(*manners: str) -> None:
    if "stubborn" in manners:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "wrapped" in manners:
        inner = [manner for manner in manners if manner != "wrapped"]
        raise SystemExit(subprocess.run([sys.executable, __file__, *inner], check=False).returncode)
    for line in sys.stdin:
        answer(json.loads(line))
    while "stubborn" in manners:
        signal.pause()


def answer(message: dict[str, Any]) -> None:
    method, params = message.get("method"), message.get("params", {})
    if "id" not in message or params.get("name") == "hold":
        return
    known = RESULTS.get(str(method))
    outcome = {"result": known} if known is not None else {"error": {"code": -32601, "message": "unknown"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"]} | outcome), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
