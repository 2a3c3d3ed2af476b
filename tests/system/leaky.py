"""A stdio server that puts its secret wherever it can: stderr, errors, log messages, descriptions of its own failure.

Standard library only. Tools: `refuse` (a JSON-RPC error), `garble` (an answer that is none), `die`.
"""

import json
import os
import sys
from typing import Any

SECRET = os.environ["LEAKY_PASSWORD"]
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("refuse", "garble", "die")]


def main() -> None:
    print(f"starting with {SECRET}; Authorization: Bearer {SECRET}", file=sys.stderr, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        id, method = message["id"], message["method"]
        if method == "initialize":
            server = {"name": "leaky", "version": "1"}
            say(id, result={"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server})
        elif method == "tools/list":
            say(id, result={"tools": TOOLS})
        elif method == "tools/call":
            call(id, message["params"]["name"])
        else:
            say(id, error={"code": -32601, "message": f"no {method} for {SECRET}"})


def call(id: Any, name: str) -> None:
    told = {"level": "error", "data": f"called with {SECRET}"}
    print(json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": told}), flush=True)
    print(f"{name}: https://me:{SECRET}@host/?token={SECRET}", file=sys.stderr, flush=True)
    if name == "refuse":
        say(id, error={"code": -32000, "message": f"{SECRET} is not welcome", "data": {"env": SECRET}})
    elif name == "garble":
        print(f"no JSON: {SECRET}", flush=True)
        say(id, result=[SECRET])
    else:
        sys.exit(f"dying with {SECRET}")


def say(id: Any, **members: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", "id": id, **members}), flush=True)


if __name__ == "__main__":
    main()
