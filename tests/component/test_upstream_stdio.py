"""Remotes that are processes and misbehave: what their callers get, and that no process of theirs outlives us."""

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import uvloop
from msgspec import Raw

from mcpserver.lib import tether
from remotes.upstream import stdio
from remotes.upstream.budget import Budget
from remotes.upstream.client import Upstream
from remotes.upstream.duplex import Duplex
from remotes.upstream.outcome import Answer, Fault, Refusal
from remotes.upstream.record import Places
from tests.component.upstreams import MODERN, call, process, upstream

# What every script begins with: `serve` answers the handshake and hands each call to `on_call`; `note` writes to a journal.
PRELUDE = """
import json, os, signal, subprocess, sys, time
def say(message): sys.stdout.write(json.dumps(message) + "\\n"); sys.stdout.flush()
def note(word):
    with open(os.environ["JOURNAL"], "a") as file: file.write(str(word) + "\\n")
def result(message, value): say({"jsonrpc": "2.0", "id": message["id"], "result": value})
def refuse(message): say({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "unknown method"}})
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "p", "version": "1"}}
def serve(on_call):
    for line in sys.stdin:
        message = json.loads(line)
        note(message.get("method", "answer"))
        if message.get("method") == "initialize": result(message, HELLO)
        elif message.get("method") == "tools/call": on_call(message)
        elif "id" in message and "method" in message: refuse(message)
note("start %d" % os.getpid())
"""
IMMORTAL = (
    "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; print(1, flush=True); time.sleep(60)"
)


def on_uvloop(test):
    """The gateway runs on uvloop, whose processes and pipes are not those of asyncio."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        return uvloop.run(test(*args, **kwargs))

    return run


class Remote:
    """A script, its journal, and the specification that starts it."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "journal"

    def spec(self, code: str, **changed):
        self.journal.touch()
        env = {"JOURNAL": str(self.journal)} | changed.pop("env", {})
        return process(PRELUDE + code, env=env, **changed)

    def lines(self) -> list[str]:
        return self.journal.read_text().split("\n")[:-1]

    def count(self, word: str) -> int:
        return self.lines().count(word)

    def pids(self) -> list[int]:
        return [int(line.split()[1]) for line in self.lines() if line.startswith(("start ", "child "))]

    async def until(self, word: str, times: int = 1, seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while self.count(word) < times:
                await asyncio.sleep(0.01)

    async def until_dead(self, seconds: float = 3) -> None:
        async with asyncio.timeout(seconds):
            while any(alive(pid) for pid in self.pids()):
                await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


async def channel(one: Upstream) -> Duplex:
    """The open channel, whatever state its process is in."""
    connection = await one.connected(asyncio.get_running_loop().time() + 1)
    assert isinstance(connection, Duplex)
    return connection


def unread(open_channel: Duplex) -> int:
    """Bytes on their way to a process that has not read them."""
    wire = open_channel._wire
    assert isinstance(wire, stdio.StdioWire)
    assert wire._process.stdin is not None
    return int(wire._process.stdin.transport.get_write_buffer_size())


@pytest.fixture
def remote(tmp_path):
    return Remote(tmp_path)


@pytest.fixture
def hasty(monkeypatch):
    """Manners take less time here; the steps are the same."""
    monkeypatch.setattr("remotes.upstream.stdio._EXIT_GRACE_S", 0.3)


@pytest.fixture
def forgiving(monkeypatch):
    """Every process counts as one that has proven itself."""
    monkeypatch.setattr("remotes.upstream.record.FORGIVEN_AFTER_S", 0.0)


@pytest.mark.parametrize("era", ["auto", "2025-11-25", MODERN])
@on_uvloop
async def test_a_command_that_does_not_exist_was_provably_never_sent_anything(remote, era):
    spec = remote.spec("", command="/nonexistent/server", args=(), era=era)
    async with upstream(spec) as one:
        outcome = await call(one, seconds=20)
        assert (outcome.fault, outcome.phase) == (Fault.NOT_SENT, "spawn"), "and no timeout"
        assert outcome.message == "cannot start remote", "callers are told no path of this machine"
        assert "No such file" in outcome.told


@on_uvloop
async def test_a_folder_that_does_not_exist_was_provably_never_sent_anything(remote):
    async with upstream(remote.spec("", cwd="/nonexistent")) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.phase) == (Fault.NOT_SENT, "spawn")


@pytest.mark.edge(1)
@pytest.mark.parametrize("era", ["auto", "2025-11-25"])
@on_uvloop
async def test_a_process_that_exits_at_once_is_a_failure_with_its_code_and_last_words(remote, era):
    async with upstream(remote.spec("sys.exit('no licence\\x1b[31m')", era=era)) as one:
        outcome = await call(one, seconds=20)
        assert (outcome.fault, outcome.message) == (Fault.BROKEN, "the process of remote ended with exit code 1")
        assert outcome.told == "the process of remote ended with exit code 1: no licence\\x1b[31m"


@pytest.mark.edge(1)
@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), 9)", "os.close(1); time.sleep(60)"])
@on_uvloop
async def test_a_process_that_ends_in_mid_call_fails_it_and_the_next_call_meets_a_new_one(remote, hasty, end):
    code = f"""
def on_call(message):
    if os.environ["JOURNAL"] and open(os.environ["JOURNAL"]).read().count("tools/call") == 1: {end}
    result(message, {{"content": []}})
serve(on_call)
"""
    async with upstream(remote.spec(code)) as one:
        assert (await call(one, seconds=20)).fault is Fault.BROKEN, "and no timeout"
        assert remote.count("tools/call") == 1, "not repeated: it may have been executed"
        assert isinstance(await call(one), Answer)
        assert remote.count("initialize") == 2
    await remote.until_dead()


@pytest.mark.edge(1)
@on_uvloop
async def test_every_call_in_flight_fails_when_the_process_dies(remote):
    code = """
def on_call(message):
    if open(os.environ["JOURNAL"]).read().count("tools/call") == 5: os._exit(0)
serve(on_call)
"""
    async with upstream(remote.spec(code)) as one:
        outcomes = await asyncio.wait_for(asyncio.gather(*(call(one, seconds=40) for _ in range(5))), 20)
        assert {outcome.fault for outcome in outcomes} == {Fault.BROKEN}
        assert one.in_flight == 0


@pytest.mark.edge(16)
@on_uvloop
async def test_garbage_on_stdout_takes_nobody_away_and_floods_no_log(remote, caplog):
    code = """
def on_call(message):
    for n in range(500): print("debug: still here", n)
    sys.stdout.buffer.write(b"\\xff\\xfe\\n{oops\\n[]\\n\\n{}\\n" + b'{"jsonrpc":"2.0","id":' + b"1" * 5000 + b',"result":{}}\\n')
    sys.stdout.flush()
    result(message, {"content": []})
serve(on_call)
"""
    with caplog.at_level(logging.INFO, "mcp.upstream"):
        async with upstream(remote.spec(code)) as one:
            assert isinstance(await call(one), Answer)
            assert isinstance(await call(one), Answer)
            assert remote.count("initialize") == 1
    assert 1 <= len([record for record in caplog.records if "no message" in record.getMessage()]) <= 80


@pytest.mark.edge(16)
@pytest.mark.parametrize(
    "answer",
    [
        '{"jsonrpc":"2.0","id":%d,"error":null}',
        '{"jsonrpc":"2.0","id":%d,"error":"boom"}',
        '{"jsonrpc":"2.0","id":%d,"error":{"message":"no code"}}',
    ],
)
@on_uvloop
async def test_an_error_that_is_none_is_an_invalid_answer(remote, answer):
    async with upstream(remote.spec(f"serve(lambda m: print({answer!r} % m['id'], flush=True))")) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.phase) == (Fault.INVALID, "answer")


@pytest.mark.edge(16)
@pytest.mark.parametrize(
    "line", ["not json", '{"jsonrpc":"2.0","id":99,"result":{}}', '{"jsonrpc":"2.0","id":"2","result":{}}']
)
@on_uvloop
async def test_an_answer_to_nobody_leaves_the_caller_to_its_deadline(remote, line):
    async with upstream(remote.spec(f"serve(lambda m: print({line!r}, flush=True))")) as one:
        await one.connected(asyncio.get_running_loop().time() + 20)
        assert (await call(one, seconds=0.4)).fault is Fault.TIMEOUT


@on_uvloop
async def test_what_is_no_message_is_counted_and_a_partial_line_is_none(remote):
    code = """
def on_call(message):
    sys.stdout.buffer.write(b"\\xff\\xfe\\n{oops\\n{}\\n" + bytes(range(11, 256)) + b"\\n")
    for id in (99, '"1"', -1, 1.5, "null", 10**30): print('{"jsonrpc":"2.0","id":%s,"result":{}}' % id)
    result(message, {"content": []})
    sys.stdout.write("half a li"); sys.stdout.flush()
serve(on_call)
"""
    async with upstream(remote.spec(code)) as one:
        assert isinstance(await call(one), Answer)
        assert (one.record.noise + one.record.strays, one.record.starts) == (10, 1)


@pytest.mark.edge(14)
@pytest.mark.parametrize(
    "answer",
    [
        '\'{"jsonrpc":"2.0","id":%d,"result":"%s"}\'',
        '\'{"result":"%2$s","jsonrpc":"2.0","id":%1$d}\'',
    ],
    ids=["id first", "id last"],
)
@on_uvloop
async def test_an_answer_over_the_cap_fails_its_own_call_and_no_other(remote, answer):
    answer = (
        answer.replace("%d", "%(id)d").replace("%s", "%(text)s").replace("%1$d", "%(id)d").replace("%2$s", "%(text)s")
    )
    code = f"""
late = []
def on_call(message):
    if message["params"]["arguments"] == {{}}: late.append(message); return
    print({answer} % {{"id": message["id"], "text": "x" * 600000}}, flush=True)
    result(late[0], {{"content": []}})
serve(on_call)
"""
    async with upstream(remote.spec(code)) as one:
        other = asyncio.create_task(call(one))
        await remote.until("tools/call")
        outcome = await call(one, params={"name": Raw(b'"echo"'), "arguments": Raw(b"[]")})
        assert outcome.fault is Fault.TOO_LARGE
        assert isinstance(await other, Answer)
        assert (one.record.too_large, len(remote.pids())) == (1, 1)


@pytest.mark.parametrize("babble", ["{}", '{"jsonrpc":"2.0","method":"notifications/x"}', "x" * 70_000])
@on_uvloop
async def test_one_that_babbles_without_end_slows_no_neighbour(remote, tmp_path, hasty, babble):
    loud = Remote(tmp_path / "loud")
    loud.journal.parent.mkdir()
    code = f"""
def on_call(message):
    while True: sys.stdout.write({babble!r} + chr(10))
serve(on_call)
"""
    async with upstream(loud.spec(code)) as noisy:
        assert isinstance(await call(noisy, method="completion/complete"), Refusal)
        async with upstream(remote.spec("serve(lambda message: result(message, {}))")) as quiet:
            flooding = asyncio.create_task(call(noisy, seconds=0.6))
            await loud.until("tools/call")
            while not flooding.done():
                assert isinstance(await call(quiet), Answer)
            assert (await flooding).fault is Fault.TIMEOUT


@pytest.mark.edge(1)
@on_uvloop
async def test_one_that_keeps_dying_is_started_again_after_a_growing_wait(remote, monkeypatch):
    monkeypatch.setattr("remotes.upstream.record.BACKOFF_FIRST_S", 0.3)
    async with upstream(remote.spec("sys.exit('no licence')")) as one:
        assert [(await call(one)).fault for _ in range(2)] == [Fault.BROKEN, Fault.BROKEN]
        refused = await call(one)
        assert (refused.fault, refused.phase, len(remote.pids())) == (Fault.NOT_SENT, "spawn", 2)
        assert refused.message == "remote keeps ending soon after it was started: it is started again in 1 s"
        assert refused.detail == "exit code 1: no licence"
        facts = one.record.facts(asyncio.get_running_loop().time())
        assert (facts["last_exit"], facts["last_words"], facts["deaths_in_a_row"]) == ("exit code 1", "no licence", 2)
        async with asyncio.timeout(3):
            while (await call(one)).fault is Fault.NOT_SENT:
                await asyncio.sleep(0.05)
        assert len(remote.pids()) == 3


@pytest.mark.edge(1)
@on_uvloop
async def test_an_exit_code_that_means_cannot_run_means_nothing_once_it_has_run(remote):
    async with upstream(remote.spec("serve(lambda message: os._exit(127))")) as one:
        assert (await call(one)).fault is Fault.BROKEN, "it may have been executed"


@on_uvloop
async def test_secrets_that_its_entry_gives_it_do_not_reach_the_log(remote, caplog):
    code = "sys.stderr.write('using ' + os.environ['SHOP_KEY'] + ' as key\\n'); serve(lambda m: result(m, {}))"
    with caplog.at_level(logging.INFO, "mcp.upstream"):
        async with upstream(remote.spec(code, env={"SHOP_KEY": "s3cr3t-value"})) as one:
            assert isinstance(await call(one), Answer)
    assert "remote: using [redacted] as key" in caplog.text
    assert "s3cr3t" not in caplog.text


@on_uvloop
async def test_no_more_processes_than_there_are_places(remote, hasty):
    places = Places(1)
    spec = remote.spec("serve(lambda message: result(message, {}))")
    first, second = (Upstream(spec, budget=Budget(8 * (1000), read_max_bytes=1000), places=places) for _ in range(2))
    try:
        assert isinstance(await call(first), Answer)
        refused = await call(second)
        assert (refused.fault, refused.phase, refused.retry_after_s) == (Fault.BUSY, "spawn", 1.0)
        await first.close()
        assert isinstance(await call(second), Answer)
    finally:
        await asyncio.gather(first.close(), second.close())
    assert places.taken == 0


@on_uvloop
async def test_a_grandchild_that_left_the_group_ends_with_the_process(remote, hasty):
    code = f"""
child = subprocess.Popen([sys.executable, "-c", {IMMORTAL!r}], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         start_new_session=True)
child.stdout.readline()
note("child %d" % child.pid)
serve(lambda message: result(message, {{"content": []}}))
"""
    async with upstream(remote.spec(code)) as one:
        assert isinstance(await call(one), Answer)
    await remote.until_dead(1)


@pytest.mark.edge(14)
@on_uvloop
async def test_a_line_without_an_end_ends_the_process(remote, hasty):
    code = """
def on_call(message):
    while True: sys.stdout.write("x" * 65536)
serve(on_call)
"""
    async with upstream(remote.spec(code)) as one:
        outcome = await call(one, seconds=5)
        assert outcome.fault is Fault.TOO_LARGE
        await remote.until_dead()


@on_uvloop
async def test_an_answer_at_the_cap_comes_whole(remote):
    async with upstream(remote.spec("serve(lambda m: result(m, {'a': 'x' * 200000}))")) as one:
        outcome = await call(one)
        assert json.loads(outcome.result) == {"a": "x" * 200_000}


@on_uvloop
async def test_a_flood_on_stderr_blocks_nobody_and_floods_no_log(remote, caplog):
    code = """
def on_call(message):
    for n in range(200): sys.stderr.write("noise " * 10000 + "\\n"); sys.stderr.write("a\\n" * 5000)
    result(message, {"content": []})
serve(on_call)
"""
    with caplog.at_level(logging.INFO, "mcp.upstream"):
        async with upstream(remote.spec(code)) as one:
            assert isinstance(await call(one, seconds=8), Answer)
    assert 1 <= len(caplog.records) <= 20 * 10
    assert all(len(record.getMessage()) < 700 for record in caplog.records)


@on_uvloop
async def test_a_process_that_ignores_every_kind_word_is_killed_with_its_children(remote, hasty):
    code = f"""
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {IMMORTAL!r}], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
child.stdout.readline()
note("child %d" % child.pid)
serve(lambda message: result(message, {{"content": []}}))
time.sleep(60)
"""
    async with upstream(remote.spec(code)) as one:
        assert isinstance(await call(one), Answer)
        assert len(remote.pids()) == 2
        assert all(alive(pid) for pid in remote.pids())
        started = time.monotonic()
        await one.close()
        assert time.monotonic() - started < 10, "not the child's minute"
        await remote.until_dead(1)


@on_uvloop
async def test_children_of_a_wrapper_that_ends_politely_end_with_it(remote, hasty):
    code = f"""
child = subprocess.Popen([sys.executable, "-c", {IMMORTAL!r}], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
child.stdout.readline()
note("child %d" % child.pid)
serve(lambda message: result(message, {{"content": []}}))
"""
    async with upstream(remote.spec(code)) as one:
        assert isinstance(await call(one), Answer)
    await remote.until_dead(1)


@on_uvloop
async def test_closing_while_a_process_is_being_greeted_leaves_no_process(remote, hasty):
    async with upstream(remote.spec("time.sleep(60)")) as one:
        waiting = asyncio.create_task(call(one, seconds=10))
        async with asyncio.timeout(3):
            while not remote.pids():
                await asyncio.sleep(0.01)
        await one.close()
        assert (await asyncio.wait_for(waiting, 2)).fault is Fault.NOT_SENT
    await remote.until_dead(1)


@pytest.mark.parametrize("era", ["auto", "2025-11-25"])
@on_uvloop
async def test_a_process_that_says_nothing_costs_its_caller_the_deadline_and_is_ended(remote, hasty, era):
    async with upstream(remote.spec("time.sleep(60)", era=era, connect_timeout_s=0.9)) as one:
        assert (await call(one, seconds=4)).fault is Fault.TIMEOUT
        await remote.until_dead(3)


@on_uvloop
async def test_the_environment_is_what_is_needed_and_what_is_configured(remote, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    assert "SECRET_KEY" in os.environ
    spec = remote.spec("serve(lambda m: result(m, dict(os.environ)))", env={"TOKEN": "t"})
    async with upstream(spec) as one:
        outcome = await call(one)
        seen = set(json.loads(outcome.result))
        allowed = {"HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"}
        assert {"TOKEN", "JOURNAL", "PATH"} <= seen <= allowed | {"TOKEN", "JOURNAL"}


@on_uvloop
async def test_a_process_inherits_no_descriptor_and_leads_a_group_of_its_own(remote):
    code = """
def on_call(message):
    files = []
    for number in range(3, 1000):
        try: files.append(os.readlink("/proc/self/fd/%d" % number))
        except OSError: pass
    result(message, {"files": files, "group": os.getpgid(0) == os.getpid(), "session": os.getsid(0) == os.getpid()})
serve(on_call)
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        async with upstream(remote.spec(code)) as one:
            said = json.loads((await call(one)).result)
            assert said == {"files": [], "group": True, "session": True}


@on_uvloop
async def test_a_process_heeds_the_interrupt_that_we_ignore(remote):
    code = """
def on_call(message):
    line = next(line for line in open("/proc/self/status") if line.startswith("SigIgn"))
    result(message, {"ignored": bool(int(line.split()[1], 16) & 1 << signal.SIGINT - 1)})
serve(on_call)
""".replace(
        "def on_call",
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL); signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\ndef on_call",
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        async with upstream(remote.spec(code)) as one:
            assert json.loads((await call(one)).result) == {"ignored": False}
    finally:
        signal.signal(signal.SIGINT, before)


@on_uvloop
async def test_a_message_smuggled_in_raw_line_ends_arrives_as_one(remote):
    smuggled = b'{"a":1,\r\n\n"b":\n{"jsonrpc":"2.0","id":77,"method":"tools/call","params":{}}\n}'
    params = {"name": Raw(b'"echo"'), "arguments": Raw(smuggled)}
    async with upstream(remote.spec("serve(lambda m: result(m, m['params']['arguments']))")) as one:
        outcome = await call(one, params=params)
        assert json.loads(outcome.result) == json.loads(smuggled)
        assert remote.count("tools/call") == 1


@on_uvloop
async def test_a_process_that_stops_reading_costs_its_callers_their_deadline_and_no_memory(remote, hasty):
    code = """
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize": result(message, HELLO)
    else: break
time.sleep(60)
"""
    big = {"name": Raw(b'"echo"'), "arguments": Raw(b'"' + b"x" * 500_000 + b'"')}
    async with upstream(remote.spec(code)) as one:
        for _ in range(3):
            await one.connected(asyncio.get_running_loop().time() + 20)
            outcomes = await asyncio.gather(*(call(one, seconds=0.3, params=big) for _ in range(8)))
            assert {outcome.fault for outcome in outcomes} == {Fault.TIMEOUT}
        assert unread(await channel(one)) < 9 * 500_000, "what a caller gave up on is not kept"


@on_uvloop
async def test_a_process_that_asks_without_end_and_never_reads_is_not_answered_without_bound(remote, hasty):
    code = """
def on_call(message):
    ping = '{"jsonrpc":"2.0","id":"%s","method":"ping"}\\n' % ("p" * 1000)
    for n in range(8000): sys.stdout.write(ping)
    result(message, {"content": []})
    time.sleep(60)
serve(on_call)
"""
    async with upstream(remote.spec(code)) as one:
        assert isinstance(await call(one, seconds=8), Answer)
        assert unread(await channel(one)) < 1_000_000
        assert len((await channel(one))._tasks) <= 64


@pytest.mark.edge(15)
@on_uvloop
async def test_a_timeout_and_a_caller_that_leaves_are_told_by_notification(remote):
    async with upstream(remote.spec("serve(lambda message: None)")) as one:
        await one.connected(asyncio.get_running_loop().time() + 20)  # to be started is not what takes too long
        assert (await call(one, seconds=0.3)).fault is Fault.TIMEOUT
        await remote.until("notifications/cancelled")
        leaving = asyncio.create_task(call(one))
        await remote.until("tools/call", 2)
        leaving.cancel()
        await remote.until("notifications/cancelled", 2)


@on_uvloop
async def test_callers_that_come_together_share_one_process(remote):
    async with upstream(remote.spec("serve(lambda message: result(message, {}))")) as one:
        outcomes = await asyncio.gather(*(call(one) for _ in range(20)))
        assert all(isinstance(outcome, Answer) for outcome in outcomes)
        assert (len(remote.pids()), remote.count("initialize"), remote.count("tools/call")) == (1, 1, 20)


@on_uvloop
async def test_a_modern_process_is_asked_once_and_not_initialised(remote):
    code = """
for line in sys.stdin:
    message = json.loads(line)
    note(message["method"])
    if message["method"] == "server/discover":
        result(message, {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"})
    else:
        result(message, message["params"]["_meta"])
"""
    async with upstream(remote.spec(code, era="auto")) as one:
        outcome = await call(one)
        assert json.loads(outcome.result)["io.modelcontextprotocol/protocolVersion"] == MODERN
        assert remote.lines()[1:] == ["server/discover", "tools/call"]


@on_uvloop
async def test_a_process_that_knows_no_discovery_is_initialised_in_plain_words(remote):
    code = """
for line in sys.stdin:
    message = json.loads(line)
    note(message["method"])
    if message["method"] == "server/discover": refuse(message)
    elif message["method"] == "initialize": result(message, HELLO); note(json.dumps(sorted(message["params"])))
    elif "id" in message: result(message, {})
"""
    async with upstream(remote.spec(code, era="auto")) as one:
        assert await call(one) == Answer(b"{}", False)
        assert remote.lines()[1:4] == [
            "server/discover",
            "initialize",
            '["capabilities", "clientInfo", "protocolVersion"]',
        ]
        assert len(remote.pids()) == 1


@pytest.mark.parametrize("first", ["os._exit(1)", "time.sleep(60)"], ids=["dies", "says nothing"])
@on_uvloop
async def test_a_process_that_cannot_bear_the_question_is_started_again_and_initialised(remote, hasty, first):
    code = f"""
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "server/discover": {first}
    elif message["method"] == "initialize": result(message, HELLO)
    elif "id" in message: result(message, {{}})
"""
    async with upstream(remote.spec(code, era="auto", connect_timeout_s=3)) as one:
        assert isinstance(await call(one, seconds=4), Answer)
        assert len(remote.pids()) == 2
        assert alive(remote.pids()[1])
        assert not alive(remote.pids()[0])


@pytest.mark.parametrize("era", [MODERN, "2025-11-25"])
@on_uvloop
async def test_a_process_that_takes_its_time_to_start_is_not_started_anew(remote, era):
    code = f"""
time.sleep(0.6)
for line in sys.stdin:
    message = json.loads(line)
    note(message["method"])
    if message["method"] == "server/discover" and {era == MODERN}:
        result(message, {{"supportedVersions": ["{MODERN}"], "capabilities": {{}}, "resultType": "complete"}})
    elif message["method"] == "initialize" and not {era == MODERN}: result(message, HELLO)
    elif message["method"] == "tools/call": result(message, {{}})
    elif "id" in message: refuse(message)
"""
    async with upstream(remote.spec(code, era="auto", connect_timeout_s=1.5)) as one:
        assert isinstance(await call(one), Answer)
        assert one.greeting is not None
        assert (one.greeting.revision, len(remote.pids()), remote.count("initialize")) == (era, 1, 1)


@on_uvloop
async def test_a_remembered_modern_process_that_became_a_silent_one_is_found_out_with_the_next_call(remote, hasty):
    code = """
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "initialize": result(message, HELLO)
    elif message["method"] == "tools/call": result(message, {})
"""
    async with upstream(remote.spec(code, era="auto", connect_timeout_s=0.9), era=MODERN) as one:
        assert (await call(one, seconds=4)).fault is Fault.TIMEOUT
        assert isinstance(await call(one, seconds=4), Answer)


@on_uvloop
async def test_an_error_of_the_process_is_its_own_words(remote):
    async with upstream(remote.spec("serve(refuse)")) as one:
        assert await call(one) == Refusal(b'{"code": -32601, "message": "unknown method"}')


@on_uvloop
async def test_fifteen_restarts_leave_no_descriptor_behind(remote, forgiving):
    code = "serve(lambda message: os._exit(0))"
    async with upstream(remote.spec(code)) as one:
        await call(one)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(15):
            assert (await call(one)).fault is Fault.BROKEN
        assert len(os.listdir("/proc/self/fd")) <= before + 4
    await remote.until_dead()


def test_a_remote_dies_with_the_gateway_that_started_it(tmp_path):
    """The kernel tells it (PR_SET_PDEATHSIG): nobody of ours is left to do so."""
    code = f"""
import os, subprocess, sys
read, write = os.pipe()
tether = [sys.executable, "-I", "-S", {tether.__file__!r}, "--alone", str(os.getpid())]
sleeper = "import time; print(1, flush=True); time.sleep(60)"
child = subprocess.Popen([*tether, sys.executable, "-c", sleeper], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=10, check=False)
    child = int(done.stdout)
    deadline = time.monotonic() + 3
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)
