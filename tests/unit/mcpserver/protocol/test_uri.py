"""URI templates: what was expanded from one fits it, and no template and URI together take long."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.protocol.uri import Template


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("x://{a}", "x://1"),
        ("x://{a}", "x://"),
        ("x://{a}/b", "x://1/b"),
        ("x://{a}/{b}/", "x://1/2/"),
        ("x://{a}/{b}/{c}/", "x://1/2/3/"),
        ("{a}-{b}-", "1-2-"),
        ("x://{a}{b}", "x://12"),
        ("x://{a}{/b}", "x://1/2"),
        ("x://{/a}{b}", "x:///1/2"),
        ("x://{+path}", "x://a/b/c?d"),
        ("x://h{/path*}", "x://h/a/b"),
        ("x://h{?q,r}", "x://h?q=1&r=a/b"),
        ("x://{name}.json", "x://a.json.json"),
        ("plain://no/expression", "plain://no/expression"),
        ("{all}", "anything"),
        ("x://{é}", "x://%C3%A9"),
    ],
)
def test_what_was_expanded_fits(template: str, uri: str) -> None:
    assert Template(template).fits(uri)


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("x://{a}", "y://1"),
        ("x://{a}", "x://1/2"),
        ("x://{a}", ""),
        ("x://{a}/b", "x://1/c"),
        ("x://{a}/b", "x://1/b/"),
        ("x://{a}/{b}/", "x://1/2"),
        ("x://{a}/{b}/", "x://1/2/3/"),
        ("x://a{b}a", "x://a"),
        ("plain://x", "plain://x/"),
        ("X://{a}", "x://1"),
        ("x://{a}", "x://" + "1" * 9000),
    ],
)
def test_what_was_not_does_not(template: str, uri: str) -> None:
    assert not Template(template).fits(uri)


@pytest.mark.parametrize(
    "text", ["{", "}", "x://{", "x://}", "x://{a", "x://{{a}}", "{a}}", "x://{}", "x" * 2001, "{a}" * 1000]
)
def test_text_that_is_no_template(text: str) -> None:
    with pytest.raises(ValueError, match="is no URI template"):
        Template(text)


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("{a}" + "a{b}" * 450, "a" * 8000),
        ("{+a}x" * 250, "x" * 8192),
        ("{+a}" * 500, "/" * 8192),
        ("{a}/" * 400 + "z", "/" * 8192),
        ("x" * 1990 + "{a}", "x" * 8192),
    ],
)
def test_no_pair_of_hostile_texts_is_slow(template: str, uri: str) -> None:
    fitting = Template(template)
    began = time.process_time()
    fitting.fits(uri)
    assert time.process_time() - began < 1


safe = st.text(alphabet="abc019-._~%", min_size=1, max_size=8)


@given(
    parts=st.lists(st.tuples(st.sampled_from(["x://", "/", "/y/", "/items/", "#"]), safe), min_size=1, max_size=6),
    end=st.sampled_from(["", "/", "/end"]),
)
def test_any_simple_expansion_fits_its_template(parts: list[tuple[str, str]], end: str) -> None:
    template = "".join(f"{literal}{{v{number}}}" for number, (literal, _) in enumerate(parts)) + end
    uri = "".join(literal + value for literal, value in parts) + end
    assert Template(template).fits(uri)


@given(template=st.text(alphabet="{}+/ab", max_size=40), uri=st.text(alphabet="/ab", max_size=60))
def test_no_text_raises_anything_but_value_error(template: str, uri: str) -> None:
    try:
        fitting = Template(template)
    except ValueError:
        return
    assert fitting.fits(uri) in (True, False)
