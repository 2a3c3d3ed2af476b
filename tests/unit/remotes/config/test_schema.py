"""The published schema, the starter, and the names that other modules share with them."""

import json
from dataclasses import fields
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from mcpserver.lib.limits import Limits
from remotes.config import load, schema, starter

ROOT = Path(__file__).parents[4]
PUBLISHED = ROOT / "remotes/config/mcp-config.schema.json"


def snapshot_of(text, environment=None, folder=ROOT):
    snapshot, problems = load.parse(text, environment or {}, folder)
    assert problems == []
    assert snapshot is not None
    return snapshot


def test_the_published_schema_is_the_one_that_validates():
    """When this fails: `mcpconfig schema` has changed; write its document (without `schema` and `ok`) to that file."""
    assert json.loads(PUBLISHED.read_text()) == schema.json_schema()


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        (starter.TEXT, True),
        ('{"mcpServers": {"a": {"command": "x", "env": {"PORT": 8080}, "disabled": false}}}', True),
        ("allow_private_networks: [10.0.0.0/8]\nmcpServers: {}", True),
        ("mcpServers: {a: {comand: x}}", False),
        ("mcpServers: {A b: {command: x}}", False),
        ("mcpServers: {a: {command: x, timeout: 60000}}", False),
    ],
)
def test_an_editor_that_reads_the_schema_judges_as_we_do(text, is_valid):
    reading = load.read(text, {}, ROOT)
    assert (reading.snapshot is not None) is is_valid
    assert jsonschema.Draft202012Validator(schema.json_schema()).is_valid(reading.value) is is_valid


def test_every_limit_that_the_file_can_set_is_one_of_the_limits():
    names = set(schema.GatewaySection.model_fields) - {"max_tool_name", "audit"}
    assert names <= {field.name for field in fields(Limits)}


def test_the_starter_is_valid_and_offers_the_demo():
    snapshot = snapshot_of(starter.TEXT)
    assert snapshot.warnings == ()
    assert (snapshot.remotes["demo"].command, snapshot.remotes["demo"].args) == (
        str(ROOT / ".venv/bin/python"), ("-m", "remotes.demo"),
    )  # fmt: skip


def test_every_commented_example_of_the_starter_is_valid_too():
    def uncommented(line):
        stripped = line.lstrip()
        is_example = stripped.startswith("# ") and not stripped[2:3].isupper() and line != "#"
        return line.replace("# ", "", 1) if is_example and not line.startswith("# yaml") else line

    examples = starter.TEXT[starter.TEXT.index("  # The time in any zone") :]
    text = starter.TEXT[: len(starter.TEXT) - len(examples)] + "\n".join(map(uncommented, examples.splitlines()))
    snapshot = snapshot_of(text, {"EXAMPLE_TOKEN": "x"})
    assert list(snapshot.remotes) == ["demo", "time", "everything", "example", "all-fields"]
    assert snapshot.gateway.limits == {"max_connections_per_key": 10}


def test_the_starter_names_every_field_of_an_entry():
    same_as_others = {"disabled", "enabled_tools", "disabled_tools"}
    for name in set(schema.RemoteEntry.model_fields) - same_as_others:
        assert f" {name}:" in starter.TEXT, name


def test_the_starter_elsewhere_refers_to_the_installation(tmp_path):
    path = tmp_path / "mcp-config.yaml"
    assert starter.write(path, installation=Path("/opt/gate way"))
    snapshot = snapshot_of(path.read_text(), folder=tmp_path)
    assert (snapshot.remotes["demo"].command, snapshot.remotes["demo"].cwd) == (
        "/opt/gate way/.venv/bin/python", "/opt/gate way",
    )  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_starter_never_replaces_a_configuration(tmp_path):
    path = tmp_path / "mcp-config.yaml"
    path.write_text("mine")
    assert not starter.write(path, installation=tmp_path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(("word", "meant"), [("Comand", "command"), ("TIMEOUT", "timeout"), ("xyzzy", None)])
def test_the_nearest_known_word_is_found_whatever_its_case(word, meant):
    assert schema.nearest_of(word, ["command", "timeout", "url"]) == meant
