"""Arguments of a tool on the command line: JSON where it is JSON, a text where it is not, and never half of either."""

import pytest

from mcpserver.lib.errors import Exit, GatewayError
from remotes.management.mcp.arguments import document, pairs


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('"1"', "1"),
        ("[1,2]", [1, 2]),
        ('{"a":{"b":1}}', {"a": {"b": 1}}),
        ("12345678901234567890123", 12345678901234567890123),
        ("plain words", "plain words"),
        ("", ""),
        ("a=b", "a=b"),
        ("007", "007"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "1e999"),
        ("[" * 100_000, "[" * 100_000),
        ("9" * 5000, "9" * 5000),
        ("żółw", "żółw"),
    ],
)
def test_a_value_is_json_or_else_a_text(written, value):
    assert pairs([f"key={written}"]) == {"key": value}


@pytest.mark.parametrize("pair", ["word", "=1", "text=\udcff"])
def test_what_is_no_argument_is_a_usage_error(pair):
    with pytest.raises(GatewayError) as raised:
        pairs([pair])
    assert raised.value.exit_code == Exit.USAGE


def test_an_argument_is_given_once():
    with pytest.raises(GatewayError, match="a is given twice"):
        pairs(["a=1", "a=2"])


def test_all_arguments_come_from_a_text_or_a_file(tmp_path):
    file = tmp_path / "arguments.json"
    file.write_text('{"a": [1]}')
    assert document('{"a": [1]}') == document(f"@{file}") == {"a": [1]}


@pytest.mark.parametrize(
    "source", ["[1]", "{", "NaN", '{"a": 1e999}', "@/nowhere/at/all", "{" * 100_000, '{"a": "\udcff"}']
)
def test_a_document_that_is_no_json_object_is_a_usage_error(source):
    with pytest.raises(GatewayError) as raised:
        document(source)
    assert raised.value.exit_code == Exit.USAGE
