"""A good text as a snapshot, whatever program its entries were written for; warnings beside it."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remotes.config import load
from remotes.config.addresses import Reach
from remotes.config.snapshot import AuthSpec, BreakerSpec, Missing, RemoteSpec, Snapshot

FOLDER = Path("/srv/gateway")


def snapshot_of(text, environment=None) -> Snapshot:
    snapshot, problems = load.parse(text, environment or {}, FOLDER)
    assert problems == []
    assert snapshot is not None
    return snapshot


def remote_of(entry, environment=None) -> RemoteSpec:
    return snapshot_of(json.dumps({"mcpServers": {"it": entry}}), environment).remotes["it"]


def test_a_pasted_stdio_entry_is_valid_as_it_is():
    spec = remote_of({"command": "npx", "args": ["-y", "server"], "env": {"KEY": "${KEY}", "PORT": 8080}}, {"KEY": "k"})
    assert spec == RemoteSpec(
        name="it",
        transport="stdio",
        command="npx",
        args=("-y", "server"),
        env={"KEY": "k", "PORT": "8080"},
        cwd=str(FOLDER),
    )


def test_a_pasted_http_entry_is_valid_as_it_is():
    spec = remote_of(
        {"type": "http", "url": "https://a.example/mcp", "headers": {"X-Key": "${K:-d}"}, "disabled": True}
    )
    assert spec == RemoteSpec(
        name="it", transport="http", url="https://a.example/mcp", headers={"X-Key": "d"}, enabled=False
    )


@pytest.mark.parametrize("word", ["http", "streamable-http", "streamable_http", "streamableHttp"])
def test_every_word_for_streamable_http_means_the_same(word):
    assert remote_of({"type": word, "url": "https://a.example/"}).transport == "http"


def test_the_oldest_era_over_a_url_is_sse():
    assert remote_of({"url": "https://a.example/sse", "era": "2024-11-05"}).transport == "sse"


def test_every_field_reaches_the_spec():
    text = """
allow_private_networks: [10.0.0.0/8]
gateway: {max_tool_name: 64, heartbeat_s: 15}
mcpServers:
  all:
    url: http://10.0.0.5/mcp
    auth: {token_url: "https://id.example/token", client_id: me, refresh_token: "${R}", scope: a b}
    enabled: yes
    timeout: 5
    connect_timeout: 1.5
    list_timeout: 2
    probe_interval: 300
    era: 2025-11-25
    isolation: session
    tools: {enabled: [a, b], disabled: [b], alias: {a: c}, pin: hold}
    breaker: {failures: 3, window: 10, open: 5}
    retry_idempotent: true
"""
    snapshot = snapshot_of(text, {"R": "refresh"})
    spec = snapshot.remotes["all"]
    assert spec == RemoteSpec(
        name="all", transport="http", url="http://10.0.0.5/mcp",
        auth=AuthSpec("https://id.example/token", "me", "", "refresh", "a b"), reach=snapshot.reach,
        timeout_s=5, connect_timeout_s=1.5, list_timeout_s=2, probe_interval_s=300, era="2025-11-25", isolation="session",
        tools_enabled=("a", "b"), tools_disabled=("b",), aliases={"a": "c"}, pin="hold",
        breaker=BreakerSpec(True, 3, 10, 5), retry_idempotent=True,
    )  # fmt: skip
    assert (snapshot.gateway.max_tool_name, dict(snapshot.gateway.limits)) == (64, {"heartbeat_s": 15})
    assert snapshot.sha256 == load.digest(text)
    assert [warning.code for warning in snapshot.warnings] == ["client_limit", "contradiction"]


@pytest.mark.parametrize(
    ("entry", "command", "cwd"),
    [
        ({"command": "uvx"}, "uvx", "/srv/gateway"),
        ({"command": ".venv/bin/python"}, "/srv/gateway/.venv/bin/python", "/srv/gateway"),
        ({"command": "./run", "cwd": "servers"}, "/srv/gateway/run", "/srv/gateway/servers"),
        ({"command": "/bin/sh", "cwd": "/"}, "/bin/sh", "/"),
        ({"command": "~/bin/x", "cwd": "~"}, "/home/me/bin/x", "/home/me"),
        ({"command": "${DIR}/x"}, "/opt/x", "/srv/gateway"),
    ],
)
def test_relative_paths_count_from_the_folder_of_the_file(entry, command, cwd):
    spec = remote_of(entry, {"HOME": "/home/me", "DIR": "/opt"})
    assert (spec.command, spec.cwd) == (command, cwd)


@pytest.mark.edge(9)
def test_an_unset_variable_makes_one_remote_misconfigured_and_no_other():
    text = "mcpServers:\n  a: {url: 'https://a.example/', headers: {Authorization: 'Bearer ${TOKEN}'}}\n  b: {command: uvx}"
    snapshot = snapshot_of(text)
    assert snapshot.remotes["a"].missing == (Missing("TOKEN", "headers.Authorization"),)
    assert snapshot.remotes["b"].missing == ()
    assert [asdict(warning) for warning in snapshot.warnings] == [
        {
            "path": "mcpServers.a.headers.Authorization", "line": 2, "column": 59, "code": "missing_variable",
            "message": "TOKEN is unset or empty: a is misconfigured",
            "hint": "set it where the gateway starts (or in .env), or give a default: ${NAME:-default}",
        }
    ]  # fmt: skip


@pytest.mark.edge(9)
@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"url": "${X}"}, "url"),
        ({"url": "https://a.example/", "headers": {"A": "${X}"}}, "headers.A"),
        ({"command": "c", "args": ["${X}"]}, "args[0]"),
        ({"command": "c", "env": {"A": "${X}"}}, "env.A"),
    ],
)
@pytest.mark.parametrize("value", ["http://169.254.169.254/\nX: y\0", None])
def test_a_variable_that_cannot_be_used_spoils_its_own_remote_alone(entry, field, value):
    spec = remote_of(entry, {"X": value} if value else {})
    assert spec.missing == (Missing("X", field),)


def test_a_warning_never_shows_the_value_of_a_variable():
    snapshot = snapshot_of("mcpServers: {a: {url: '${X}'}}", {"X": "https://user:hunter2@a.example/"})
    assert snapshot.remotes["a"].missing
    assert "hunter2" not in repr(snapshot)


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"command": "npx -y server"}, "command_line"),
        ({"command": "x", "timeout": 3000}, "milliseconds"),
        ({"url": "https://a.example/", "headers": {"A": "Bearer $TOKEN"}}, "bare_variable"),
        ({"command": "x", "tools": {"alias": {"a": "c", "b": "c"}}}, "collision"),
    ],
)
def test_what_is_probably_a_mistake_is_a_warning(entry, code):
    assert [warning.code for warning in snapshot_of(json.dumps({"mcpServers": {"it": entry}})).warnings] == [code]


def test_a_broken_variable_is_one_error_and_the_rest_of_its_entry_is_still_read():
    text = 'mcpServers: {a: {command: "${", cwd: "${A-B}"}}'
    _, errors = load.parse(text, {}, Path("/etc"))
    assert [(error.path, error.code) for error in errors] == [
        ("mcpServers.a.command", "interpolation"),
        ("mcpServers.a.cwd", "interpolation"),
    ]


def test_no_remotes_at_all_is_a_configuration():
    assert dict(snapshot_of("mcpServers:\n  # all of them commented out\n").remotes) == {}


def test_a_snapshot_shows_no_credentials_and_cannot_be_changed():
    spec = remote_of({"url": "https://a.example/?key=hunter2", "headers": {"A": "hunter2"}})
    assert "hunter2" not in repr(spec)
    with pytest.raises(TypeError):
        spec.headers["A"] = "x"  # type: ignore[index]


def test_the_digest_changes_with_what_a_connection_depends_on_and_with_nothing_else():
    spec = RemoteSpec("a", "http", url="https://a.example/", headers={"A": "1", "B": "2"})
    alike = [
        replace(spec, headers={"B": "2", "A": "1"}), replace(spec, timeout_s=1), replace(spec, tools_enabled=()),
        replace(spec, breaker=BreakerSpec(failures=2)), replace(spec, missing=(Missing("A", "url"),)),
    ]  # fmt: skip
    others = [
        replace(spec, headers={"A": "2", "B": "2"}), replace(spec, reach=Reach(everything=True)),
        replace(spec, auth=AuthSpec("https://id.example/", "me")), replace(spec, era="2025-11-25"),
    ]  # fmt: skip
    assert {each.digest for each in alike} == {spec.digest}
    assert len({spec.digest, *(other.digest for other in others)}) == 5


_words = st.sampled_from(
    ["mcpServers", "command", "url", "args", "env", "tools", "gateway", "timeout", "a", "${A}", "x y"]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=4),
    max_leaves=25,
)


@given(st.one_of(st.text(), _values.map(json.dumps), _values.map(lambda v: json.dumps({"mcpServers": {"a": v}}))))
def test_any_text_gives_a_snapshot_or_errors_and_never_both(text):
    snapshot, problems = load.parse(text, {}, FOLDER)
    assert (snapshot is None) == bool(problems)
