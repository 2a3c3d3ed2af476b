"""The ladder of checks of a stateless request: each rung with its code and HTTP status, and their order."""

from typing import Any

import msgspec
import pytest

from mcpserver.protocol import codes, jsonrpc
from mcpserver.protocol.inbound import PREFIX, Call, Rejection, read_handshake, read_modern, single, unsupported_version
from mcpserver.protocol.versions import MODERN, MODERN_METHODS

META = {PREFIX + "protocolVersion": MODERN, PREFIX + "clientCapabilities": {}}
ECHO = {"name": "ev__echo", "arguments": {}}


def request(method: str = "tools/call", params: Any = None, meta: Any = META) -> jsonrpc.Request:
    whole = dict(ECHO if params is None else params) | ({} if meta is None else {"_meta": meta})
    return jsonrpc.Request(b"7", method, msgspec.json.encode(whole))


def headers(**changed: str | None) -> dict[bytes, bytes]:
    named = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": "ev__echo"} | changed
    return {
        name.replace("_", "-").encode(): value.encode("latin-1") for name, value in named.items() if value is not None
    }


def judge(request: jsonrpc.Request, head: dict[bytes, bytes] | None = None, doubled: bytes | None = None) -> Any:
    return read_modern(request, headers() if head is None else head, doubled)


def rejected(*arguments: Any) -> tuple[int, int]:
    verdict = judge(*arguments)
    assert isinstance(verdict, Rejection), verdict
    assert verdict.id == b"7"
    return verdict.status, verdict.code


class TestRungs:
    def test_a_good_request(self) -> None:
        more = META | {
            PREFIX + "clientInfo": {"name": "c"},
            PREFIX + "logLevel": "info",
            "progressToken": 1,
            "traceparent": "00",
            "vendor/x": {"y": 1},
        }
        call = judge(request(meta=more))
        assert isinstance(call, Call)
        assert (call.id, call.method, call.revision, call.log_level) == (b"7", "tools/call", MODERN, "info")
        assert call.meta == {"traceparent": msgspec.Raw(b'"00"'), "vendor/x": msgspec.Raw(b'{"y":1}')}
        assert set(call.params) == {"name", "arguments"}
        assert call.modern
        assert call.progress_token is not None
        assert bytes(call.progress_token) == b"1"

    @pytest.mark.parametrize("doubled", [b"mcp-name", b"mcp-method", b"mcp-protocol-version", b"mcp-param-x"])
    def test_a_header_twice(self, doubled: bytes) -> None:
        assert rejected(request(), None, doubled) == (400, codes.HEADER_MISMATCH)

    @pytest.mark.parametrize(
        "meta",
        [
            None,
            [],
            "x",
            7,
            {},
            {PREFIX + "protocolVersion": MODERN},
            {PREFIX + "clientCapabilities": {}},
            META | {PREFIX + "protocolVersion": 1},
            META | {PREFIX + "clientCapabilities": []},
            META | {PREFIX + "logLevel": "loud"},
            META | {PREFIX + "logLevel": None},
        ],
    )
    def test_meta(self, meta: Any) -> None:
        assert rejected(request(meta=meta)) == (400, codes.INVALID_PARAMS)

    def test_no_params(self) -> None:
        assert rejected(jsonrpc.Request(b"7", "tools/call")) == (400, codes.INVALID_PARAMS)

    @pytest.mark.parametrize(
        "changed",
        [
            {"mcp_protocol_version": None},
            {"mcp_protocol_version": "2025-11-25"},
            {"mcp_method": None},
            {"mcp_method": ""},
            {"mcp_method": "tools/list"},
            {"mcp_method": "TOOLS/CALL"},
            {"mcp_name": None},
            {"mcp_name": "ev__add"},
            {"mcp_name": "=?base64?ZXZfX2FkZA==?="},
            {"mcp_name": "=?base64?\xe9?="},
            {"mcp_name": "ev__echo, ev__add"},
        ],
    )
    def test_headers_against_the_body(self, changed: dict[str, str | None]) -> None:
        assert rejected(request(), headers(**changed)) == (400, codes.HEADER_MISMATCH)

    @pytest.mark.parametrize(
        ("method", "params", "name"),
        [
            ("resources/read", {"uri": "x://é"}, "=?base64?eDovL8Op?="),
            ("prompts/get", {"name": "p"}, " p\t"),
            ("tools/list", {}, None),
            ("tools/list", {}, "anything"),
        ],
    )
    def test_what_the_name_header_names(self, method: str, params: Any, name: str | None) -> None:
        assert isinstance(judge(request(method, params), headers(mcp_method=method, mcp_name=name)), Call)

    @pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
    def test_a_task_is_named_too(self, method: str) -> None:
        task = {"taskId": "t 1"}
        assert isinstance(judge(request(method, task), headers(mcp_method=method, mcp_name="t 1")), Call)
        for name in (None, "t 2", ""):
            assert rejected(request(method, task), headers(mcp_method=method, mcp_name=name)) == (
                400,
                codes.HEADER_MISMATCH,
            )

    def test_a_version_that_is_not_served(self) -> None:
        old = META | {PREFIX + "protocolVersion": "2027-01-01"}
        verdict = judge(request(meta=old), headers(mcp_protocol_version="2027-01-01"))
        assert (verdict.status, verdict.code) == (400, codes.UNSUPPORTED_VERSION)
        assert verdict.data["requested"] == "2027-01-01"
        assert verdict.data["supported"][0] == MODERN

    @pytest.mark.parametrize(
        "method",
        ["ping", "initialize", "logging/setLevel", "resources/subscribe", "tasks/list", "tasks/result", "x", ""],
    )
    def test_a_method_that_does_not_exist(self, method: str) -> None:
        assert method not in MODERN_METHODS
        assert rejected(request(method), headers(mcp_method=method)) == (404, codes.METHOD_NOT_FOUND)

    def test_each_rung_comes_before_the_next(self) -> None:
        """All that can be wrong at once, mended one after the other."""
        method, old = "nothing", "2027-01-01"
        wrong_meta = META | {PREFIX + "protocolVersion": old}
        assert rejected(request(method, meta={}), headers(), b"mcp-name")[1] == codes.HEADER_MISMATCH
        assert rejected(request(method, meta={}), headers())[1] == codes.INVALID_PARAMS
        assert rejected(request(method, meta=wrong_meta), headers())[1] == codes.HEADER_MISMATCH
        agreeing = headers(mcp_method=method, mcp_protocol_version=old)
        assert rejected(request(method, meta=wrong_meta), agreeing)[1] == codes.UNSUPPORTED_VERSION
        assert rejected(request(method), headers(mcp_method=method))[1] == codes.METHOD_NOT_FOUND


class TestSingle:
    def test_the_last_of_each_and_what_was_doubled(self) -> None:
        found, doubled = single([(b"a", b"1"), (b"a", b"2"), (b"mcp-name", b"x"), (b"mcp-name", b"x")])
        assert found == {b"a": b"2", b"mcp-name": b"x"}
        assert doubled == b"mcp-name"

    def test_accept_is_a_list(self) -> None:
        assert single([(b"accept", b"a/b"), (b"accept", b"c/d")]) == ({b"accept": b"a/b, c/d"}, None)

    @pytest.mark.parametrize("first", [b"content-type", b"mcp-name", b"mcp-session-id"])
    @pytest.mark.parametrize("gate", [b"host", b"origin", b"authorization", b"x-api-key"])
    def test_what_lets_in_is_never_hidden_behind_another(self, first: bytes, gate: bytes) -> None:
        assert single([(first, b"1"), (first, b"2"), (gate, b"1"), (gate, b"2")])[1] == gate
        assert single([(gate, b"1"), (gate, b"2"), (first, b"1"), (first, b"2")])[1] == gate


class TestHandshake:
    def test_what_belongs_to_the_hop_stays_behind(self) -> None:
        meta = META | {"progressToken": "t", "traceparent": "00"}
        call = read_handshake(request(meta=meta), "2025-11-25", '{"roots":{}}', "error")
        assert (call.revision, call.log_level, bytes(call.capabilities)) == ("2025-11-25", "error", b'{"roots":{}}')
        assert set(call.meta) == {"traceparent"}
        assert not call.modern

    @pytest.mark.parametrize("meta", [[], 7, "x"])
    def test_meta_must_be_an_object(self, meta: Any) -> None:
        with pytest.raises(jsonrpc.Malformed) as caught:
            read_handshake(request(meta=meta), "2025-11-25", "{}", None)
        assert caught.value.code == codes.INVALID_PARAMS


def test_a_rejections_body_is_a_whole_error() -> None:
    assert msgspec.json.decode(unsupported_version("x", b'"id"').body()) == {
        "jsonrpc": "2.0",
        "id": "id",
        "error": {
            "code": -32022,
            "message": "unsupported protocol version x",
            "data": {"supported": [MODERN, "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"], "requested": "x"},
        },
    }
