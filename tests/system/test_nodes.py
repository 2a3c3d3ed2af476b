"""Two machines (own folders, ports, processes; one Redis, one PostgreSQL) behind an nginx that sends to each in turns."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mcpserver.lib import control
from tests.component import asking, saying_peer
from tests.component.asking import form, params_for, plan_of
from tests.component.real_gateway import Client, Relay, Session, Stream, message, until
from tests.system import faulty, gateway, servers
from tests.system.load import load, modern, session
from tests.system.nodes import DEMO, Node, greeted, in_turns

NAMES = ("first", "second")
PROBE_EVERY_S = 5.0
LIMIT = 65_536


class World:
    def __init__(
        self,
        nodes: list[Node],
        nginx: servers.Server,
        redis: servers.Redis,
        database: servers.Postgres,
        greetings: list[float],
    ) -> None:
        self.nodes = nodes
        self.redis = redis
        self.database = database
        self.greetings = greetings
        self._nginx = nginx
        self.client = self.generate("main")
        self.began = self.ended = 0.0
        """When both machines were there, and when one had died."""

    def generate(self, name: str, *words: str) -> Client:
        """A client with a key of its own."""
        return Client(self._nginx.port, str(self.manage("mcpkey", "generate", name, *words)["key"]))

    def manage(self, *words: str, on: int = 0) -> dict[str, Any]:
        return gateway.manage(self.nodes[on].environment, *words)

    def direct(self, client: Client) -> list[Client]:
        """The same caller at each machine, past nginx."""
        return [Client(node.port, client.key) for node in self.nodes]

    def words(self) -> set[str]:
        """What each machine's /health says."""
        return {str(client.ask("GET", "/health").json["status"]) for client in self.direct(self.client)}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(servers.redis())
        database = stack.enter_context(servers.postgres())
        url, greetings = stack.enter_context(greeted())
        shared = {"REDIS_URL": redis.url, "DATABASE_URL": database.url, "MCP_HEARTBEAT_S": "1"}
        shared |= {"MCP_MAX_TOOL_RESPONSE_SIZE": str(LIMIT)}
        nodes = []
        for name in NAMES:
            folder = Path(tempfile.mkdtemp(prefix=f"node-{name}-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            (folder / "data").mkdir()
            nodes.append(Node(folder, remotes(url), **shared))
        gateway.manage(nodes[0].environment, "migrate")
        nginx = stack.enter_context(servers.nginx(lambda _, port: in_turns(port, [node.port for node in nodes])))
        found = World(nodes, nginx, redis, database, greetings)
        for node in nodes:
            stack.callback(node.stop)
        with ThreadPoolExecutor() as pool:
            list(pool.map(Node.start, nodes))
        until(lambda: set(machines(found)) == {2}, "both know each other")
        until(lambda: reached(found), "every worker has listed every remote", within_s=60)
        found.began = time.monotonic()
        yield found


def remotes(url: str) -> dict[str, Any]:
    def asks(name: str, era: str) -> dict[str, Any]:
        return {"command": sys.executable, "args": [asking.PEER, "--name", name, "--era", era], "timeout": 20}

    return {
        "demo": DEMO,
        "io": asks("io", "legacy"),
        "io_new": asks("io_new", "modern"),
        "said": {"command": sys.executable, "args": [saying_peer.__file__], "keep_cut_answers": 120},
        "greeted": {"url": url, "era": "2025-11-25", "probe_interval": PROBE_EVERY_S},
    }


def reached(world: World) -> bool:
    return {one["status"] for status in statuses(world) for one in status["mcps"].values()} == {"healthy"}


def machines(world: World) -> list[int]:
    return [status["cluster"]["nodes"] for status in statuses(world)]


def echoes(opened: Session | Relay) -> None:
    for number in range(8):
        answer = opened.call("tools/call", {"name": "demo__echo", "arguments": {"text": f"n{number}"}}, id=number + 10)
        result = answer["result"] if isinstance(answer, dict) else answer.result
        assert result["content"][0]["text"] == f"n{number}"


def test_sessions_of_every_era_are_served_wherever_their_requests_come(world: World) -> None:
    opened = world.client.session()
    echoes(opened)
    with opened.stream() as stream, world.client.relay() as relay:
        assert stream.status == 200
        echoes(relay.opened())
        echoes(opened)
    for _ in range(8):
        assert world.client.modern("tools/call", {"name": "demo__echo", "arguments": {"text": "x"}}).status == 200
    assert opened.delete().status == 204
    assert {opened.call("tools/list").status for _ in range(4)} == {404}


@pytest.mark.parametrize("remote", ["io", "io_new"])
@pytest.mark.parametrize("kind", asking.KINDS)
def test_questions_are_asked_and_answered_over_whichever_machine_the_next_request_comes(
    world: World, kind: str, remote: str
) -> None:
    before = relayed(world)
    with contextlib.ExitStack() as stack:
        client = asking.KINDS[kind](world.client)
        if kind == "sse":
            stack.callback(client.close)
        plan = plan_of([form()], [form("Again?")])
        ended = client.run("tools/call", params_for("tools/call", remote, plan))
    assert (len(ended.asked), len(ended.replies)) == (2, 2)
    if (kind, remote) != ("modern", "io_new"):  # such a call needs nobody's memory
        assert relayed(world) > before


@pytest.mark.parametrize("era", ["modern", "2025-11-25", "sse"])
def test_the_rest_of_a_cut_answer_is_read_over_whichever_machine_the_request_comes(world: World, era: str) -> None:
    words = saying_peer.LONG
    call = {"name": "said__say", "arguments": {"result": {"content": [{"type": "text", "text": words}]}}}
    with contextlib.ExitStack() as stack:
        ask = asked_as(era, world, stack)
        beginning, notice, *_ = ask("tools/call", call)["content"]
        uri = notice["text"].removesuffix("]").rpartition(" ")[2]
        for _ in range(3):
            (rest,) = ask("resources/read", {"uri": uri})["contents"]
            assert beginning["text"] + rest["text"] == words


def asked_as(era: str, world: World, stack: contextlib.ExitStack) -> Callable[[str, Any], Any]:
    """How a client of this era asks for a result."""
    if era == "modern":
        return lambda method, params: world.client.modern(method, params).result
    if era == "sse":
        relay = stack.enter_context(world.client.relay()).opened()
        return lambda method, params: relay.call(method, params)["result"]
    opened = world.client.session(era)
    return lambda method, params: opened.call(method, params).result


def test_a_stream_that_was_lost_is_read_on_over_the_other_machine(world: World) -> None:
    opened = world.client.session()
    slow = {"name": "demo__slow", "arguments": {"seconds": 1, "steps": 3}, "_meta": {"progressToken": "p"}}
    with world.client.stream("POST", "/mcp", message("tools/call", slow, id=7), opened.headers) as stream:
        last, _ = next_event(stream)
    before = relayed(world)
    head = [world.client.bearer, ("Accept", "text/event-stream"), ("Mcp-Session-Id", opened.id)]
    with world.client.stream("GET", "/mcp", None, [*head, ("Last-Event-ID", last)]) as stream:
        rest = [next_event(stream)[1] for _ in range(3)]
    assert [one.get("params", {}).get("progress") for one in rest] == [2, 3, None]
    assert rest[-1]["id"] == 7
    assert relayed(world) > before


def next_event(stream: Stream) -> tuple[str, Any]:
    """Id and message of the next event that has one."""
    id = ""
    while raw := stream.line():
        name, _, value = raw.decode().rstrip("\n").partition(": ")
        if name == "id":
            id = value
        elif name == "data" and value:
            return id, json.loads(value)
    raise AssertionError("the stream ended")


def test_a_call_is_cancelled_from_the_other_machine(world: World) -> None:
    opened = world.client.session()
    slow = opened.begin("tools/call", {"name": "demo__slow", "arguments": {"seconds": 20, "steps": 20}}, id=7)
    began = time.monotonic()
    until(lambda: any(status["in_flight"] for status in statuses(world)))
    assert opened.tell("notifications/cancelled", {"requestId": 7}).status == 202
    slow.getresponse().read()
    slow.close()
    assert time.monotonic() - began < 10


@pytest.mark.edge(3)
def test_of_forty_streams_opened_at_once_over_two_machines_a_key_gets_exactly_ten(world: World) -> None:
    other = world.generate("other")
    is_known(world, other)
    until(lambda: sum(active(world)) == 0)
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(40) as pool:
            opened = list(pool.map(lambda number: opening(world.client, number), range(40)))
        for stream in opened:
            stack.callback(stream.close)
        served = [stream for stream in opened if stream.status == 200]
        refused = [stream for stream in opened if stream.status != 200]
        assert (len(served), {stream.status for stream in refused}) == (10, {429})
        assert all(stream.headers["retry-after"] == "5" for stream in refused)
        assert min(sum(active(world)[:2]), sum(active(world)[2:])) > 0, "both machines have some"
        for number in range(10):
            stream = opening(other, number)
            stack.callback(stream.close)
            assert stream.status == 200, "another key has its own ten"
        served[0].close()
        fresh = until(lambda: one if (one := opening(world.client, 0)).status == 200 else one.close(), within_s=10)
        stack.callback(fresh.close)
    until(lambda: sum(active(world)) == 0, within_s=10)


def opening(client: Client, number: int) -> Stream:
    """A stream of the first transport or of the newest, in turns."""
    if number % 2:
        return client.modern_stream("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    return client.stream("GET", "/sse", None, [client.bearer, ("Accept", "text/event-stream")])


def test_a_rate_is_one_count_for_all_machines_told_with_every_answer(world: World) -> None:
    client = world.generate("counted", "--rate", "30")
    is_known(world, client)
    assert [left(each) for each in (*world.direct(client), client)] == [29, 28, 27]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: client.modern("tools/list"), range(60)))
    refused = [reply for reply in replies if reply.status != 200]
    assert (len(replies) - len(refused), {reply.status for reply in refused}) == (27, {429})
    assert all(1 <= int(reply.headers["retry-after"]) <= 60 for reply in refused)
    assert [left(each) for each in world.direct(client)] == [0, 0]


def left(client: Client) -> int:
    """What RateLimit says after one more request."""
    told = client.modern("tools/list").headers["ratelimit"]
    return int(told.partition("r=")[2].partition(";")[0])


def is_known(world: World, client: Client) -> None:
    """Every worker knows this key; nothing of that is counted."""
    head = [client.bearer, ("Accept", "text/event-stream")]
    callers = world.direct(client) * 6
    until(lambda: 401 not in {each.ask("GET", "/mcp", None, head).status for each in callers}, within_s=10)


@pytest.mark.edge(5)
def test_a_key_that_is_revoked_on_one_machine_is_refused_on_the_other(world: World) -> None:
    key = str(world.manage("mcpkey", "generate", "brief", on=0)["key"])
    there = Client(world.nodes[1].port, key)

    def answers() -> set[int]:
        """What the workers of that machine say: so many connections come to each of them."""
        return {there.modern("tools/list").status for _ in range(12)}

    until(lambda: answers() == {200}, within_s=5)
    stream = there.relay().stream
    assert world.manage("mcpkey", "revoke", "brief", on=0)["ok"]
    until(lambda: answers() == {401}, within_s=5)
    stream.rest()
    stream.close()


def test_a_configuration_applied_on_one_machine_reaches_the_other_and_its_streams(world: World) -> None:
    there = Client(world.nodes[1].port, world.client.key)
    with there.session().stream() as stream:
        configure(world, configured(world) | {"late": DEMO})
        assert stream.message(15)["method"].endswith("list_changed")

    def names() -> set[str]:
        listed = there.modern("tools/list").result["tools"]
        return {tool["name"].partition("__")[0] for tool in listed}

    until(lambda: "late" in names(), within_s=15)
    until(lambda: "late" in (world.nodes[1].folder / "mcp-config.yaml").read_text(), within_s=15)


def test_what_happens_on_one_machine_is_shown_on_each(world: World) -> None:
    """A revision, calls, a circuit that opens and is reset, a probe's result."""
    with contextlib.ExitStack() as stack:
        background = faulty.Background()
        stack.callback(background.stop)
        odd = faulty.Peer(background, "modern")
        stack.callback(odd.stop)
        entry = odd.entry | {"probe_interval": 1, "breaker": {"open": 300}}
        before = world.manage("mcpstatus", on=1)["config"]["revision"]
        remotes = configured(world)
        configure(world, remotes | {"odd": entry})
        until(lambda: {one["config"]["revision"] for one in shown(world).values()} == {before + 1}, within_s=15)
        until(lambda: of_remote(world, "odd", "status") == ["healthy", "healthy"], within_s=15)

        there = Client(world.nodes[1].port, world.client.key)
        odd.be("500")
        for _ in range(12):
            there.modern("tools/call", {"name": "odd__echo", "arguments": {}})
        until(lambda: circuits(world) == ["open", "open"], within_s=15)
        assert sum(of_remote(world, "odd", "calls")) == world.manage("mcpstatus")["mcps"]["odd"]["calls"] == 12
        assert {counted(there, "odd") for _ in range(8)} == {12}, "whichever of the workers is asked"
        odd.be("")
        assert world.manage("mcp", "remote", "reset", "odd", on=0)["ok"]
        until(lambda: circuits(world) == ["closed", "closed"], within_s=15)
        until(lambda: of_remote(world, "odd", "status") == ["healthy", "healthy"], within_s=15)

        odd.stop()  # idle: nothing but a probe finds out
        until(lambda: of_remote(world, "odd", "status") == ["unhealthy", "unhealthy"], within_s=25)
    configure(world, remotes)


def configured(world: World) -> dict[str, Any]:
    """The remotes in the first machine's file."""
    entries: dict[str, Any] = json.loads((world.nodes[0].folder / "mcp-config.yaml").read_text())["mcpServers"]
    return entries


def configure(world: World, entries: dict[str, Any]) -> None:
    """Save that file as an editor does."""
    path = world.nodes[0].folder / "mcp-config.yaml"
    path.with_suffix(".new").write_text(gateway.configuration(entries))
    path.with_suffix(".new").replace(path)


@pytest.mark.edge(19)
def test_redis_goes_and_comes_back_under_load(world: World) -> None:
    hasty = world.generate("hasty", "--rate", "100000")
    is_known(world, hasty)
    until(lambda: world.words() == {"healthy"}, within_s=60)
    with load(lambda: modern(world.client), lambda: modern(hasty), lambda: session(hasty)) as calls:
        calls.goes_on()
        world.redis.kill()
        until(lambda: redis(world) == {"down"}, within_s=30)
        until(lambda: world.words() == {"degraded"}, within_s=60)
        calls.goes_on()
        world.redis.start()
        until(lambda: redis(world) == {"ok"}, within_s=60)
        until(lambda: world.words() == {"healthy"}, within_s=60)
        until(lambda: set(machines(world)) == {2}, within_s=30)
        calls.goes_on()
    assert calls.failures == []
    assert sum(status["cluster"]["requests_counted_alone"] for status in statuses(world)) > 0
    here, there = (left(each) for each in world.direct(hasty))
    assert here == there + 1, "one count again"


@pytest.mark.edge(19)
def test_a_machine_that_starts_without_redis_serves_what_needs_no_other(world: World) -> None:
    """And that starts before its database does, which it cannot do without: that is waited for."""
    world.redis.kill()
    world.database.kill()
    world.nodes[0].stop()
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(world.nodes[0].start)
        world.database.start()
        starting.result()
    assert world.nodes[0].took_s < 20
    here, there = world.direct(world.client)
    opened = there.session()
    with there.relay() as relay:
        assert modern(here)() is None
        assert Session(here, opened.id, opened.greeting).call("ping").status == 200
        elsewhere = here.ask("POST", relay.address, message("ping", id=5), here.basics())
        assert elsewhere.error[:2] == (503, -32603)
        assert elsewhere.headers["retry-after"] == "5"
        assert relay.opened().call("ping", id=6)["result"] == {}
        world.redis.start()
        until(lambda: here.ask("POST", relay.address, message("ping", id=7), here.basics()).status == 202, within_s=60)
    until(lambda: world.words() == {"healthy"}, within_s=60)


@pytest.mark.edge(19)
def test_postgresql_goes_and_comes_back_under_load(world: World) -> None:
    with load(lambda: modern(world.client), lambda: session(world.client)) as calls:
        calls.goes_on()
        world.database.kill()
        until(lambda: world.words() == {"degraded"}, within_s=60)
        calls.goes_on()
        world.database.start()
        until(lambda: world.words() == {"healthy"}, within_s=60)
        calls.goes_on()
    assert calls.failures == []


def test_one_machine_dies_and_its_sessions_are_taken_over(world: World) -> None:
    """It leaves one machine."""
    opened = [world.client.session() for _ in range(4)]
    for each in opened:
        echoes(each)
    with load(lambda: modern(Client(world.nodes[0].port, world.client.key)), lambda: session(world.client)) as calls:
        calls.goes_on()
        world.nodes[1].die()
        world.ended = time.monotonic()
        calls.goes_on(40)
    assert len(calls.failures) <= 4, "what was in flight there, and nothing else"
    for each in opened:
        until(lambda each=each: each.call("ping").status == 200, within_s=20)  # type: ignore[misc]
        echoes(each)
    gone = until(lambda: [one for one in shown(world).values() if not one["reachable"]], within_s=30)
    assert [(one["status"], one["local"]) for one in gone] == [("unreachable", False)]
    assert gone[0]["age_s"] > 10
    assert "node_unreachable" in [one["code"] for one in world.manage("mcpstatus")["warnings"]]


def shown(world: World) -> dict[str, dict[str, Any]]:
    """Each machine, as the first one's `mcpstatus` shows it."""
    nodes: dict[str, dict[str, Any]] = world.manage("mcpstatus")["nodes"]
    assert len(nodes) == 2, nodes
    return nodes


def counted(client: Client, remote: str) -> int:
    """The calls of a remote on /metrics, refused ones too."""
    text = client.ask("GET", "/metrics").body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    calls = [one.value for one in samples if one.name == "mcp_tool_calls_total" and one.labels["remote"] == remote]
    return int(sum(calls))


def of_remote(world: World, name: str, what: str) -> list[Any]:
    return [node["mcps"].get(name, {}).get(what) for node in shown(world).values()]


def circuits(world: World) -> list[str]:
    return [(one or {}).get("state", "none") for one in of_remote(world, "odd", "circuit")]


def test_a_remote_is_probed_as_often_by_two_machines_as_by_one(world: World) -> None:
    """The last of this file: all the others were the time in which two machines probed."""
    until(lambda: len(since(world, world.ended)) >= 3, within_s=60)
    alone = since(world, world.ended)
    together = [at for at in world.greetings if world.began < at < world.ended]
    assert len(together) <= (world.ended - world.began) / (0.9 * PROBE_EVERY_S) + 2
    assert len(alone) <= (alone[-1] - world.ended) / (0.9 * PROBE_EVERY_S) + 2, "the control: one probes so often"
    assert len(together) >= 3


def since(world: World, when: float) -> list[float]:
    return [at for at in world.greetings if at > when]


def active(world: World) -> list[int]:
    return [status["connections"]["active"] for status in statuses(world)]


def redis(world: World) -> set[str]:
    return {status["cluster"]["redis"] for status in statuses(world)}


def relayed(world: World) -> float:
    """Requests that one machine sent on to the other."""
    pages = [client.ask("GET", "/metrics").body.decode() for client in world.direct(world.client)]
    lines = (line for page in pages for line in page.splitlines())
    return sum(float(line.split()[-1]) for line in lines if line.startswith('mcp_relayed_total{to="machine"}'))


def statuses(world: World) -> list[dict[str, Any]]:
    """What each worker of both machines says of itself."""
    folders = [Path(node.environment["MCP_RUN_DIR"]) for node in world.nodes]
    return [control.ask(folder / f"gateway-{number}.sock", {"op": "status"}) for folder in folders for number in (0, 1)]
