"""A server of odd but legal messages, each written here byte for byte: what a client must get as it was sent.

    python exact_peer.py --transport stdio|http --era legacy|modern --name NAME [--ready-fd N]

Standard library only. Vendor fields at every level, integers and decimals that no float holds, escaped and plain forms of the
same characters, line separators inside strings, empty lists and objects, schemas with definitions that refer to themselves.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ODD = (
    '{"wide":-123456789012345678901234567890,"exact":0.1000000000000000055511151231257827,"zeros":[0,-0,0.0,-0.0,1.0,1.10],'
    '"powers":[1E+2,1e2,1e-7,12345678901234567890.5],"both":"\\u00e9\u00e9\\ud83d\\ude00\U0001f600","slash":"\\/ /",'
    '"lines":"\\u2028\u2028\u2029\\n\\t\\u000b","marks":"\u202e\ufeff\u200b\\u0000","none":null,"yes":true,"list":[],"map":{},'
    '"":{"":[[[[[[[[[[[[{}]]]]]]]]]]]]},"\\u006eame":"escaped key","__proto__":[],"resultTypes":"ttlMs cacheScope"}'
)
META = '{"vendor.example/odd":' + ODD + ',"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
ICONS = (
    '[{"src":"data:image/png;base64,AA==","mimeType":"image/png","sizes":["48x48","any"],"theme":"dark","vendor":[]}]'
)
ANNOTATIONS = '{"audience":["user"],"priority":0.30,"lastModified":"2026-11-22T00:00:00Z","futureHint":' + ODD + "}"
SCHEMA = (
    '{"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"https://example.com/s","type":"object","$defs":'
    '{"node":{"type":"object","properties":{"next":{"$ref":"#/$defs/node"},"n":{"type":"integer",'
    '"maximum":123456789012345678901234567890,"multipleOf":1.0}},"required":[]}},"properties":{"node":{"$ref":"#/$defs/node"},'
    '"\u00f6":{"enum":[1,1.0,"1",null,[],{}]}},"allOf":[],"unevaluatedProperties":false,"x-vendor":' + ODD + "}"
)
COMMON = (
    f'"title":"T \\u2028","description":"\u2028 \\u00e9 \U0001f600","icons":{ICONS},"_meta":{META},"vendorField":{ODD}'
)
ARGUMENTS = f'[{{"name":"a","description":"","required":false,"title":"A","vendor":{ODD}}}]'
TEXT = f'{{"type":"text","text":"\\u2028\u2028 \\ud83d\\ude00 \\"","annotations":{ANNOTATIONS},"_meta":{META},"vendor":[]}}'
ERROR = '{"code":-31999,"message":"\u2028 \\u00e9","data":' + ODD + ',"vendorOfError":' + ODD + "}"
PROGRESS = '"progress":1.10,"total":12345678901234567890123,"message":"\u2028 \\u00e9","vendor":' + ODD
LOG = '{"level":"error","logger":"l","data":' + ODD + ',"vendor":' + ODD + "}"
HINTS = '"ttlMs":1000,"cacheScope":"private"'


def tool(name: str) -> str:
    return (
        f'{{"name":"{name}",{COMMON},"inputSchema":{SCHEMA},"outputSchema":{SCHEMA},"annotations":{ANNOTATIONS},'
        f'"execution":{{"taskSupport":"forbidden","vendor":{ODD}}}}}'
    )


def lists(peer: str) -> dict[str, str]:
    """Each list method's entries, raw."""
    resource = (
        f'{{"uri":"exact.{peer}://a/b?c=%20","name":"\u00e9",{COMMON},"mimeType":"a/b","size":12345678901234567890,'
    )
    template = f'{{"uriTemplate":"exact.{peer}://t/{{id}}","name":"t",{COMMON},"mimeType":"a/b",'
    return {
        "tools/list": f"{tool('exact')},{tool('mirror')},{tool('tell')},{tool('fail')}",
        "prompts/list": f'{{"name":"exact",{COMMON},"arguments":{ARGUMENTS}}}',
        "resources/list": resource + f'"annotations":{ANNOTATIONS}}}',
        "resources/templates/list": template + f'"annotations":{ANNOTATIONS}}}',
    }


def results(peer: str) -> dict[str, str]:
    """The members of each result, raw."""
    uri = f"exact.{peer}://a/b?c=%20"
    embedded = f'{{"uri":"{uri}","blob":"AA==","mimeType":"a/b","_meta":{META},"vendor":{ODD}}}'
    blocks = (
        f'{TEXT},{{"type":"image","data":"AA==","mimeType":"image/png","vendor":{ODD}}},'
        f'{{"type":"audio","data":"AA==","mimeType":"audio/wav","_meta":{META}}},'
        f'{{"type":"resource_link","uri":"{uri}","name":"n",{COMMON},"annotations":{ANNOTATIONS}}},'
        f'{{"type":"resource","resource":{embedded},"annotations":{ANNOTATIONS}}},'
        f'{{"type":"vendor.example/block","odd":{ODD}}}'
    )
    return {
        "tools/call": f'"vendor":{ODD},"content":[{blocks}],"structuredContent":{ODD},"isError":false,"_meta":{META}',
        "prompts/get": f'"description":"","messages":[{{"role":"user","content":{TEXT},"vendor":{ODD}}}],"_meta":{META}',
        "resources/read": f'"contents":[{embedded}],"_meta":{META},"vendor":{ODD}',
        "completion/complete": f'"completion":{{"values":[],"total":0,"hasMore":false,"vendor":{ODD}}},"_meta":{META}',
    }


class Peer:
    def __init__(self, name: str, era: str) -> None:
        self.era = era
        self.lists = lists(name)
        self.results = results(name)

    def answers(self, raw: str) -> list[str]:
        """What to say to one message, in order."""
        message = json.loads(raw)
        if "id" not in message or "method" not in message:
            return []
        id, params = json.dumps(message["id"]), message.get("params") or {}
        said = self.told(params) if params.get("name") == "tell" else []
        if params.get("name") == "fail":
            return [f'{{"jsonrpc":"2.0","id":{id},"error":{ERROR}}}']
        found = self.result(message["method"], params, raw)
        if found is None:
            return [f'{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"no"}}}}']
        return [*said, f'{{"jsonrpc":"2.0","vendorOfMessage":[],"id":{id},"result":{{{found}}}}}']

    def result(self, method: str, params: dict[str, Any], raw: str) -> str | None:
        offered = '"capabilities":{"tools":{},"prompts":{},"resources":{},"completions":{},"logging":{}}'
        if method == "initialize":
            return f'"protocolVersion":"2025-11-25",{offered},"serverInfo":{{"name":"exact","version":"1"}}'
        if method == "server/discover" and self.era == "modern":
            return f'"resultType":"complete","supportedVersions":["2026-07-28"],{offered},{HINTS}'
        complete = '"resultType":"complete",' if self.era == "modern" else ""
        if method in self.lists:
            field = {"resources/templates/list": "resourceTemplates"}.get(method, method.partition("/")[0])
            return complete + f'"{field}":[{self.lists[method]}]' + (f",{HINTS}" if complete else "")
        if method in ("logging/setLevel", "ping"):
            return complete.rstrip(",")
        if params.get("name") == "mirror":
            return complete + f'"content":[{{"type":"text","text":{json.dumps(raw)}}}]'
        if method not in self.results:
            return None
        return complete + self.results[method] + (f",{HINTS}" if complete and method == "resources/read" else "")

    def told(self, params: dict[str, Any]) -> list[str]:
        token = json.dumps(params["_meta"]["progressToken"])
        notices = (("progress", f'{{"progressToken":{token},{PROGRESS}}}'), ("message", LOG))
        return [f'{{"jsonrpc":"2.0","method":"notifications/{name}","params":{about}}}' for name, about in notices]


def stdio(peer: Peer) -> None:
    for line in sys.stdin.buffer:
        for answer in peer.answers(line.decode()):
            sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()


def http(peer: Peer, ready_fd: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.say(405, b"")

        def do_DELETE(self) -> None:
            self.say(200, b"")

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"])).decode()
            is_modern = self.headers.get("MCP-Protocol-Version") == "2026-07-28"
            if is_modern != (peer.era == "modern"):
                self.say(400, b"")
                return
            answers = peer.answers(raw)
            if len(answers) > 1:
                events = "".join(f"event: message\ndata: {answer}\n\n" for answer in answers)
                self.say(200, events.encode(), "text/event-stream")
            else:
                self.say(200 if answers else 202, "".join(answers).encode())

        def say(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    os.write(ready_fd, json.dumps({"port": server.server_address[1]}).encode() + b"\n")
    server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=("stdio", "http"), default="stdio")
    parser.add_argument("--era", choices=("legacy", "modern"), default="legacy")
    parser.add_argument("--name", required=True)
    parser.add_argument("--ready-fd", type=int, default=2)
    chosen = parser.parse_args()
    peer = Peer(chosen.name, chosen.era)
    serve: dict[str, Callable[[], None]] = {"stdio": lambda: stdio(peer), "http": lambda: http(peer, chosen.ready_fd)}
    serve[chosen.transport]()


if __name__ == "__main__":
    main()
