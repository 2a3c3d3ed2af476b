"""A stdio server of 2025-11-25 that answers what it is told to: the tool `say` with its argument `result`, word for word.

Standard library only.
"""

import json
import sys
from typing import Any

LONG = "Ünd so wëiter. 😀 " * 4500
TOOLS = [{"name": "say", "inputSchema": {"type": "object"}, "outputSchema": {"type": "object"}}]
ANSWERS: dict[str, Any] = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}, "prompts": {}, "resources": {}},
        "serverInfo": {"name": "saying", "version": "1"},
    },
    "tools/list": {"tools": TOOLS},
    "prompts/list": {"prompts": [{"name": "long"}]},
    "resources/list": {"resources": [{"uri": "saying://long", "name": "long"}]},
    "resources/templates/list": {"resourceTemplates": []},
    "prompts/get": {"messages": [{"role": "user", "content": {"type": "text", "text": LONG}}]},
    "resources/read": {"contents": [{"uri": "saying://long", "mimeType": "text/markdown", "text": LONG}]},
}


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        if message["method"] == "tools/call":
            said = message["params"]["arguments"]
            answer = {"error": said["error"]} if "error" in said else {"result": said["result"]}
        elif message["method"] in ANSWERS:
            answer = {"result": ANSWERS[message["method"]]}
        else:
            answer = {"error": {"code": -32601, "message": "no"}}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}, ensure_ascii=False) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
