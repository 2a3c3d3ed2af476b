"""A stdio server whose tools are those of a JSON file, read anew for every list; told of each change of the file.

    python shifting.py FILE     the file holds a list of tools

Standard library only; it is run with `-I`.
"""

import json
import os
import sys
import threading
import time

_out = threading.Lock()


def say(message: object) -> None:
    with _out:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def watch(path: str) -> None:
    before = os.stat(path).st_ino
    while True:
        time.sleep(0.05)
        if (now := os.stat(path).st_ino) != before:
            before = now
            say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})


def answer(path: str, method: str, params: dict[str, object]) -> object:
    if method == "initialize":
        info = {"name": "shifting", "version": "1"}
        capabilities = {"tools": {"listChanged": True}}
        return {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
    if method == "tools/list":
        with open(path, encoding="utf-8") as file:
            return {"tools": json.load(file)}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": f"{params['name']} was called"}]}
    return {} if method == "ping" else None


def main(path: str) -> None:
    threading.Thread(target=watch, args=(path,), daemon=True).start()
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        head = {"jsonrpc": "2.0", "id": message["id"]}
        result = answer(path, message["method"], message.get("params") or {})
        error = {"code": -32601, "message": "method not found"}
        say(head | ({"error": error} if result is None else {"result": result}))


main(sys.argv[1])
