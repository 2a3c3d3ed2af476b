"""A stdio server of 2025-11-25 that names resources it does not list, and speaks outside its calls.

| tool      | does |
| --------- | ---- |
| `show`    | has a page, `ui://shared/page`, which no list holds (MCP Apps) |
| `earlier` | names the same page as hosts did before |
| `link`    | answers with a link to `note://1`, an embedded `note://2`, and a link into the web |
| `errand`  | sends its user to a URL; `when` says whether that is done during the call, after it, or asked for by an error |
| `done`    | says that the errand with this id is done |

Run as two remotes, every URI is claimed twice. Every notification it gets goes into the journal as NAME:method.
"""

import json
import os
import sys
from typing import Any

NAME = os.environ["NAME"]
ANY = {"type": "object"}
PAGE = "ui://shared/page"
TOOLS = [
    {
        "name": "show",
        "inputSchema": ANY,
        "_meta": {"ui": {"resourceUri": PAGE, "visibility": ["model"]}, "other": 1.10},
    },
    {"name": "earlier", "inputSchema": ANY, "_meta": {"ui/resourceUri": PAGE}},
    {"name": "link", "inputSchema": ANY},
    {"name": "errand", "inputSchema": ANY},
    {"name": "done", "inputSchema": ANY},
]
GREETING = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}, "resources": {}},
    "serverInfo": {"name": NAME, "version": "1"},
}
LINKS = [
    {"type": "text", "text": 'a "resource" in words'},
    {"type": "resource_link", "uri": "note://1", "name": "one", "vendor": {"wide": 12345678901234567890123}},
    {"type": "resource", "resource": {"uri": "note://2", "text": "two", "vendor": 1}},
    {"type": "resource_link", "uri": "https://example.com/3", "name": "three"},
]


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "method" not in message:
            answer(calls.pop(message["id"]))
        elif "id" not in message:
            journal(message["method"])
        else:
            serve(message["id"], message["method"], message.get("params") or {})


calls: dict[str, tuple[Any, dict[str, Any]]] = {}


def serve(id: Any, method: str, params: dict[str, Any]) -> None:
    if method == "initialize":
        say(id=id, result=GREETING)
    elif method == "tools/list":
        say(id=id, result={"tools": TOOLS})
    elif method == "resources/list":
        say(id=id, result={"resources": []})
    elif method == "resources/templates/list":
        say(id=id, result={"resourceTemplates": []})
    elif method == "resources/read":
        say(id=id, result={"contents": [{"uri": params["uri"], "text": f"{NAME} has {params['uri']}"}]})
    elif method == "tools/call" and params["name"] == "link":
        say(id=id, result={"content": LINKS})
    elif method == "tools/call" and params["name"] == "errand":
        errand(id, params["arguments"])
    elif method == "tools/call" and params["name"] == "done":
        done(params["arguments"]["errand"])
        say(id=id, result={"content": []})
    else:
        say(id=id, error={"code": -32601, "message": f"no {method}"})


def errand(id: Any, arguments: dict[str, Any]) -> None:
    question = {"mode": "url", "elicitationId": arguments["errand"], "url": "https://example.com", "message": "go"}
    if arguments["when"] == "refused":
        data = {"elicitations": [question]}
        say(id=id, error={"code": -32042, "message": "run an errand first", "data": data})
        return
    asked = f"ask {arguments['errand']}"
    calls[asked] = id, arguments
    say(id=asked, method="elicitation/create", params=question)


def answer(call: tuple[Any, dict[str, Any]]) -> None:
    id, arguments = call
    if arguments["when"] == "during":
        done(arguments["errand"])
    say(id=id, result={"content": []})


def done(errand: str) -> None:
    say(method="notifications/elicitation/complete", params={"elicitationId": errand})


def say(**members: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **members}), flush=True)


def journal(event: str) -> None:
    with open(os.environ["PEER_JOURNAL"], "a") as file:
        file.write(json.dumps({"event": event, "tag": NAME}) + "\n")


if __name__ == "__main__":
    main()
