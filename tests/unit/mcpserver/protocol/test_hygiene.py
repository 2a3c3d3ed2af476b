"""What is mended in a remote's words, what is only counted, and that everything else keeps its very bytes."""

import json
from typing import Any

import pytest

from mcpserver.protocol import hygiene
from mcpserver.protocol.hygiene import TEXT_MAX_BYTES, Notes

HIDDEN = "look\u200b \u202ehere"
SHOWN = "look here"


def mended(method, entry):
    notes = Notes()
    raw = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
    return json.loads(hygiene.entry(method, raw, notes)), notes


@pytest.mark.parametrize(
    "raw",
    [
        b'{"name":"x","description":"plain","inputSchema":{"type":"object"}}',
        b'{ "name" : "x", "description": "caf\\u00e9 \\ud83d\\ude00", "n": 1.10, "wide": 123456789012345678901234567890 }',
        '{"name":"x","description":"👩‍🚀 می‌خواهم","inputSchema":{"enum":["a"],"n":1e999}}'.encode(),
        b'{"name":"x","inputSchema":{"type":"object","properties":{"a":{"default":"' + b"x" * 20_000 + b'"}}}}',
        b'{"name":"x","description":"' + b"x" * TEXT_MAX_BYTES + b'"}',
        b'{"name":"x","description":null,"annotations":[],"inputSchema":{"x":"\\u0041"}}',
    ],
)
def test_what_is_clean_keeps_its_bytes(raw):
    notes = Notes()
    assert hygiene.entry("tools/list", raw, notes) is raw
    assert notes == Notes()


def test_every_text_of_a_tool_is_mended_and_nothing_that_a_machine_compares():
    schema: dict[str, Any] = {
        "type": "object",
        "description": HIDDEN,
        "properties": {
            "description": {"type": "string", "title": HIDDEN, "enum": [HIDDEN], "default": HIDDEN, "pattern": HIDDEN},
            "title\u200b": {"items": [{"$comment": HIDDEN}], "examples": [{"description": HIDDEN}]},
        },
        "$defs": {"default": {"description": HIDDEN}},
        "required": ["title\u200b"],
    }
    tool = {
        "name": "x",
        "title": HIDDEN,
        "description": HIDDEN,
        "inputSchema": schema,
        "annotations": {"title": HIDDEN},
    }
    clean, notes = mended("tools/list", tool | {"vendor": HIDDEN})
    assert (clean["title"], clean["description"], clean["annotations"]["title"]) == (SHOWN,) * 3
    assert clean["inputSchema"]["description"] == clean["inputSchema"]["$defs"]["default"]["description"] == SHOWN
    properties = clean["inputSchema"]["properties"]
    assert properties["description"] == schema["properties"]["description"] | {"title": SHOWN}
    assert properties["title\u200b"] == {"items": [{"$comment": SHOWN}], "examples": [{"description": HIDDEN}]}
    assert clean["inputSchema"]["required"] == ["title\u200b"]
    assert clean["vendor"] == HIDDEN
    assert notes == Notes(stripped=14, cut=0, left=10)


@pytest.mark.parametrize("method", ["prompts/list", "resources/list", "resources/templates/list"])
def test_prompts_and_resources_are_mended_too(method):
    entry = {"uri": "x:\u200b", "uriTemplate": "x:{a}", "title": HIDDEN, "description": HIDDEN}
    clean, notes = mended(method, entry)
    assert clean == entry | {"title": SHOWN, "description": SHOWN}
    assert notes.stripped == 4


def test_an_argument_of_a_prompt_is_described_visibly():
    clean, _ = mended("prompts/list", {"name": "p", "arguments": [{"name": "a", "description": HIDDEN}]})
    assert clean["arguments"] == [{"name": "a", "description": SHOWN}]


@pytest.mark.parametrize("letter", ["x", "ü", "漢", "😀"])
def test_a_long_description_is_cut_at_a_character_and_says_so(letter):
    clean, notes = mended("tools/list", {"name": "x", "description": letter * 9000})
    shown = clean["description"]
    assert notes.cut == 1
    assert len(shown.encode()) <= TEXT_MAX_BYTES
    assert shown.endswith(f"[cut by the gateway: {len(letter.encode()) * 9000} bytes, {TEXT_MAX_BYTES} bytes allowed]")
    assert set(shown.split(" […]")[0]) == {letter}


def test_numbers_beside_a_mended_text_are_the_same_numbers():
    raw = b'{"inputSchema":{"description":"a\\u200bb","maximum":123456789012345678901234567890,"x":[1.5,-0.0,1e300]}}'
    clean, _ = mended("tools/list", raw)
    assert clean["inputSchema"] == {
        "description": "ab",
        "maximum": 123456789012345678901234567890,
        "x": [1.5, -0.0, 1e300],
    }


def test_megabytes_of_hidden_characters_are_cut_before_they_are_looked_through():
    clean, notes = mended("tools/list", {"name": "x", "description": "a\u200d" * 2_000_000})
    assert clean["description"].endswith("[cut by the gateway: 4000000 characters, 8192 bytes allowed]")
    assert len(clean["description"].encode()) <= TEXT_MAX_BYTES
    assert notes == Notes(stripped=32_768, cut=1)
