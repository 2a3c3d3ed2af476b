"""One process of a stdio remote, shared by workers: each `Upstream` here stands for one, with a berth in the same folder."""

import asyncio
import contextlib
import functools
import json
import os
import stat
from collections.abc import AsyncIterator

import pytest
import uvloop
from msgspec import Raw

from remotes.upstream.berth import Berth
from remotes.upstream.budget import Budget
from remotes.upstream.client import Upstream
from remotes.upstream.host import Host
from remotes.upstream.outcome import Answer, Fault
from tests.component.test_upstream_stdio import Remote, alive
from tests.component.upstreams import call

ECHO = "serve(lambda message: result(message, message['params']))"


@pytest.fixture
def remote(tmp_path):
    return Remote(tmp_path)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr("remotes.upstream.stdio._EXIT_GRACE_S", 0.3)


def on_uvloop(test):
    @functools.wraps(test)
    def run(*args, **kwargs):
        return uvloop.run(test(*args, **kwargs))

    return run


def worker(remote: Remote, code: str = ECHO, **options) -> Upstream:
    spec = remote.spec(code, era=options.pop("era", "2025-11-25"))
    berth = Berth(remote.journal.parent, spec.name, b"unit", max_bytes=1_000_000)
    return Upstream(spec, budget=Budget(8 * (1_000_000), read_max_bytes=1_000_000), berth=berth, **options)


@contextlib.asynccontextmanager
async def workers(remote: Remote, code: str = ECHO, count: int = 2, **options) -> AsyncIterator[list[Upstream]]:
    """The first runs the process, the others are served by it."""
    everyone = [worker(remote, code, **options) for _ in range(count)]
    try:
        for one in everyone:
            await one.connected(asyncio.get_running_loop().time() + 3)
        yield everyone
    finally:
        await asyncio.gather(*(one.close() for one in everyone))
    await remote.until_dead()
    assert not [path.name for path in remote.journal.parent.iterdir() if path.name.startswith("stdio-")]


LISTING = """
def on_call(message): result(message, message["params"])
for line in sys.stdin:
    message = json.loads(line)
    note(message.get("method", "answer"))
    if message.get("method") == "initialize": result(message, HELLO)
    elif "id" in message and "method" in message: on_call(message)
"""


@on_uvloop
async def test_siblings_share_one_process_that_is_greeted_once(remote):
    async with workers(remote, LISTING, count=3) as everyone:
        outcomes = await asyncio.gather(*(call(one) for one in everyone * 5))
        assert all(isinstance(outcome, Answer) for outcome in outcomes)
        assert (len(remote.pids()), remote.count("initialize"), remote.count("tools/call")) == (1, 1, 15)
        assert [one.is_elsewhere for one in everyone] == [False, True, True]
        assert everyone[1].greeting == everyone[0].greeting


@on_uvloop
async def test_workers_that_begin_together_start_one_process(remote):
    everyone = [worker(remote, LISTING) for _ in range(4)]
    try:
        outcomes = await asyncio.gather(*(call(one) for one in everyone))
        assert all(isinstance(outcome, Answer) for outcome in outcomes)
        assert len(remote.pids()) == 1
    finally:
        await asyncio.gather(*(one.close() for one in everyone))


@on_uvloop
async def test_a_payload_arrives_as_it_was_newlines_and_all(remote):
    smuggled = b'{"a":1,\n"b":\n{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{}}}'
    async with workers(remote, LISTING) as (_, guest):
        outcome = await call(guest, params={"name": Raw(b'"echo"'), "arguments": Raw(smuggled)})
        assert json.loads(outcome.result)["arguments"] == json.loads(smuggled)
        big = Raw(json.dumps("x" * 900_000).encode())
        assert len((await call(guest, params={"name": big})).result) > 900_000


@on_uvloop
async def test_progress_and_questions_reach_the_sibling_that_called(remote):
    code = LISTING.replace(
        'def on_call(message): result(message, message["params"])',
        """
def on_call(message):
    token = message["params"].get("_meta", {}).get("progressToken")
    say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
    say({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
    answer = json.loads(sys.stdin.readline())
    result(message, {"heard": answer.get("result")})
""",
    )
    told = []

    async def ask(method, params):
        return Answer(json.dumps({"roots": [], "asked": method}).encode(), False)

    async with workers(remote, code.replace('"id" in message', 'message.get("method") == "tools/call"')) as (_, guest):
        outcome = await call(
            guest,
            notify=lambda method, params: told.append((method, json.loads(params))),
            ask=ask,
            progress_token=Raw(b'"mine"'),
        )
        assert json.loads(outcome.result) == {"heard": {"roots": [], "asked": "roots/list"}}
        assert told == [("notifications/progress", {"progressToken": "mine", "progress": 1})]
        unasked = await call(guest)
        assert json.loads(unasked.result) == {"heard": None}, "nobody can be asked"


@pytest.mark.edge(15)
@on_uvloop
async def test_a_siblings_call_that_is_given_up_is_cancelled_at_the_remote(remote):
    async with workers(remote, LISTING.replace('result(message, message["params"])', "pass")) as (_, guest):
        assert (await call(guest, seconds=0.3)).fault is Fault.TIMEOUT
        await remote.until("notifications/cancelled")


@on_uvloop
async def test_one_limit_holds_for_all_siblings_together(remote):
    code = LISTING.replace(
        'result(message, message["params"])', 'None if message["method"] == "tools/call" else result(message, {})'
    )
    async with workers(remote, code, max_in_flight=3) as (owner, guest):
        open_calls = [asyncio.create_task(call(one, seconds=1)) for one in (owner, owner, guest)]
        await remote.until("tools/call", 3)
        assert (await call(guest)).fault is Fault.BUSY
        await asyncio.gather(*open_calls)
        assert remote.count("tools/call") == 3


@pytest.mark.edge(1)
@on_uvloop
async def test_a_process_that_dies_fails_every_siblings_call_and_the_next_one_works(remote):
    code = LISTING.replace(
        'result(message, message["params"])',
        """
    if message["method"] == "tools/call" and open(os.environ["JOURNAL"]).read().count("tools/call") == 2: os._exit(3)
    if message["method"] != "tools/call" or len(open(os.environ["JOURNAL"]).read().split("start")) > 2: result(message, {})
""",
    )
    async with workers(remote, code) as (owner, guest):
        outcomes = await asyncio.gather(call(owner), call(guest))
        assert {outcome.fault for outcome in outcomes} == {Fault.BROKEN}
        assert isinstance(await call(guest), Answer)
        assert isinstance(await call(owner), Answer)
        assert (len(remote.pids()), remote.count("tools/call")) == (2, 4)


@on_uvloop
async def test_who_cannot_start_says_so_to_all_and_waits_for_all(remote):
    everyone = [worker(remote, "sys.exit('no licence')") for _ in range(2)]
    try:
        outcomes = [await call(one) for one in everyone * 2]
        assert [outcome.message.split(" soon")[0] for outcome in outcomes[2:]] == ["remote keeps ending"] * 2
        assert "no licence" in outcomes[3].told
        assert len(remote.pids()) == 2
    finally:
        await asyncio.gather(*(one.close() for one in everyone))


@on_uvloop
async def test_a_worker_that_leaves_finishes_what_it_has_and_the_next_call_starts_anew_elsewhere(remote):
    code = LISTING.replace(
        'result(message, message["params"])', 'time.sleep(0.5 * ("slow" in str(message))); result(message, {})'
    )
    async with workers(remote, code) as (owner, guest):
        slow = asyncio.create_task(call(guest, params={"name": Raw(b'"slow"')}))
        await remote.until("tools/call")
        owner.leave()
        closing = asyncio.create_task(owner.close())
        async with asyncio.timeout(2):
            while guest._connection is not None and guest._connection.usable:
                await asyncio.sleep(0.01)
        assert isinstance(await call(guest), Answer)
        assert not guest.is_elsewhere
        assert isinstance(await slow, Answer)
        await closing
        assert (len(remote.pids()), remote.count("tools/call")) == (2, 2)


@on_uvloop
async def test_closing_waits_for_no_sibling_that_still_waits_itself(remote):
    owner, guest = (worker(remote, "time.sleep(60)") for _ in range(2))
    waiting = [asyncio.create_task(call(one, seconds=6)) for one in (owner, guest)]
    async with asyncio.timeout(3):
        while not remote.pids() or owner._host is None or not owner._host._serving:
            await asyncio.sleep(0.01)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(guest.close(), owner.close())
    assert asyncio.get_running_loop().time() - began < 4
    assert {outcome.fault for outcome in await asyncio.gather(*waiting)} == {Fault.NOT_SENT}
    await remote.until_dead()


@on_uvloop
async def test_a_stream_of_changes_holds_no_worker_that_leaves(remote):
    code = """
for line in sys.stdin:
    message = json.loads(line)
    note(message["method"])
    if message["method"] == "server/discover":
        result(message, {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": True}}})
"""
    everyone = [worker(remote, code, era="auto", watches=True) for _ in range(2)]
    for one in everyone:
        await one.connected(asyncio.get_running_loop().time() + 3)
    await remote.until("subscriptions/listen", 2)
    async with asyncio.timeout(3):
        await everyone[0].close()
    await everyone[1].close()


@on_uvloop
async def test_a_change_that_the_remote_tells_of_is_told_to_all(remote):
    code = LISTING.replace(
        'result(message, message["params"])',
        'say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}); result(message, {})',
    )
    async with workers(remote, code) as (owner, guest):
        kinds: list[str] = []
        guest.on_change = kinds.append
        await call(owner)
        async with asyncio.timeout(2):
            while "tools" not in kinds:
                await asyncio.sleep(0.01)


@on_uvloop
async def test_a_subscription_ends_when_nobody_wants_it_any_more(remote):
    hello = 'HELLO["capabilities"] = {"resources": {"subscribe": True}}\n'
    async with workers(remote, hello + LISTING, watches=True) as (owner, guest):
        for one in (owner, guest):
            one.watch.want(frozenset({"file:///a"}))
            await one.watch.settled()
        owner.watch.want(frozenset())
        await owner.watch.settled()
        assert remote.count("resources/unsubscribe") == 0
        guest.watch.want(frozenset())
        await guest.watch.settled()
        assert (remote.count("resources/subscribe"), remote.count("resources/unsubscribe")) == (2, 1)


@on_uvloop
async def test_the_socket_and_the_lock_are_our_users_alone(remote):
    async with workers(remote, LISTING):
        files = [path for path in remote.journal.parent.iterdir() if path.name.startswith("stdio-")]
        assert sorted(path.suffix for path in files) == [".lock", ".sock"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@on_uvloop
async def test_garbage_on_the_socket_ends_its_link_and_disturbs_nobody(remote):
    async with workers(remote, LISTING) as (owner, guest):
        path = next(path for path in remote.journal.parent.iterdir() if path.suffix == ".sock")
        for words in (b"\xff" * 100, b"\x00\x00\x00\x05hello", b"", b"\x00\x00"):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(words)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 2)
            writer.close()
        assert isinstance(await call(guest), Answer)
        assert isinstance(await call(owner), Answer)


@on_uvloop
async def test_what_a_dead_owner_left_is_ended_before_another_is_started(remote):
    """The lock goes with the worker; the process it noted may be there still."""
    stubborn = "signal.signal(15, signal.SIG_IGN)\n" + LISTING
    first, second = worker(remote, stubborn), worker(remote, stubborn)
    try:
        assert isinstance(await call(first), Answer)
        assert first._berth is not None
        assert isinstance(first._host, Host)
        os.close(first._berth._held or 0)  # what the kernel does when a worker is killed
        first._berth._held = None
        await first._host.close()
        assert alive(remote.pids()[0])
        assert isinstance(await call(second), Answer)
        assert not alive(remote.pids()[0])
        assert alive(remote.pids()[1])
    finally:
        await asyncio.gather(first.close(), second.close())
