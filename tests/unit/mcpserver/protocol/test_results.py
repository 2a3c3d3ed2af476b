"""Results that are made or mended: complete for new clients, familiar to old ones, safe to show."""

import json

import pytest

from mcpserver.protocol.inbound import SERVER_INFO
from mcpserver.protocol.results import (
    result_type,
    to_handshake,
    to_modern,
    to_revision,
    tool_error,
    tool_to_revision,
    tools_look,
    untrusted,
)

US = b'{"name":"us"}'
SIGNED = {SERVER_INFO: {"name": "us"}}


@pytest.mark.parametrize(
    "raw",
    [
        "{}",
        " { } ",
        '{"content":[]}',
        '{"content":[{"type":"text","text":"resultType"}]}',
        '{"content":[{"text":"\\"_meta\\" ttlMs"}],"n":1}',
        '{"_meta":{"a":1},"x":[]}',
        '{"_meta":null}',
        '{"_meta":[]}',
        '{"_meta":{}}',
    ],
)
def test_a_handshake_result_is_completed_and_keeps_what_it_has(raw: str) -> None:
    before, after = json.loads(raw), json.loads(to_modern(raw.encode(), US))
    meta = before.pop("_meta", None)
    assert after.pop("_meta") == (meta if isinstance(meta, dict) else {}) | SIGNED
    assert after.pop("resultType") == "complete"
    assert after == before


def test_what_a_remote_says_about_itself_is_not_overwritten() -> None:
    raw = b'{"resultType":"input_required","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"them"}},"ttlMs":5}'
    assert json.loads(to_modern(raw, US, b'"ttlMs":0,"cacheScope":"private"')) == {
        "resultType": "input_required",
        "ttlMs": 5,
        "cacheScope": "private",
        "_meta": {SERVER_INFO: {"name": "them"}},
    }


def test_payload_bytes_survive_both_ways() -> None:
    raw = b'{"structuredContent":{"wide":123456789012345678901234567890,"exp":1E+2,"s":"\\u00e9"}}'
    inner = raw[len(b'{"structuredContent":') : -1]
    assert inner in to_modern(raw, US)
    assert inner in to_modern(raw[:-1] + b',"_meta":{}}', US)
    assert inner in to_handshake(raw[:-1] + b',"resultType":"complete"}')


def test_a_modern_result_loses_only_what_old_clients_do_not_know() -> None:
    raw = b'{"resultType":"complete","ttlMs":0,"cacheScope":"public","content":[{"ttlMs":1}],"vendor":null}'
    assert json.loads(to_handshake(raw)) == {"content": [{"ttlMs": 1}], "vendor": None}
    untouched = b'{"content": [ ] }'
    assert to_handshake(untouched) is untouched


def test_the_type_of_a_result() -> None:
    assert result_type(b"{}") == "complete"
    assert result_type(b'{"resultType":"input_required"}') == "input_required"
    assert result_type(b'{"x":{"resultType":"task"}}') == "complete"
    assert result_type(b'{"resultType":7}') == "complete"


def test_an_error_that_a_model_can_read() -> None:
    assert json.loads(tool_error("no")) == {"content": [{"type": "text", "text": "no"}], "isError": True}
    assert json.loads(tool_error("no", {"a": 1}))["_meta"] == {"a": 1}


class TestUntrusted:
    @pytest.mark.edge(16)
    def test_nothing_that_moves_a_cursor_or_turns_text_round_is_left(self) -> None:
        raw = "a\x00\x07\x1b[31m\r\x7f\x85\x9b0m\u202e\u2066\u200f\u061cz".encode()
        shown = untrusted(raw)
        assert all(letter.isprintable() for letter in shown)
        assert shown.startswith("a\\x00\\x07\\x1b[31m")
        assert shown.endswith("\\u061cz")

    @pytest.mark.edge(16)
    def test_at_most_four_kibibytes_and_never_half_a_character(self) -> None:
        assert len(untrusted(b"x" * 100_000)) == 4096
        assert len(untrusted("é".encode() * 100_000)) <= 4096
        assert untrusted(b"\xff\xfeok") == "\ufffd\ufffdok"

    def test_line_ends_and_tabs_stay(self) -> None:
        assert untrusted(b"a\n\tb") == "a\n\tb"


LINK = {
    "type": "resource_link",
    "uri": "peer://motd",
    "name": "motd",
    "description": "of the day",
    "annotations": {"priority": 1},
    "size": 7,
}
AUDIO = {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav", "_meta": {"a": 1}}
TEXT = {"type": "text", "text": "as ever", "future": 1}
LINK_IN_WORDS = {"type": "text", "text": "motd: peer://motd\nof the day", "annotations": {"priority": 1}}
AUDIO_IN_WORDS = {
    "type": "text",
    "text": "[audio, audio/wav: this client's revision takes none]",
    "_meta": {"a": 1},
}


def seen(result: object, revision: str, method: str = "tools/call") -> object:
    return json.loads(to_revision(json.dumps(result).encode(), method, revision))


class TestOlderRevisions:
    @pytest.mark.parametrize(
        ("revision", "content"),
        [
            ("2025-11-25", [TEXT, LINK, AUDIO]),
            ("2025-06-18", [TEXT, LINK, AUDIO]),
            ("2025-03-26", [TEXT, LINK_IN_WORDS, AUDIO]),
            ("2024-11-05", [TEXT, LINK_IN_WORDS, AUDIO_IN_WORDS]),
        ],
    )
    def test_content_that_a_revision_does_not_know_becomes_text(self, revision: str, content: list[object]) -> None:
        result = {"content": [TEXT, LINK, AUDIO], "isError": False, "vendor": {"type": "audio"}}
        assert seen(result, revision) == result | {"content": content}
        messages = [{"role": "user", "content": block, "x": 1} for block in (TEXT, LINK, AUDIO)]
        older = [message | {"content": block} for message, block in zip(messages, content, strict=True)]
        assert seen({"messages": messages, "n": 1}, revision, "prompts/get") == {"messages": older, "n": 1}

    @pytest.mark.parametrize(
        ("structured", "keepers"),
        [({"a": 1}, ("2025-06-18", "2025-11-25")), ([1], ()), (7, ()), ("x", ()), (None, ()), ({}, ("2025-06-18",))],
    )
    def test_structured_content_only_where_the_revision_has_it_and_only_an_object(
        self, structured: object, keepers: tuple[str, ...]
    ) -> None:
        result = {"content": [TEXT], "structuredContent": structured, "vendor": {"structuredContent": 3}}
        without = {"content": [TEXT], "vendor": {"structuredContent": 3}}
        for revision in ("2024-11-05", "2025-03-26"):
            assert seen(result, revision) == without
        for revision in keepers:
            assert seen(result, revision) == result
        if not keepers:
            assert seen(result, "2025-11-25") == seen(result, "2025-06-18") == without

    @pytest.mark.parametrize("content", [{}, {"content": []}])
    def test_what_was_only_structured_is_not_lost(self, content: dict[str, object]) -> None:
        result = content | {"structuredContent": [1, {"wide": 12345678901234567890}]}
        text = '[1, {"wide": 12345678901234567890}]'
        assert seen(result, "2025-11-25") == {"content": [{"type": "text", "text": text}]}

    @pytest.mark.parametrize("revision", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
    @pytest.mark.parametrize(
        "raw",
        [
            b'{ "content" : [ {"type":"text","text":"\\u00e9"} ], "wide":1E+2 }',
            b'{"content":[{"type":"text","text":"\\"resource_link\\" \\"structuredContent\\": 5"}]}',
            b'{"content":[{"type":"text","text":"audio","vendor":{"type": "audio"}}]}',
            b'{"vendor":{"structuredContent": 7}, "content":[]}',
            b'{"messages":[{"role":"user","content":{"type":"text","text":"resource_link"}}]}',
            b'{"content":7}',
        ],
    )
    def test_not_a_byte_changes_when_nothing_must(self, raw: bytes, revision: str) -> None:
        for method in ("tools/call", "prompts/get", "resources/read", "completion/complete"):
            assert to_revision(raw, method, revision) == raw

    def test_other_payload_bytes_survive_a_change(self) -> None:
        raw = b'{"content":[{"type":"resource_link","uri":"a:b"}],"v":{"wide":123456789012345678901234567890,"e":1E+2}}'
        assert to_revision(raw, "tools/call", "2025-03-26") == (
            b'{"content":[{"type":"text","text":"a:b"}],"v":{"wide":123456789012345678901234567890,"e":1E+2}}'
        )

    @pytest.mark.parametrize(
        ("schema", "revisions"),
        [
            ({"type": "object"}, ("2025-06-18", "2025-11-25")),
            ({"type": "array"}, ()),
            ({"$ref": "#/$defs/x"}, ()),
            (True, ()),
            ({"type": ["object", "null"]}, ()),
        ],
    )
    def test_an_output_schema_only_for_clients_that_can_use_it(
        self, schema: object, revisions: tuple[str, ...]
    ) -> None:
        tool = {"name": "t", "title": "T", "inputSchema": {"type": "object"}, "outputSchema": schema, "vendor": 1}
        raw = json.dumps(tool).encode()
        without = {name: value for name, value in tool.items() if name != "outputSchema"}
        for revision in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
            assert json.loads(tool_to_revision(raw, revision)) == (tool if revision in revisions else without)
            assert tool_to_revision(raw, tools_look(revision)) == tool_to_revision(raw, revision)
        assert tool_to_revision(raw, "2026-07-28") is raw
