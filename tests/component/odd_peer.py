"""A stdio server that is legal and odd: what a gateway must carry untouched, and what it must drop without harm to the rest.

Revision 2025-11-25, standard library only, raw lines: every byte of an answer is written here and nowhere else.

| tool        | does |
| ----------- | ---- |
| `mirrored`  | has `x-mcp-header` annotations; answers with the params it got, as text |
| `raw`       | answers with unknown fields, wide integers, escapes and its own `_meta: null` |
| `größe 1`   | a name of characters that no client takes |
| `wait`      | answers after the cancellation or the end of input, never by itself; writes the journal |
| `smuggle`   | like `mirrored`; the test sends it raw line ends |
| `late`      | answers after 0.7 s |
| (no name), `no-schema`, `bad-header` | malformed: dropped |
"""

import json
import os
import sys
import threading
from typing import Any

TYPED = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "deep": {"type": "object", "properties": {"count": {"type": "integer", "x-mcp-header": "Count"}}},
        "sure": {"type": "boolean", "x-mcp-header": "Sure"},
    },
}
ANY = {"type": "object"}
TOOLS = [
    {"name": "mirrored", "inputSchema": TYPED, "vendorField": {"kept": 12345678901234567890123}},
    {"name": "raw", "inputSchema": ANY},
    {"name": "größe 1", "inputSchema": ANY},
    {"name": "wait", "inputSchema": ANY},
    {"name": "smuggle", "inputSchema": ANY},
    {"name": "late", "inputSchema": ANY},
    {"description": "I have no name", "inputSchema": ANY},
    {"name": "no-schema"},
    {
        "name": "bad-header",
        "inputSchema": {"type": "object", "properties": {"x": {"type": "number", "x-mcp-header": "X"}}},
    },
]
RESOURCES = [{"uri": "peer://motd", "name": "another motd"}, {"name": "without uri"}]
TEMPLATES = [{"uriTemplate": "odd://{a}/{b}/", "name": "two"}, {"uriTemplate": "odd://{broken", "name": "broken"}]
LISTS = {
    "tools/list": {"tools": TOOLS},
    "prompts/list": {"prompts": [{"name": "ask me"}]},
    "resources/list": {"resources": RESOURCES},
    "resources/templates/list": {"resourceTemplates": TEMPLATES},
}
GREETING = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}, "prompts": {}, "resources": {}},
    "serverInfo": {"name": "odd", "version": "1"},
}
RAW = (
    '{"content":[{"type":"text","text":"\\u00e9\\ud83d\\ude00","futureHint":1.10}],"_meta":null,'
    '"vendor":{"wide":123456789012345678901234567890,"exponent":1E+2,"empty":[],"nothing":null}}'
)

waiting: dict[Any, str] = {}


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        params = message.get("params") or {}
        if "id" in message:
            serve(message["id"], message["method"], params)
        elif message["method"] == "notifications/cancelled" and params.get("requestId") in waiting:
            journal("cancelled", waiting.pop(params["requestId"]))


def serve(id, method: str, params: dict[str, Any]) -> None:
    if method == "initialize":
        say(id, result=GREETING)
    elif method in LISTS:
        say(id, result=LISTS[method])
    elif method == "ping":
        say(id, result={})
    elif method == "tools/call":
        call(id, params)
    elif method == "prompts/get":
        say(id, result={"messages": [{"role": "user", "content": {"type": "text", "text": params["name"]}}]})
    elif method == "resources/read":
        say(id, result={"contents": [{"uri": params["uri"], "text": f"odd says {params['uri']}"}]})
    else:
        say(id, error={"code": -32601, "message": f"no {method}"})


def call(id, params: dict[str, Any]) -> None:
    name = params["name"]
    if name == "raw":
        print(f'{{"jsonrpc":"2.0","id":{json.dumps(id)},"result":{RAW}}}', flush=True)
    elif name == "wait":
        waiting[id] = params.get("arguments", {}).get("tag", "")
        journal("started", waiting[id])
    elif name == "late":
        threading.Timer(0.7, say, [id], {"result": {"content": [{"type": "text", "text": "at last"}]}}).start()
    else:
        text = json.dumps(params, ensure_ascii=False, sort_keys=True)
        say(id, result={"content": [{"type": "text", "text": text}]})


def say(id, **members) -> None:
    print(json.dumps({"jsonrpc": "2.0", "id": id, **members}), flush=True)


def journal(event: str, tag: str) -> None:
    if path := os.environ.get("PEER_JOURNAL"):
        with open(path, "a") as file:
            file.write(json.dumps({"event": event, "tag": tag}) + "\n")


if __name__ == "__main__":
    main()
