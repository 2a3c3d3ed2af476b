"""A stand-in for the model API that a coding agent talks to, so that the agent runs as it is shipped, without a model.

`serving(tool, arguments)` listens on loopback and answers POST /v1/messages: whoever offers `tool` is told to call it, who
brings its result gets it back as the last word, and who offers it not is told so. It keeps what it was sent. As the agent's
proxy it keeps, and refuses, what was meant for any other host. Standard library only.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

TOOL_USE_ID = "toolu_stand_in_1"
USAGE = {"input_tokens": 1, "output_tokens": 1}


@dataclass
class ModelApi:
    """What the stand-in wants called, and what it was sent."""

    tool: str
    arguments: Mapping[str, Any]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def offered(self) -> set[str]:
        """The names of all tools that any request offered."""
        return {tool["name"] for request in self.asked for tool in request.get("tools", ())}

    def answer(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The one content block of the answer, and why it stops there."""
        if (result := _result(request)) is not None:
            return {"type": "text", "text": f"The tool said: {result}"}, "end_turn"
        if self.tool in {tool["name"] for tool in request.get("tools", ())}:
            return {"type": "tool_use", "id": TOOL_USE_ID, "name": self.tool, "input": dict(self.arguments)}, "tool_use"
        return {"type": "text", "text": f"There is no tool {self.tool}."}, "end_turn"


def _result(request: Mapping[str, Any]) -> str | None:
    """What the last message brings as the tool's result."""
    content = request["messages"][-1]["content"]
    for block in content if isinstance(content, list) else ():
        if block.get("tool_use_id") == TOOL_USE_ID:
            result = block.get("content", "")
            return result if isinstance(result, str) else "".join(part.get("text", "") for part in result)
    return None


@contextlib.contextmanager
def serving(tool: str, arguments: Mapping[str, Any]) -> Iterator[ModelApi]:
    api = ModelApi(tool, arguments)
    handler = type("Handler", (_Handler,), {"api": api})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    api: ModelApi
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        if path == "/v1/messages/count_tokens":
            self._send_json({"input_tokens": 1})
        elif path == "/v1/messages":
            request = json.loads(body)
            self.api.asked.append(request)
            message, block = self._message(request)
            if request.get("stream"):
                self._send("text/event-stream", b"".join(_events(message, block)))
            else:
                self._send_json(message | {"content": [block]})
        else:
            self._elsewhere()

    def do_CONNECT(self) -> None:
        self._elsewhere()

    def do_GET(self) -> None:
        self._elsewhere()

    def do_HEAD(self) -> None:
        """Some ask whether there is anybody."""
        self._send_json({})

    def _message(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        block, reason = self.api.answer(request)
        message = {
            "id": f"msg_stand_in_{len(self.api.asked)}",
            "type": "message",
            "role": "assistant",
            "model": request["model"],
            "content": [],
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": USAGE,
        }
        return message, block

    def _elsewhere(self) -> None:
        self.api.elsewhere.append(f"{self.command} {self.path}")
        error = {"type": "error", "error": {"type": "not_found_error", "message": "only a stand-in"}}
        self._send_json(error, status=404)
        self.close_connection = True

    def _send_json(self, document: Mapping[str, Any], status: int = 200) -> None:
        self._send("application/json", json.dumps(document).encode(), status)

    def _send(self, kind: str, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        """Quiet."""


def _events(message: Mapping[str, Any], block: Mapping[str, Any]) -> Iterator[bytes]:
    """One message as the API streams it: its block begins empty and grows by one delta."""
    if block["type"] == "text":
        begun, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        begun = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    yield _event("message_start", message={**message, "stop_reason": None})
    yield _event("content_block_start", index=0, content_block=begun)
    yield _event("content_block_delta", index=0, delta=delta)
    yield _event("content_block_stop", index=0)
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", delta=stop, usage=USAGE)
    yield _event("message_stop")


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
