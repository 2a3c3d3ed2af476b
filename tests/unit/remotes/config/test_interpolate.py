"""`${VAR}`: every form, what is missing, what is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remotes.config.interpolate import Expanded, Expander, bare_variable, refers

ENVIRONMENT = {"TOKEN": "s3cret", "EMPTY": "", "NESTED": "${TOKEN}", "DOLLAR": "$TOKEN"}
FILES = {"/run/secrets/key": "from file\n", "/run/secrets/empty": "\n", "/run/secrets/crlf": "x\r\n"}
EXPANDER = Expander(ENVIRONMENT, FILES.get)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("Bearer ${TOKEN}", "Bearer s3cret"),
        ("${env:TOKEN}", "s3cret"),
        ("${TOKEN:-other}", "s3cret"),
        ("${UNSET:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${env:UNSET:-a:-b}", "a:-b"),
        ("${UNSET:-}", ""),
        ("${file:/run/secrets/key}", "from file"),
        ("${file:/run/secrets/crlf}", "x"),
        ("$${TOKEN}", "${TOKEN}"),
        ("$TOKEN $$ $ {TOKEN}", "$TOKEN $$ $ {TOKEN}"),
        ("${NESTED}", "${TOKEN}"),
        ("${TOKEN}${TOKEN}", "s3crets3cret"),
    ],
)
def test_a_reference_becomes_its_value_once(text, expected):
    expanded = EXPANDER.expand(text)
    assert (expanded.text, expanded.missing, expanded.faults) == (expected, (), ())


@pytest.mark.edge(9)
@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("Bearer ${UNSET}", "UNSET"),
        ("${EMPTY}", "EMPTY"),
        ("${env:UNSET}", "UNSET"),
        ("${file:/nowhere}", "file:/nowhere"),
        ("${file:/run/secrets/empty}", "file:/run/secrets/empty"),
    ],
)
def test_what_is_unset_or_empty_is_missing_and_never_sent_literally(text, missing):
    expanded = EXPANDER.expand(text)
    assert expanded.missing == (missing,)
    assert "${" not in expanded.text


@pytest.mark.parametrize(
    "text", ["${", "${A", "${A:-${B}}", "${1A}", "${A?x}", "${input:x}", "${file:relative}", "${}", "${A B}"]
)
def test_what_is_not_understood_is_a_fault(text):
    assert EXPANDER.expand(text).faults


def test_sources_name_what_was_filled_in():
    assert EXPANDER.expand("${TOKEN} ${env:UNSET:-x} $${A}") == Expanded("s3cret x ${A}", ("TOKEN", "UNSET"))


def test_only_words_in_capitals_without_braces_are_suspected():
    assert bare_variable("Bearer $API_TOKEN") == "API_TOKEN"
    assert [bare_variable(text) for text in ("${API_TOKEN}", "$$API", "cost: $5", "$x", "a$API_KEY")] == [None] * 5


def test_an_escape_is_no_reference():
    assert refers("${A}")
    assert not refers("$${A}")


@given(st.text(alphabet="${}:-AB/file env"))
def test_any_text_is_answered(text):
    expanded = EXPANDER.expand(text)
    assert isinstance(expanded.text, str)
