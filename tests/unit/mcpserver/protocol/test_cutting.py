"""A result that is too large: what is cut, where, and that what is left is valid and says so."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcpserver.protocol import cutting

LIMIT = 10_000
ROOM = LIMIT - cutting.RESERVE_BYTES


def text(words: str, **more: object) -> dict[str, object]:
    return {"type": "text", "text": words, **more}


def cut(result: dict[str, object], method: str = "tools/call") -> Any:
    raw = json.dumps(result, ensure_ascii=False).encode()
    found = cutting.cut(raw, method, LIMIT)
    if found is None:
        return None
    left = json.loads(cutting.told(found, method, [Raw(b'{"type":"text","text":"cut"}')]))
    assert len(cutting.told(found, method, ())) <= LIMIT
    return left, [json.loads(rest) for rest in found.rests], found.facts


@pytest.mark.edge(14)
def test_the_last_text_is_cut_first_and_images_stay() -> None:
    image = {"type": "image", "data": "A" * 500, "mimeType": "image/png"}
    content = [text("a" * 3000), image, text("b" * 3000, annotations={"priority": 1}), image, text("c" * 3000)]
    left, rests, facts = cut({"content": content, "isError": True, "vendor": 1e300})
    kept = left["content"]
    assert [kept[0], kept[1], kept[3]] == [content[0], image, image]
    assert kept[2]["annotations"] == {"priority": 1}
    assert kept[2]["text"] + rests[0] == "b" * 3000
    assert rests[1] == "c" * 3000, "nothing was left of it, so its block is gone"
    assert kept[4:] == [text("cut")]
    assert (left["isError"], left["vendor"]) == (True, 1e300)
    cut_bytes = len("".join(rests))
    assert left["_meta"] == {
        cutting.FACTS: {
            "originalBytes": len(json.dumps({"content": content, "isError": True, "vendor": 1e300})),
            "limitBytes": LIMIT,
            "cutBytes": cut_bytes,
            "cutBlocks": 2,
            "fromBlock": 2,
        }
    }
    assert facts.cut_bytes == cut_bytes


@pytest.mark.edge(14)
def test_embedded_text_is_text_and_structured_content_stays_whole() -> None:
    embedded = {"type": "resource", "resource": {"uri": "file:///a", "mimeType": "text/plain", "text": "x" * 20_000}}
    structured = {"rows": list(range(500))}
    left, rests, _ = cut({"content": [embedded], "structuredContent": structured, "_meta": {"theirs": 1}})
    resource = left["content"][0]["resource"]
    assert (resource["uri"], resource["mimeType"]) == ("file:///a", "text/plain")
    assert resource["text"] + rests[0] == "x" * 20_000
    assert left["structuredContent"] == structured
    assert left["_meta"]["theirs"] == 1


@pytest.mark.edge(14)
def test_the_text_of_a_resource_is_cut_and_blobs_are_not() -> None:
    blob = {"uri": "x:/b", "blob": "A" * 2000}
    left, rests, _ = cut({"contents": [{"uri": "x:/a", "text": "t" * 20_000}, blob], "ttlMs": 5}, "resources/read")
    assert left["contents"][0]["text"] + rests[0] == "t" * 20_000
    assert left["contents"][1] == blob
    assert left["ttlMs"] == 5


@pytest.mark.edge(14)
@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "image", "data": "A" * 20_000, "mimeType": "image/png"}, text("some words")]},
        {"content": [text("words")], "structuredContent": {"x": "y" * 20_000}},
        {"content": [{"type": "resource", "resource": {"uri": "x:/", "blob": "A" * 20_000}}]},
        {"content": "x" * 20_000},
        {"content": [{"type": "text", "text": ["x" * 20_000]}, "x", None, 1, {"type": "resource"}]},
    ],
)
def test_what_is_not_large_for_its_text_is_not_cut(result: dict[str, object]) -> None:
    assert cut(result) is None


def test_prompts_are_not_cut() -> None:
    assert [cutting.is_cut(method) for method in ("tools/call", "tasks/result", "resources/read", "prompts/get")] == [
        True,
        True,
        True,
        False,
    ]


odd = st.text(alphabet=st.sampled_from('aé€😀\\"\n\x00\u2028\U0010ffff/u'), max_size=60)


@given(odd, st.booleans(), st.integers(-3, 400))
def test_no_character_and_no_escape_is_ever_split(words: str, ascii: bool, most: int) -> None:
    token = json.dumps(words, ensure_ascii=ascii).encode()
    at = cutting.kept(token, most)
    head, tail = json.loads(token[:at] + b'"'), json.loads(b'"' + token[at:])
    assert head + tail == words
    assert at - 1 <= max(0, most)
    assert max(0, min(most, len(token) - 2)) - (at - 1) <= 11, "no more is lost than one character takes"


def test_backslashes_without_end_are_cut_in_no_time() -> None:
    token = b'"' + b"\\\\" * 2_000_000 + b'"'
    for most in (random.randrange(3_900_000, 4_000_000) for _ in range(20)):
        json.loads(token[: cutting.kept(token, most)] + b'"')
