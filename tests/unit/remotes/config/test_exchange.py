"""Other programs' files in and out, against golden files: `import/NAME.*` with what is made of it beside it, and one file per
client and direction. To write the golden files anew after looking at every difference: GOLDEN=write pytest this_file.
"""

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.lib.errors import GatewayError
from remotes.config import load
from remotes.config.exchange import detection, exporting, fields, importing, reading, toml, variables
from remotes.config.interpolate import Expander

HERE = Path(__file__).parent / "import"
INPUTS = sorted(path for path in HERE.iterdir() if path.is_file() and ".made." not in path.name)
ENDING = {"codex": "toml", "librechat": "yaml", "goose": "yaml"}
OURS: dict[str, dict[str, Any]] = {
    "local": {"command": "uvx", "args": ["server", "--key=${KEY}"], "env": {"KEY": "${KEY}", "LEVEL": "info"}, "cwd": "/srv"},
    "far": {
        "url": "https://far.example.com/mcp",
        "headers": {"Authorization": "Bearer ${FAR_TOKEN}", "X-Team": "${TEAM}", "X-A": "b"},
        "timeout": 90, "connect_timeout": 5, "tools": {"enabled": ["a"], "disabled": ["b"], "pin": "hold"},
    },
    "old": {"type": "sse", "url": "https://old.example.com/sse", "enabled": False},
    "secret": {"url": "https://s.example.com/mcp", "headers": {"X-Api-Key": "hunter2"}, "timeout": 1.5},
}  # fmt: skip


def is_golden(path: Path, content: str) -> bool:
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return path.read_text() == content


def fault(name, entry):
    """As the command judges one entry; the gateway's own address is the command's business."""
    alone = json.dumps({"mcpServers": {name: entry}})
    errors = load.read(alone, {}, Path("/srv"), read_file=lambda path: "x").errors
    return "; ".join(f"{one.path}: {one.message}" for one in errors) or None


def planned(text, existing=None, **options):
    return importing.plan(reading.values(text), existing or {}, fault=fault, **options)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_a_file_of_each_format_becomes_what_its_golden_file_says(path):
    plan = planned(path.read_text())
    made = {
        "format": plan.format, "added": plan.added, "skipped": plan.skipped, "renamed": plan.renamed,
        "needs_env": plan.needs_env, "dropped_fields": plan.dropped_fields, "notes": plan.notes,
    }  # fmt: skip
    assert is_golden(path.with_suffix(".made.json"), json.dumps(made, indent=1) + "\n")


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_every_format_is_told_by_its_content(path):
    name = path.stem.rstrip("2").removesuffix("-remote")
    shared = {"claude-desktop": "mcpServers", "cursor": "mcpServers", "traps": "mcpServers"}
    assert planned(path.read_text()).format == shared.get(name, name)


@pytest.mark.parametrize("format", exporting.FORMATS)
def test_each_client_gets_its_own_words(format):
    for direction, made in (
        ("direct", exporting.direct(OURS, format)),
        ("gateway", exporting.gateway("http://gw:3000/mcp", format)),
    ):
        ending = ENDING.get(format, "json")
        told = json.dumps(
            {"needs_env": made.needs_env, "dropped_fields": made.dropped_fields, "notes": made.notes}, indent=1
        )
        assert is_golden(HERE / "export" / f"{format}.{direction}.{ending}", made.text)
        assert is_golden(HERE / "export" / f"{format}.{direction}.told.json", told + "\n")
        assert "hunter2" not in made.text
        assert parsed(made.text, ending) == json.loads(json.dumps(made.document))


@pytest.mark.parametrize(
    "format", [one for one in exporting.FORMATS if one not in ("claude-desktop", "openai", "anthropic")]
)
def test_what_was_written_for_a_client_is_read_back_alike(format):
    made = exporting.direct({"local": OURS["local"], "old": OURS["old"]}, format)
    plan = planned(made.text, format="auto" if format in ("vscode", "codex", "zed", "goose", "opencode") else format)
    assert plan.skipped == []
    lost = {one["field"] for one in made.dropped_fields}
    for name, source in (("local", OURS["local"]), ("old", OURS["old"])):
        entry = plan.added[name]
        assert {key: entry.get(key) for key in ("command", "url")} == {
            key: source.get(key) for key in ("command", "url")
        }
        assert entry.get("enabled", True) == source.get("enabled", True) or "enabled" in lost
        if not made.notes:
            assert (entry.get("args"), entry.get("env")) == (source.get("args"), source.get("env"))


def parsed(text, ending):
    readers: dict[str, Callable[[str], Any]] = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
    return readers[ending](text)


def test_only_some_under_a_prefix_beside_what_is_there():
    text = '{"mcpServers": {"a": {"command": "x"}, "b": {"command": "y"}, "c": {"command": "z"}}}'
    plan = planned(text, {"my-a": {}, "my-b": {}}, only=("a", "b", "d"), prefix="my-")
    assert (plan.added, [one["name"] for one in plan.skipped]) == ({}, ["a", "b", "d"])
    plan = planned(text, {"my-a": {}}, only=("a", "b"), prefix="my-", replace=True)
    assert (list(plan.added), plan.replaced, plan.renamed) == (["my-a", "my-b"], ["my-a"], {"a": "my-a", "b": "my-b"})


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "null", '{"a": 1}', "a = [", "- x", "{'a': 1}", "\x00", "key = 1", "[" * 100_000]
)
def test_what_is_no_configuration_is_one_clear_error(text):
    with pytest.raises(GatewayError) as raised:
        planned(text)
    assert raised.value.code in ("unreadable", "unknown_format")
    assert raised.value.hint


def test_comments_and_commas_inside_texts_are_text():
    assert reading.values('{"a": "// no, /* no */ ,}", // yes\n "b": [1, 2, /* x */ ], }') == {
        "a": "// no, /* no */ ,}", "b": [1, 2],
    }  # fmt: skip


SIMPLE = st.one_of(st.text(), st.integers(-9, 9), st.booleans())
TABLES = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(st.lists(SIMPLE, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@given(TABLES)
def test_toml_is_read_back_alike(value):
    assert tomllib.loads(toml.dumps({"a": value})) == {"a": value}


@given(st.text(alphabet="${}aA:-/*\",\n[]=#'1 ", max_size=60))
def test_any_text_is_answered(text):
    try:
        planned(text)
    except GatewayError as error:
        assert error.code in ("unreadable", "unknown_format")  # noqa: PT017


@given(st.text(alphabet="${}aA_:-input env", max_size=30), st.sampled_from(detection.FORMATS))
def test_no_text_of_another_program_becomes_one_that_cannot_be_filled_in(text, format):
    assert Expander({}, lambda path: None).expand(variables.rewritten(text, format)).faults == ()


ODD = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 5000),
        st.floats(),
        st.sampled_from(["", "x", "${A", "http://x", "stdio", "npm"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["name", "value", "env", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
FIELDS = sorted({*fields._FIELDS, *fields._REASONS, "image", "volumes", "secrets", "remote", "settings"})
OF_PACKAGE = ("version", "runtimeHint", "transport", "environmentVariables", "packageArguments", "runtimeArguments")
PACKAGE = st.fixed_dictionaries(
    {"registryType": st.sampled_from(["npm", "pypi", "oci", "nuget"]), "identifier": ODD},
    optional=dict.fromkeys(OF_PACKAGE, ODD),
)
REMOTE = st.fixed_dictionaries({"url": ODD}, optional={"type": ODD, "headers": ODD, "variables": ODD})
SERVER = st.fixed_dictionaries(
    {"name": st.just("a/b")},
    optional={
        "packages": st.lists(st.one_of(PACKAGE, ODD), max_size=2),
        "remotes": st.lists(st.one_of(REMOTE, ODD), max_size=2),
    },
)
ENTRIES = st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=4)
HOLDERS = ("mcpServers", "servers", "mcp_servers", "context_servers", "extensions", "mcp", "registry")
FILES = st.one_of(
    SERVER,
    st.tuples(st.sampled_from(HOLDERS), ENTRIES).map(lambda pair: {pair[0]: {"a": pair[1]}}),
    ENTRIES.map(lambda entry: {"mcp_servers": [{"name": "a", **entry}]}),
    ENTRIES.map(lambda entry: {"tools": [{"type": "mcp", "server_label": "a", **entry}]}),
)


@given(FILES)
def test_whatever_stands_in_a_field_is_taken_or_reported_and_what_comes_is_valid(value):
    try:
        plan = importing.plan(value, {}, fault=fault)
    except GatewayError as error:
        assert error.code == "unknown_format"  # noqa: PT017
        return
    for name, entry in plan.added.items():
        assert fault(name, entry) is None
