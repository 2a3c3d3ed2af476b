"""Every kind of remote behind a real gateway: found out or pinned, configured, killed, restarted, changed.

The client is the quickest of the real ones, in each of its eras; the others are in test_clients_through_gateway.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.system import gateway
from tests.system.conftest import World
from tests.system.gateway import Gateway, eventually
from tests.system.listening import MODES, SUBSCRIPTION, listening
from tests.system.tools import arguments, require, visit

CLIENT = "node-client2"
SAME_OFFER = ("local", "both", "events", "old")
OVER_HTTP: dict[str, Callable[[int], contextlib.AbstractContextManager[peers.Peer]]] = {
    "both": lambda port: peers.sdk_server("http", port=port),
    "events": lambda port: peers.sdk_server("sse", port=port),
    "old": lambda port: peers.legacy_server("http", port=port),
    "every": lambda port: peers.everything("streamableHttp", port=port),  # answers a session it does not know with 400
}
# How each of them says "again".
ECHO = {"every": ("message", "Echo: again")}
CHANGED = "notifications/tools/list_changed"


def use(running: Gateway, tool: str, *options: str, mode: str = "session", **given: Any) -> dict[str, Any]:
    """One visit that calls one tool."""
    seen = visit(
        CLIENT,
        running.address(mode),
        running.key,
        "--no-lists",
        "--call",
        tool,
        *arguments(**given),
        *options,
        mode=mode,
    )
    assert seen["ok"], seen
    return seen


def words(seen: dict[str, Any]) -> str:
    text: str = seen["call"]["content"][0]["text"]
    return text


# What the remotes of the common gateway are


def test_era_and_transport_of_each_remote_are_found_out(world: World) -> None:
    found = {name: (one["status"], one["transport"], one["era"]) for name, one in world.gateway.remotes().items()}
    assert found == {
        "demo": ("healthy", "stdio", "2026-07-28"),
        "local": ("healthy", "stdio", "2026-07-28"),
        "both": ("healthy", "http", "2026-07-28"),
        "events": ("healthy", "sse", "2025-11-25"),
        "old": ("healthy", "http", "2025-11-25"),
        "every-http": ("healthy", "http", "2025-11-25"),
        "every-sse": ("healthy", "sse", "2025-11-25"),
        "every-stdio": ("healthy", "stdio", "2025-11-25"),
        "time": ("healthy", "stdio", "2026-07-28"),
        "fetch": ("healthy", "stdio", "2026-07-28"),
        "down": ("unhealthy", "http", None),
    }


@pytest.mark.parametrize("remote", SAME_OFFER)
@pytest.mark.parametrize("mode", MODES)
def test_progress_and_log_messages_cross_every_pair_of_eras(mode: str, remote: str, world: World) -> None:
    options = ["--log-level", "info", "--also", f'{{"name": "{remote}__log", "arguments": {{"level": "error"}}}}']
    seen = use(world.gateway, f"{remote}__slow", *options, mode=mode, n=2, seconds=0.2)
    assert words(seen) == "2 steps"
    assert [step["message"] for step in seen["progress"]] == ["step 1", "step 2"]
    assert seen["logs"] == [{"level": "error", "logger": "peer", "data": "hello 0"}]


@pytest.mark.parametrize("remote", SAME_OFFER)
@pytest.mark.parametrize("mode", MODES)
def test_a_cancellation_crosses_every_pair_of_eras(mode: str, remote: str, world: World) -> None:
    tag = f"{mode}-to-{remote}"
    seen = use(world.gateway, f"{remote}__cancellable", "--cancel-after", "0.3", mode=mode, tag=tag)
    assert seen["cancelled"]
    eventually(lambda: world.events(tag), lambda seen: seen == ["started", "cancelled"], within_s=5, what="it was told")


@pytest.mark.parametrize("remote", SAME_OFFER)
@pytest.mark.parametrize("mode", MODES)
def test_a_question_crosses_every_pair_of_eras(mode: str, remote: str, world: World) -> None:
    seen = use(world.gateway, f"{remote}__ask", "--elicit", '{"colour": "blue"}', mode=mode)
    assert words(seen) == "blue"
    assert [asked["message"] for asked in seen["elicitations"]] == ["What is your favourite colour?"]


@pytest.mark.parametrize("remote", ["local", "old"])
@pytest.mark.parametrize(("mode", "end"), [("modern", "cancelled"), ("sse", "cancelled"), ("session", "finished")])
def test_a_client_that_vanishes_cancels_as_its_era_says(mode: str, end: str, remote: str, world: World) -> None:
    """2025's clients may lose a connection and go on: there, only a notification cancels."""
    tag = f"vanishing-{mode}-{remote}"
    call = ["--no-lists", "--call", f"{remote}__cancellable", *arguments(tag=tag, seconds=2.5)]
    gone = visit(CLIENT, world.gateway.address(mode), world.gateway.key, *call, mode=mode, timeout_s=1.2)
    assert (gone["ok"], gone["error"]) == (False, "not done within 1.2 s")
    eventually(lambda: world.events(tag), lambda seen: seen == ["started", end], within_s=6, what=f"the call {end}")


@pytest.mark.parametrize("mode", MODES)
def test_without_a_key_a_client_is_refused_with_401(mode: str, world: World) -> None:
    seen = visit(CLIENT, world.gateway.address(mode), "", "--no-lists", mode=mode)
    assert (seen["ok"], seen["status"]) == (False, 401), seen


@pytest.mark.parametrize("remote", ["local", "both", "events"])
@pytest.mark.parametrize("mode", MODES)
def test_an_error_of_the_remote_arrives_with_its_code(mode: str, remote: str, world: World) -> None:
    call = ["--no-lists", "--call", f"{remote}__protocol_error", *arguments(code=-32051)]
    seen = visit(CLIENT, world.gateway.address(mode), world.gateway.key, *call, mode=mode)
    assert (seen["ok"], seen["code"], seen["error"]) == (False, -32051, "ProtocolError: no")


# How they are configured


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Path]]:
    """One gateway for all that a configuration says about a remote; and the journal of its stdio remote."""
    require("sdk1", "npm")
    journal = tmp_path_factory.mktemp("configured") / "journal"
    with (
        peers.sdk_server("http", "--key", "mcp_of_the_remote") as both,
        peers.sdk_server("sse") as events,
        peers.legacy_server("http") as old,
    ):
        authorized = {"Authorization": "Bearer ${REMOTE_KEY}", "X-Team": "${TEAM:-nobody}"}
        remotes: dict[str, dict[str, Any]] = {
            "as-2026": {"url": both.url, "headers": authorized, "era": "2026-07-28"},
            "as-2025": {"url": both.url, "headers": authorized, "era": "2025-11-25"},
            "as-2024": {"url": events.url, "era": "2024-11-05"},
            "said-sse": {"url": events.url, "type": "sse"},
            "local-2025": peers.sdk_stdio().entry(era="2025-11-25"),
            "too-new": {"url": old.url, "era": "2026-07-28"},
            "refused": {"url": both.url, "headers": {"Authorization": "Bearer wrong"}},
            "unset": {"url": old.url, "headers": {"X-Token": "${NOBODY_SET_THIS}"}},
            "local": peers.sdk_stdio(PEER_JOURNAL=str(journal), GREETING="${TEAM}").entry(),
        }
        with gateway.running(remotes, REMOTE_KEY="mcp_of_the_remote", TEAM="blue", PRIVATE="ours") as running:
            unknown = {"unknown"}
            eventually(
                running.remotes,
                lambda seen: not unknown & {one["status"] for one in seen.values()},
                within_s=20,
                what="every remote was looked at",
            )
            yield running, journal


def test_a_pinned_era_is_kept(configured: tuple[Gateway, Path]) -> None:
    running, _ = configured
    seen = running.remotes()
    found = {name: (one["status"], one["transport"], one["era"]) for name, one in seen.items()}
    assert found == {
        "as-2026": ("healthy", "http", "2026-07-28"),
        "as-2025": ("healthy", "http", "2025-11-25"),
        "as-2024": ("healthy", "sse", "2024-11-05"),
        "said-sse": ("healthy", "sse", "2025-11-25"),
        "local-2025": ("healthy", "stdio", "2025-11-25"),
        "too-new": ("unhealthy", "http", None),
        "refused": ("auth_expired", "http", None),
        "unset": ("misconfigured", "http", None),
        "local": ("healthy", "stdio", "2026-07-28"),
    }
    assert "2026-07-28, which its configuration pins" in seen["too-new"]["last_error"]
    for name in ("as-2026", "as-2025", "as-2024", "said-sse", "local-2025"):
        assert words(use(running, f"{name}__echo", text=name)) == name


@pytest.mark.parametrize("remote", ["as-2026", "as-2025"])
def test_configured_headers_reach_the_remote_and_the_clients_key_does_not(
    remote: str, configured: tuple[Gateway, Path]
) -> None:
    running, _ = configured
    received = use(running, f"{remote}__headers")["call"]["structuredContent"]
    assert (received["authorization"], received["x-team"]) == ("Bearer mcp_of_the_remote", "blue")
    assert running.key not in str(received)


@pytest.mark.edge(9)
def test_a_variable_that_is_not_set_takes_only_its_own_remote_away(configured: tuple[Gateway, Path]) -> None:
    running, _ = configured
    assert running.remotes()["unset"]["missing_env"] == ["NOBODY_SET_THIS"]
    seen = visit(CLIENT, running.address("modern"), running.key, mode="modern")
    assert {name.split("__")[0] for name in seen["tools"]} == {
        "as-2026", "as-2025", "as-2024", "said-sse", "local-2025", "local",
    }  # fmt: skip
    refused = visit(
        CLIENT, running.address("modern"), running.key, "--no-lists", "--call", "unset__echo", mode="modern"
    )
    assert refused["call"]["isError"] is True
    assert "${NOBODY_SET_THIS}" in refused["call"]["content"][0]["text"]


def test_a_process_has_a_minimal_environment_and_what_its_entry_gives(configured: tuple[Gateway, Path]) -> None:
    running, journal = configured
    pid = process_of(running, "local", journal)
    raw = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    environment = dict(pair.decode().partition("=")[::2] for pair in raw if pair)
    assert environment["GREETING"] == "blue"
    allowed = {"HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"}
    assert environment.keys() - allowed == {"PEER_JOURNAL", "GREETING"}


def process_of(running: Gateway, remote: str, journal: Path) -> int:
    """The process that serves a stdio remote now."""
    tag = f"pid-{os.urandom(4).hex()}"
    use(running, f"{remote}__cancellable", tag=tag, seconds=0)
    return next(int(line["pid"]) for line in peers.journal_lines(journal) if line.get("tag") == tag)


# What becomes of them


@dataclass
class Restartable:
    """A server that can be killed, and started again at its address."""

    name: str
    port: int = field(default_factory=peers.free_port)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    peer: peers.Peer | None = None

    def start(self) -> None:
        self.peer = self.stack.enter_context(OVER_HTTP[self.name](self.port))

    def kill(self) -> None:
        assert self.peer is not None
        self.peer.kill()
        self.stack.close()

    @property
    def url(self) -> str:
        assert self.peer is not None
        return self.peer.url


@dataclass(frozen=True)
class Lively:
    gateway: Gateway
    servers: dict[str, Restartable]
    journal: Path


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lively]:
    """A gateway whose remotes the tests may kill and change."""
    require("sdk1", "npm")
    journal = tmp_path_factory.mktemp("lively") / "journal"
    servers = {name: Restartable(name) for name in OVER_HTTP}
    with contextlib.ExitStack() as stack:
        for server in servers.values():
            server.start()
            stack.callback(server.stack.close)
        remotes = {
            "local": peers.sdk_stdio(PEER_JOURNAL=str(journal)).entry(),
            "local-2025": peers.sdk_stdio(PEER_JOURNAL=str(journal)).entry(era="2025-11-25"),
            **{name: {"url": server.url} for name, server in servers.items()},
        }
        running = stack.enter_context(gateway.running(remotes))
        well(running)
        yield Lively(running, servers, journal)


def well(running: Gateway) -> None:
    eventually(
        lambda: {name: one["status"] for name, one in running.remotes().items()},
        lambda seen: set(seen.values()) == {"healthy"},
        within_s=20,
        what="every remote is healthy",
    )


def again(lively: Lively, remote: str, mode: str) -> None:
    argument, answer = ECHO.get(remote, ("text", "again"))
    assert words(use(lively.gateway, f"{remote}__echo", mode=mode, **{argument: "again"})) == answer


def mended(lively: Lively, *remotes: str) -> None:
    """As an operator says it: what an earlier test did to a remote is not held against it."""
    for remote in remotes:
        assert lively.gateway.command("mcp", "remote", "reset", remote)["ok"]


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_process_is_replaced_by_the_next_call(mode: str, lively: Lively) -> None:
    mended(lively, "local")
    before = process_of(lively.gateway, "local", lively.journal)
    os.kill(before, signal.SIGKILL)
    again(lively, "local", mode)
    assert process_of(lively.gateway, "local", lively.journal) != before


@pytest.mark.parametrize("mode", MODES)
def test_a_process_that_dies_in_a_call_fails_that_call_in_words(mode: str, lively: Lively) -> None:
    mended(lively, "local")
    seen = use(lively.gateway, "local__crash", mode=mode)
    assert seen["call"]["isError"]
    assert words(seen).startswith("the process of local ended with exit code 70")
    mended(lively, "local")
    again(lively, "local", mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("remote", OVER_HTTP)
def test_a_restarted_server_that_has_forgotten_us_serves_the_next_call(remote: str, mode: str, lively: Lively) -> None:
    server = lively.servers[remote]
    again(lively, remote, mode)
    server.kill()
    server.start()
    again(lively, remote, mode)


@pytest.mark.edge(1)
@pytest.mark.parametrize("remote", OVER_HTTP)
def test_while_a_server_is_away_its_calls_fail_in_words_and_the_others_work(remote: str, lively: Lively) -> None:
    mended(lively, "local", remote)
    server = lively.servers[remote]
    server.kill()
    try:
        seen = use(lively.gateway, f"{remote}__echo", text="hello?")
        assert seen["call"]["isError"]
        assert words(seen).startswith(f"{remote}: no connection")
        again(lively, "local", "session")
    finally:
        server.start()
    again(lively, remote, "session")


@pytest.mark.parametrize("remote", ["both", "events", "old"])
def test_a_restarted_server_is_listed_anew_before_anybody_calls_it(remote: str, lively: Lively) -> None:
    """What it had is not what it has: the end of its stream says so."""
    name = f"lost_with_{remote}"
    use(lively.gateway, f"{remote}__grow", name=name)
    offered(lively, f"{remote}__{name}", is_there=True)
    server = lively.servers[remote]
    server.kill()
    server.start()
    offered(lively, f"{remote}__{name}", is_there=False)


def offered(lively: Lively, tool: str, *, is_there: bool) -> None:
    eventually(
        lambda: visit(CLIENT, lively.gateway.address("modern"), lively.gateway.key, mode="modern")["tools"],
        lambda tools: (tool in tools) == is_there,
        within_s=20,
        what=f"{tool} is offered: {is_there}",
    )


@pytest.mark.parametrize("remote", ["local", "local-2025", "both", "events", "old"])
def test_a_new_tool_of_a_remote_reaches_lists_and_streams(remote: str, lively: Lively) -> None:
    well(lively.gateway)
    name = f"grown_{remote.replace('-', '_')}"
    with contextlib.ExitStack() as stack:
        streams = {mode: stack.enter_context(listening(lively.gateway, mode)) for mode in MODES}
        use(lively.gateway, f"{remote}__grow", name=name)
        told = {mode: stream.until(CHANGED) for mode, stream in streams.items()}
    assert told["session"] == told["sse"] == {"jsonrpc": "2.0", "method": CHANGED}
    assert told["modern"]["params"] == {"_meta": {"io.modelcontextprotocol/subscriptionId": SUBSCRIPTION}}
    for mode in MODES:
        seen = visit(CLIENT, lively.gateway.address(mode), lively.gateway.key, mode=mode)
        assert f"{remote}__{name}" in seen["tools"]
    assert words(use(lively.gateway, f"{remote}__{name}", text="new")) == "new"


def test_a_saved_configuration_brings_and_takes_remotes_while_clients_listen(lively: Lively) -> None:
    servers = {name: {"url": server.url} for name, server in lively.servers.items()}
    before = {"local": peers.sdk_stdio(PEER_JOURNAL=str(lively.journal)).entry(), **servers}
    lively.gateway.configure(before)
    eventually(lively.gateway.remotes, lambda seen: "local-2025" not in seen, within_s=10, what="a remote went")
    with listening(lively.gateway, "session") as stream:
        lively.gateway.configure({**before, "fresh": {"url": lively.servers["both"].url}})
        assert stream.until(CHANGED)["method"] == CHANGED
    assert words(use(lively.gateway, "fresh__echo", text="new")) == "new"
