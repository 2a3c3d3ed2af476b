import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from mcpserver.launch import selfcheck
from mcpserver.lib.errors import GatewayError

TOOLS = {"result": {"tools": [{"name": "demo__echo"}]}}


class Endpoint(HTTPServer):
    """Answers each method with what the test put there: (status, content type, body)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, str, bytes]] = {}
        self.seen: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mcp"

    def answers_with(self, method: str, document: dict[str, Any], status: int = 200) -> None:
        self.answers[method] = (status, "application/json", json.dumps(document).encode())


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append({"headers": dict(self.headers), **request})
        status, kind, body = self.server.answers[request["method"]]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_echo_that_comes_back_is_the_proof(endpoint):
    endpoint.answers_with("tools/list", TOOLS)
    endpoint.answers_with("tools/call", {"result": {"content": [{"type": "text", "text": selfcheck.WORDS}]}})
    assert selfcheck.check(endpoint.url, "mcp_k", must_echo=True).startswith("demo__echo answered in ")
    call = endpoint.seen[-1]
    assert call["headers"]["Authorization"] == "Bearer mcp_k"
    assert call["headers"]["Mcp-Name"] == "demo__echo"
    assert call["params"]["arguments"] == {"text": selfcheck.WORDS}


def test_an_answer_in_a_stream_is_read_to_its_last_event(endpoint):
    endpoint.answers_with("tools/list", TOOLS)
    answer = {"result": {"content": [{"type": "text", "text": selfcheck.WORDS}]}}
    stream = b': hello\n\ndata: {"method": "notifications/progress"}\n\ndata: ' + json.dumps(answer).encode() + b"\n\n"
    endpoint.answers["tools/call"] = (200, "text/event-stream", stream)
    assert "answered" in selfcheck.check(endpoint.url, "k", must_echo=True)


def test_without_the_demo_a_list_of_tools_is_enough(endpoint):
    endpoint.answers_with("tools/list", {"result": {"tools": [{"name": "mine__a"}, {"name": "mine__b"}]}})
    assert selfcheck.check(endpoint.url, "k", must_echo=False) == "2 tools listed"


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ({"error": {"message": "no"}}, 401, "HTTP 401"),
        ({"error": {"code": -1, "message": "no"}}, 200, '"message": "no"'),
        ({"result": {"isError": True, "content": [{"text": "down"}]}}, 200, "'down'"),
        ({"result": {"content": []}}, 200, "answered ''"),
    ],
)
def test_any_other_answer_is_a_failure_with_what_came(endpoint, answer, status, words):
    endpoint.answers_with("tools/list", TOOLS)
    endpoint.answers_with("tools/call", answer, status)
    with pytest.raises(GatewayError) as failed:
        selfcheck.check(endpoint.url, "k", must_echo=True)
    assert words in failed.value.message


def test_nobody_there_is_a_failure_and_not_a_traceback():
    with pytest.raises(GatewayError, match="tools/list through the gateway failed"):
        selfcheck.check("http://127.0.0.1:1/mcp", "k", must_echo=True)
