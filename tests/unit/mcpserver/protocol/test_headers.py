"""Header values of 2026-07-28: the specification's own table, and every rule of `x-mcp-header`."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.protocol.headers import (
    InvalidAnnotation,
    agrees,
    annotated,
    argument,
    decode_value,
    encode_value,
    mirrored,
)

# basic/transports/streamable-http, "Value Encoding"
TABLE = [
    ("us-west1", "us-west1"),
    ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
    (" padded ", "=?base64?IHBhZGRlZCA=?="),
    ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
    ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
]


class TestSentinel:
    @pytest.mark.parametrize(("value", "header"), TABLE)
    def test_the_specifications_table(self, value: str, header: str) -> None:
        assert encode_value(value) == header
        assert decode_value(header) == value

    @pytest.mark.parametrize(
        "broken",
        ["=?base64?Y?=", "=?base64?!!!!?=", "=?base64?YWJj ?=", "=?base64?/w==?=", "=?base64?YQ?=", "=?base64?é?="],
    )
    def test_what_is_broken_says_nothing(self, broken: str) -> None:
        assert decode_value(broken) is None

    @pytest.mark.parametrize("plain", ["=?BASE64?YQ==?=", "=?base64?YQ==", "YQ==?=", "=?utf-8?q?a?=", "a\tb c"])
    def test_marks_count_only_exactly_as_written(self, plain: str) -> None:
        assert decode_value(plain) == plain

    @given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
    def test_every_text_comes_back_and_is_safe_in_a_header(self, value: str) -> None:
        header = encode_value(value)
        assert decode_value(header) == value
        assert all(letter == "\t" or " " <= letter <= "~" for letter in header)
        assert header == header.strip()


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def marked(name: Any, type: Any = "string", **more: Any) -> dict[str, Any]:
    return {"type": type, "x-mcp-header": name, **more}


class TestAnnotations:
    def test_paths_through_properties_alone(self) -> None:
        nested = schema(a=marked("Region"), b=schema(c=marked("count", "integer"), d=schema(e=marked("Ok", "boolean"))))
        assert annotated(nested) == {"region": ("a",), "count": ("b", "c"), "ok": ("b", "d", "e")}

    @pytest.mark.parametrize(
        "none", [{}, {"type": "object"}, {"properties": []}, {"properties": {"a": True}}, None, 7, []]
    )
    def test_no_annotation_is_no_error(self, none: Any) -> None:
        assert annotated(none) == {}

    @pytest.mark.parametrize(
        "bad",
        [
            schema(a=marked("")),
            schema(a=marked("two words")),
            schema(a=marked("Region:")),
            schema(a=marked("a\r\nX-Evil: 1")),
            schema(a=marked("a\n")),
            schema(a=marked("é")),
            schema(a=marked(None)),
            schema(a=marked(7)),
            schema(a=marked("A"), b=marked("a")),
            schema(a=marked("A"), b=schema(c=marked("A"))),
            schema(a=marked("A", "number")),
            schema(a=marked("A", "object")),
            schema(a=marked("A", "array")),
            schema(a=marked("A", "null")),
            schema(a=marked("A", ["string"])),
            schema(a={"x-mcp-header": "A"}),
            {"type": "object", "x-mcp-header": "A"},
            schema(a={"type": "array", "items": marked("A")}),
            schema(a={"type": "array", "items": schema(b=marked("A"))}),
            schema(a={"type": "array", "prefixItems": [marked("A")]}),
            {"type": "object", "anyOf": [schema(a=marked("A"))]},
            {"type": "object", "allOf": [schema(a=marked("A"))]},
            {"type": "object", "not": schema(a=marked("A"))},
            {"type": "object", "if": schema(a=marked("A")), "then": {}},
            {"type": "object", "additionalProperties": marked("A")},
            {"type": "object", "patternProperties": {"^a": marked("A")}},
            {"type": "object", "$defs": {"d": marked("A")}, "properties": {"a": {"$ref": "#/$defs/d"}}},
            schema(a=schema(b={"oneOf": [marked("A")]})),
        ],
        ids=str,
    )
    def test_each_broken_rule_makes_the_definition_invalid(self, bad: dict[str, Any]) -> None:
        with pytest.raises(InvalidAnnotation):
            annotated(bad)

    def test_what_only_looks_like_one_is_none(self) -> None:
        harmless = schema(
            **{"x-mcp-header": {"type": "string"}}, b={"type": "object", "default": {"x-mcp-header": "A"}}
        )
        assert annotated(harmless) == {}
        assert (
            annotated(
                schema(
                    a={"enum": [{"x-mcp-header": "A"}], "const": {"x-mcp-header": 1}, "examples": [{"x-mcp-header": 1}]}
                )
            )
            == {}
        )


PATHS = {"region": ("region",), "count": ("deep", "count"), "sure": ("sure",)}


class TestMirroring:
    def test_each_value_in_its_header(self) -> None:
        arguments = {"region": "Hello, 世界", "deep": {"count": -7}, "sure": False, "other": 1}
        assert mirrored(PATHS, arguments) == {
            "mcp-param-region": "=?base64?SGVsbG8sIOS4lueVjA==?=",
            "mcp-param-count": "-7",
            "mcp-param-sure": "false",
        }

    @pytest.mark.parametrize(
        "arguments", [{}, {"region": None}, {"deep": None}, {"deep": []}, {"deep": {"x": 1}}, None, [], "x"]
    )
    def test_no_value_no_header(self, arguments: Any) -> None:
        assert mirrored(PATHS, arguments) == {}
        assert argument(PATHS, "count", arguments) is None

    @given(
        st.text(alphabet=st.characters(exclude_categories=["Cs"]))
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.booleans()
    )
    def test_what_we_send_agrees_with_what_we_check(self, value: Any) -> None:
        assert agrees(mirrored({"x": ("x",)}, {"x": value})["mcp-param-x"], value)


class TestAgreement:
    @pytest.mark.parametrize(
        ("header", "value"),
        [
            ("42", 42),
            ("42.0", 42),
            ("4.2e1", 42),
            (" 42\t", 42),
            ("-7", -7),
            ("=?base64?NDI=?=", 42),
            ("true", True),
            ("false", False),
            (" a ", "a"),
            ("=?base64?IGEg?=", " a "),
            ("9007199254740991", 2**53 - 1),
        ],
    )
    def test_the_same_said_another_way(self, header: str, value: Any) -> None:
        assert agrees(header, value)

    @pytest.mark.parametrize(
        ("header", "value"),
        [
            ("43", 42),
            ("1_000", 1000),
            ("٤٢", 42),
            ("0x2a", 42),
            ("+42", 42),
            ("042", 42),
            ("nan", 42),
            ("inf", 42),
            ("1e400", 42),
            ("", 42),
            ("9007199254740992", 2**53),
            ("9" * 400, int("9" * 400)),
            ("True", True),
            ("1", True),
            ("true", 1),
            ("1", False),
            ("A", "a"),
            ("a b", "a  b"),
            ("\xe9", "é"),
            ("a\x00", "a\x00"),
            ("a\x7f", "a\x7f"),
            ("=?base64?%%?=", "x"),
            ("null", None),
        ],
    )
    def test_what_says_something_else_or_is_no_header_value(self, header: str, value: Any) -> None:
        assert not agrees(header, value)
