"""YAML as values with places: read as people mean it, bounded, and answered whatever comes."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remotes.config import document
from remotes.config.document import Position


def read(text, is_text=lambda path: False):
    return document.read(text, is_text=is_text)


def value_of(text, **options):
    found, findings = read(text, **options)
    assert not findings
    return found.value


def test_scalars_are_read_as_json_reads_them_and_all_else_stays_text():
    text = "a: no\nb: 22:22\nc: 2024-11-05\nd: 0x10\ne: 010\nf: 1e3\ng: true\nh: ~\ni: .nan\nj: 12345678901234567890"
    assert value_of(text) == {
        "a": "no", "b": "22:22", "c": "2024-11-05", "d": "0x10", "e": 10, "f": 1000.0, "g": True, "h": None,
        "i": ".nan", "j": "12345678901234567890",
    }  # fmt: skip


def test_where_text_is_expected_the_written_characters_stay():
    text = "env: {PORT: 8080, VERSION: 1.10, ON: true, QUOTED: '5', NOTHING: }"
    assert value_of(text, is_text=lambda path: path[:1] == ("env",)) == {
        "env": {"PORT": "8080", "VERSION": "1.10", "ON": "true", "QUOTED": "5", "NOTHING": None}
    }


def test_a_pasted_json_document_reads_as_itself():
    pasted = {"mcpServers": {"a": {"command": "x", "args": ["-y", "\n\u00e9"], "env": {}, "timeout": 1.5, "on": None}}}
    assert value_of(json.dumps(pasted, indent="\t")) == pasted


def test_places_count_characters_from_one_in_keys_and_values():
    found, _ = read("# ü\nb: ['é', x,\n  {y: z}]\r\n")
    assert found.keys[("b",)] == Position(2, 1)
    assert found.values[("b", 1)] == Position(2, 10)
    assert found.values[("b", 2, "y")] == Position(3, 7)


def test_an_alias_repeats_its_value():
    assert value_of("a: &x {k: 1}\nb: *x") == {"a": {"k": 1}, "b": {"k": 1}}


@pytest.mark.edge(8)
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[" * 900_000, "too_deep"),
        ("{a: " * 40, "too_deep"),
        ("- x\n" * 200_000, "too_many_values"),
        ("a: &a [1]\n" + "".join(f"b{n}: &b{n} [*{'a' if n == 0 else f'b{n - 1}'}]\n" for n in range(99)), "too_deep"),
        ("x" * (1024 * 1024 + 1), "too_large"),
        ("é" * (600 * 1024), "too_large"),
    ],
    ids=["brackets", "braces", "values", "alias-chain", "bytes", "bytes-not-characters"],
)
def test_what_is_too_much_is_refused_after_two_seconds_of_work_at_most(text, code):
    """This thread's own CPU time, at twice the figure: what else the machine does is not measured."""
    started = time.thread_time()
    found, findings = read(text)
    assert time.thread_time() - started < 4
    assert found is None
    assert [finding.code for finding in findings] == [code]


def test_a_byte_order_mark_is_no_character():
    assert value_of("\ufeffa: 1") == {"a": 1}


def test_a_forbidden_character_is_named_with_its_place():
    _, (finding,) = read("a: 1\nb: \x00")
    assert (finding.code, finding.at, finding.message) == (
        "bad_character", Position(2, 4), "the character U+0000 is not allowed in YAML",
    )  # fmt: skip


@given(
    st.one_of(
        st.text(), st.text(alphabet="ab:-[]{}&*!|>'\"#\n\t ,%@?<~0.eE"), st.characters(exclude_categories=()).map(str)
    )
)
def test_any_text_is_answered(text):
    found, findings = read(text)
    assert found is not None or findings


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.text(st.characters(codec="utf-8", categories=["L", "N", "P"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc_", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(_json)
def test_every_json_value_reads_as_itself(value):
    assert value_of(json.dumps([value], ensure_ascii=False)) == [value]
