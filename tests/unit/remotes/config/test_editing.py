"""Edits of somebody's file: the least that changes, everything else byte for byte."""

import copy
import json
import re

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from mcpserver.lib.errors import GatewayError
from remotes.config import document, editing, rendering, schema, starter


def meaning(text):
    found, findings = document.read(text, is_text=schema.is_text)
    assert found is not None, (findings, text)
    assert findings == [], text
    return found.value


def edited(text, path, value):
    """`text` with one value set (`...` takes it away)."""
    wanted = copy.deepcopy(meaning(text))
    inner = wanted
    for part in path[:-1]:
        inner = inner[part]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return editing.rewritten(text, wanted)


FILE = """\
# ours
mcpServers:
  # about a
  a:
    command: 'x'   # why
    args: [-m, "b"]
    tools:
      disabled:
        - one # 1
        # before two
        - two
      # disabled: deep

  b: {url: "http://b/", timeout: 3}

  # c: commented out
"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (("mcpServers", "a", "command"), "y", "command: 'x'   # why", "command: 'y'   # why"),
        (("mcpServers", "a", "command"), "it's", "command: 'x'   # why", "command: 'it''s'   # why"),
        (("mcpServers", "a", "args"), ["-m", "b", "c d"], '[-m, "b"]', '[-m, "b", "c d"]'),
        (("mcpServers", "a", "args"), ["b"], '[-m, "b"]', '["b"]'),
        (("mcpServers", "a", "args"), ["-m"], '[-m, "b"]', "[-m]"),
        (("mcpServers", "a", "args"), [], '[-m, "b"]', "[]"),
        (("mcpServers", "a", "args"), ["-x", "-m", "b"], '[-m, "b"]', '["-x", "-m", "b"]'),
        (("mcpServers", "a", "args"), ..., '    args: [-m, "b"]\n', ""),
        (("mcpServers", "b", "url"), "http://c/", '"http://b/"', '"http://c/"'),
        (("mcpServers", "b", "timeout"), 4.5, "timeout: 3", "timeout: 4.5"),
        (("mcpServers", "b", "timeout"), ..., ", timeout: 3}", "}"),
        (("mcpServers", "b", "url"), ..., '{url: "http://b/", ', "{"),
        (("mcpServers", "b", "enabled"), False, "timeout: 3}", "timeout: 3, enabled: false}"),
        (("mcpServers", "b", "env"), {"A": "no"}, "timeout: 3}", 'timeout: 3, env: {A: "no"}}'),
        (("mcpServers", "b"), ..., '\n  b: {url: "http://b/", timeout: 3}\n', ""),
        (("mcpServers", "a", "tools", "disabled"), ["one"], "        - two\n", ""),
        (("mcpServers", "a", "tools", "disabled"), ["two"], "        - one # 1\n", ""),
        (("mcpServers", "a", "tools", "disabled"), ["one", "two", "no"], "- two\n", '- two\n        - "no"\n'),
        (("mcpServers", "a", "tools", "disabled"), ["one", "t"], "- two\n", "- t\n"),
        (("mcpServers", "a", "tools", "pin"), "hold", "- two\n", "- two\n      pin: hold\n"),
        (("mcpServers", "a", "timeout"), 5, "# disabled: deep\n", "# disabled: deep\n    timeout: 5\n"),
        (("gateway",), {"max_tool_name": 40}, "# c: commented out\n", "# c: commented out\ngateway:\n  max_tool_name: 40\n"),
    ],
)  # fmt: skip
def test_one_edit_changes_one_place(path, value, old, new):
    assert FILE.count(old) == 1
    assert edited(FILE, path, value) == FILE.replace(old, new)


def test_an_entry_goes_with_its_own_comments_and_leaves_those_of_others():
    assert edited(FILE, ("mcpServers", "a"), ...) == (
        '# ours\nmcpServers:\n  # about a\n\n  b: {url: "http://b/", timeout: 3}\n\n  # c: commented out\n'
    )


def test_an_entry_comes_after_the_last_one_spaced_as_they_are():
    wanted = {"command": "uvx", "args": ["time"], "env": {"A": "${A}", "M": "1"}, "tools": {"disabled": []}}
    assert edited(FILE, ("mcpServers", "c"), wanted) == FILE.replace(
        "timeout: 3}\n",
        "timeout: 3}\n\n  c:\n    command: uvx\n    args: [time]\n    env:\n      A: ${A}\n      M: \"1\"\n    tools:\n"
        "      disabled: []\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mcpServers: {}  # none\n", "mcpServers:  # none\n  b:\n    url: http://b\n"),
        ("mcpServers:   # none\nversion: 1", "mcpServers:   # none\n  b:\n    url: http://b\nversion: 1"),
        ("version: 1\r\nmcpServers:", "version: 1\r\nmcpServers:\r\n  b:\r\n    url: http://b"),
        ("{mcpServers: {}}", "{mcpServers: {b: {url: \"http://b\"}}}"),
        ('{"mcpServers": {"a": {}}}', '{"mcpServers": {"a": {}, "b": {"url": "http://b"}}}'),
        (
            '{\n\t"mcpServers": {\n\t\t"a": {}\n\t}\n}\n',
            '{\n\t"mcpServers": {\n\t\t"a": {},\n\t\t"b": {\n\t\t\t"url": "http://b"\n\t\t}\n\t}\n}\n',
        ),
        ("mcpServers:\n    a:\n        command: x", "mcpServers:\n    a:\n        command: x\n    b:\n        url: http://b"),
        ("\ufeffmcpServers:\n  a: {}\n", "\ufeffmcpServers:\n  a: {}\n  b:\n    url: http://b\n"),
    ],
)  # fmt: skip
def test_a_first_and_a_further_entry_in_every_style(text, expected):
    wanted = copy.deepcopy(meaning(text))
    wanted["mcpServers"] = (wanted["mcpServers"] or {}) | {"b": {"url": "http://b"}}
    assert editing.rewritten(text, wanted) == expected


def test_the_last_entry_gone_leaves_an_empty_mapping_and_the_comments():
    changed = edited(starter.TEXT, ("mcpServers", "demo"), ...)
    assert meaning(changed)["mcpServers"] == {}
    assert "  # The name comes before every tool" in changed
    assert "  # time:\n" in changed


@pytest.mark.parametrize(
    ("text", "path", "value", "reason"),
    [
        ("mcpServers:\n  a: &a {url: x}\n  b: *a\n", ("mcpServers", "a", "url"), "y", "something else"),
        ("mcpServers:\n  a: &a {url: x}\n  b: *a\n", ("mcpServers", "a"), ..., "something else"),
        ("mcpServers:\n  a: &a {url: x}\n  b: *a\n", ("mcpServers", "b", "url"), "y", "alias"),
        ("? mcpServers\n: a: {url: x}\n", ("mcpServers", "b"), {"url": "y"}, "shares its line"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_line_and_left_alone(text, path, value, reason):
    with pytest.raises(GatewayError, match=reason) as refused:
        edited(text, path, value)
    assert refused.value.code == "cannot_edit"
    assert refused.value.facts["line"] >= 1


# Properties, over documents as people write them.

WORDS = [
    "no", "on", "22:22", "1e3", "0x10", "~", "null", "1",
    "-1.5", "a: b", "a #b", "#a", "- a", "${VAR}", "Bearer ${A:-b}", "\u00e9",
    "it's", "\"q\"", "{a}", "[a]", "a,b", "*a", "&a", "!a",
    "%a", "@a", "`a", "a\nb", "\ttab", " a ", "", "https://h:1/p?q=1#f",
    "\u2028", "\u0085", "\ufeff", "😀", "a\\b", "=", "<<", "2026-01-01",
    "y", "|", ">", "?", "? a", ": a", "---", "...",
    "\u007f", "a:",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(WORDS), st.text("abc: #'\"\\{}[],\n\té$", max_size=8))
KEYS = st.one_of(
    st.sampled_from(["a", "b", "c-d", "E_F", "no", "1", "a b", "é", "x:y", "$schema"]),
    st.text("ab: #-", min_size=1, max_size=5),
)
SCALARS = st.one_of(TEXTS, st.integers(-(10**6), 10**6), st.booleans(), st.none(), st.sampled_from([1.5, 60.0, 0.25]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(SCALARS, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)


class Writer:
    """Writes a value as one person or another would: block or flow, JSON, comments, blank lines, quotes, indentation."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.step = " " * draw(st.sampled_from([2, 3, 4, 8]))
        self.comments = 0

    def file(self, value):
        lines = ["# head", *self.pairs(value, "")]
        end = self.draw(st.sampled_from(["\n", "\r\n"]))
        return (
            ("\ufeff" if self.draw(st.integers(0, 9)) == 0 else "")
            + end.join(lines)
            + self.draw(st.sampled_from(["", end]))
        )

    def comment(self):
        self.comments += 1
        return f"# c{self.comments}"

    def pairs(self, value, margin):
        for key, one in value.items():
            if self.draw(st.integers(0, 3)) == 0:
                yield self.draw(
                    st.sampled_from(["", f"{margin}{self.comment()}", f"{margin}{self.step}{self.comment()}"])
                )
            yield from self.pair(f"{margin}{self.scalar(key)}:", one, margin + self.step)

    def pair(self, head, value, margin):
        tail = "  " + self.comment() if self.draw(st.integers(0, 3)) == 0 else ""
        if isinstance(value, dict) and value and self.draw(st.booleans()):
            yield head + tail
            yield from self.pairs(value, margin)
        elif isinstance(value, list) and value and self.draw(st.booleans()):
            yield head + tail
            for one in value:
                yield f"{margin}- {self.scalar(one)}"
        elif isinstance(value, (dict, list)):
            style = self.draw(st.sampled_from(["flow", "json", "lines"]))
            shown = rendering.flow(value, as_json=style != "flow")
            if style == "lines":
                shown = rendering.indented_json(value, step=self.step, margin=margin, line_end="\n")
            first, *rest = shown.split("\n")
            yield from [f"{head} {first}", *rest] if rest else [f"{head} {first}{tail}"]
        else:
            yield f"{head} {self.scalar(value)}{tail}"

    def scalar(self, value):
        like = self.draw(st.sampled_from(["", "'", '"']))
        return rendering.scalar(value, like=like)


@st.composite
def files(draw):
    value = draw(DOCUMENTS)
    text = Writer(draw).file(value)
    assert editing.same(meaning(text), value), text
    return text, value


def places(value, path=()):
    yield path
    for key, one in value.items() if isinstance(value, dict) else ():
        yield from places(one, (*path, key))


def changed(value, path, new):
    wanted = copy.deepcopy(value)
    inner = wanted
    for part in path[:-1]:
        inner = inner[part]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return wanted


@given(files(), st.data())
def test_any_value_can_be_set_and_only_what_was_replaced_is_lost(file, data):
    text, value = file
    path = data.draw(st.sampled_from([path for path in places(value) if path]))
    wanted = changed(value, path, data.draw(VALUES))
    after = editing.rewritten(text, wanted)
    assert editing.same(meaning(after), wanted)
    assert set(text.split()[:2]) <= set(after.split())
    if not isinstance(value_at(value, path), (dict, list)) and not isinstance(value_at(wanted, path), (dict, list)):
        assert comments(after) == comments(text)
        assert len(re.findall(r"\r?\n", after)) == len(re.findall(r"\r?\n", text))


@given(files(), st.data())
def test_what_is_added_and_taken_away_again_leaves_the_very_same_bytes(file, data):
    text, value = file
    mappings = [path for path in places(value) if isinstance(value_at(value, path), dict) and value_at(value, path)]
    path = (*data.draw(st.sampled_from(mappings)), "new-key")
    wanted = changed(value, path, data.draw(VALUES))
    after = editing.rewritten(text, wanted)
    assert editing.same(meaning(after), wanted)
    assert comments(after) == comments(text)
    again = editing.rewritten(after, value)
    if again != text:  # A blank line that was put before a new entry, as between its sisters, stays; or goes for two.
        assert [line for line in again.splitlines() if line] == [line for line in text.splitlines() if line]
        assert abs(again.count("\n") - text.count("\n")) == 1


@given(files(), st.data())
def test_anything_can_be_taken_away_and_what_stands_beside_it_stays(file, data):
    text, value = file
    assume(len(value) > 1)
    path = data.draw(st.sampled_from([path for path in places(value) if path]))
    wanted = changed(value, path, ...)
    after = editing.rewritten(text, wanted)
    assert editing.same(meaning(after), wanted)
    lines = re.split(r"\r?\n", text)
    assert [line for line in re.split(r"\r?\n", after) if line not in lines] in ([], [line_of(after, lines)])


@given(st.lists(SCALARS, max_size=5), st.lists(SCALARS, max_size=5), st.booleans(), st.data())
def test_any_list_becomes_any_other(old, new, in_block, data):
    lines = [f"  - {Writer(data.draw).scalar(one)} # {number}" for number, one in enumerate(old)]
    text = "\n".join(["a:", *lines]) if in_block and old else f"a: {rendering.flow(old)}"
    assert editing.same(meaning(editing.rewritten(text, {"a": new})), {"a": new})


@given(TEXTS)
def test_text_is_text_to_readers_of_every_version(text):
    for like in ("", "'", '"'):
        for in_flow in (False, True):
            shown = rendering.scalar(text, like=like, in_flow=in_flow)
            source = f"[{shown}]" if in_flow else f"- {shown}"
            assert yaml.safe_load(source) == [text]
            assert meaning(f"a: {source}" if in_flow else f"a:\n {source}") == {"a": [text]}
    assert json.loads(rendering.scalar(text, like='"')) == text


def value_at(value, path):
    for part in path:
        value = value[part]
    return value


def comments(text):
    return re.findall(r"# (?:c\d+|head)\b", text)


def line_of(after, lines):
    """The one line that was changed rather than dropped."""
    return next((line for line in re.split(r"\r?\n", after) if line not in lines), None)
