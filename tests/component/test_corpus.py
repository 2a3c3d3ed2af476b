"""Every file of tests/corpus, given to its decoder and sent by a real remote over each transport (tests/corpus/README.md)."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Raw

from mcpserver.protocol import jsonrpc, sse
from mcpserver.protocol.jsontext import one_line
from remotes.upstream import connection
from remotes.upstream.client import Upstream
from remotes.upstream.lines import Lines
from remotes.upstream.outcome import Answer, Failure, Fault, Outcome
from tests.component.upstreams import (
    SSE_HEAD,
    EventStream,
    Request,
    Script,
    Wire,
    call,
    http,
    legacy,
    modern,
    process,
    served,
    upstream,
)

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
# In order of arrival, each then once more as a good one.
GOOD = b'{"jsonrpc":"2.0","id":%ID%,"result":{"content":[],"good":true}}'


def files(folder: str) -> list[Path]:
    found = sorted((CORPUS / folder).iterdir())
    assert found
    return found


def filled(path: Path, id: object) -> bytes:
    return path.read_bytes().replace(b"%ID%", str(id).encode())


@pytest.mark.edge(16)
@pytest.mark.parametrize("folder", ["jsonrpc/refused", "jsonrpc/another-id", "jsonrpc/mended", "jsonrpc/kept"])
def test_the_codec_raises_malformed_or_returns_a_message(folder: str) -> None:
    for path in files(folder):
        raw = filled(path, 1)
        try:
            message = jsonrpc.decode(raw)
        except jsonrpc.Malformed:
            assert folder in ("jsonrpc/refused", "jsonrpc/another-id"), path.name
            continue
        assert folder != "jsonrpc/refused" or b'"error"' in raw, path.name
        assert isinstance(message, jsonrpc.Response), path.name
        assert message.mended == (folder == "jsonrpc/mended"), path.name


@pytest.mark.parametrize("folder", ["jsonrpc/refused", "jsonrpc/mended", "sse/before-the-answer"])
def test_the_splitter_yields_the_same_wherever_a_stream_is_cut(folder: str) -> None:
    for path in files(folder):
        raw = filled(path, 1)[:3000] + b"\n\ndata: end\n\n"
        whole = list(sse.Splitter(10_000).feed(raw))
        assert whole[-1].data == b"end", path.name
        for at in range(len(raw) if len(raw) < 300 else 50):
            splitter = sse.Splitter(10_000)
            assert [*splitter.feed(raw[:at]), *splitter.feed(raw[at:])] == whole, (path.name, at)


def test_lines_are_the_same_wherever_the_stream_is_cut() -> None:
    for path in files("stdio/before-the-answer"):
        raw = path.read_bytes()
        whole = Lines(10_000).feed(raw)
        for at in range(len(raw)):
            lines = Lines(10_000)
            assert [*lines.feed(raw[:at]), *lines.feed(raw[at:])] == whole, (path.name, at)


# What leaves no trace of the call it answers, and could be meant for none, is left to the call's deadline.
UNCLEAR = {"empty", "blank", "utf16", "a-number", "a-string", "a-list", "null", "no-version", "version-as-a-number"}
UNCLEAR |= {"doubled-id", "doubled-by-an-escape", "wrong-version", "result-and-method", "byte-order-mark"}


def patience(path: Path, way: str) -> float:
    """Seconds: no longer than need be for an answer that will not come."""
    is_waited_for = way in ("sse", "stdio") and (path.name in UNCLEAR or path.parent.name == "another-id")
    return 0.05 if is_waited_for or (way == "stdio" and not path.read_bytes().startswith(b'{"jsonrpc"')) else 3.0


class Sender:
    def __init__(self) -> None:
        self.next = GOOD

    def bytes_for(self, request: Request) -> bytes:
        return self.next.replace(b"%ID%", str(request.id).encode())


def as_json(sender: Sender) -> Script:
    async def answer(request: Request, wire: Wire) -> None:
        await wire.answer(sender.bytes_for(request))

    return modern({"tools/call": answer})


def as_session(sender: Sender) -> Script:
    async def answer(request: Request, wire: Wire) -> None:
        await wire.answer(sender.bytes_for(request))

    return legacy({"tools/call": answer})


def as_event(sender: Sender) -> Script:
    async def answer(request: Request, wire: Wire) -> None:
        data = one_line(sender.bytes_for(request))
        await wire.send(SSE_HEAD)
        await wire.chunk(b"data: " + data + b"\n\n")
        await wire.chunk(b"data: " + one_line(GOOD.replace(b"%ID%", b"77777")) + b"\n\n")
        await wire.until_gone()

    return modern({"tools/call": answer})


def down_the_stream(sender: Sender) -> Script:
    async def answer(stream: EventStream, request: Request) -> None:
        await stream.down(one_line(sender.bytes_for(request)))

    return EventStream({"tools/call": answer})


HTTP = {"json": as_json, "session": as_session, "event": as_event, "sse": down_the_stream}


async def through_http(way: str, folder: str, check: Callable[[Path, Outcome], None]) -> None:
    """Each file as the answer to one call, and a good call after each, on one connection to one remote."""
    sender = Sender()
    transport = {"transport": "sse"} if way == "sse" else {}
    async with served(HTTP[way](sender)) as server, upstream(http(server, **transport)) as one:
        for path in files(folder):
            sender.next = path.read_bytes()
            check(path, await call(one, seconds=patience(path, way)))
            sender.next = GOOD
            assert isinstance(await call(one), Answer), f"after {path.name}"


def refused(path: Path, outcome: Outcome) -> None:
    assert isinstance(outcome, Failure), path.name
    assert outcome.fault is Fault.INVALID, (path.name, outcome)
    assert len(outcome.excerpt) <= 4096


def not_delivered(path: Path, outcome: Outcome) -> None:
    assert isinstance(outcome, Failure), path.name
    assert outcome.fault in (Fault.INVALID, Fault.TIMEOUT), (path.name, outcome)


def mended(path: Path, outcome: Outcome) -> None:
    assert isinstance(outcome, Answer), (path.name, outcome)
    text = json.dumps(json.loads(outcome.result), ensure_ascii=False)
    assert "\ufffd" in text, path.name
    text.encode()


def kept(path: Path, outcome: Outcome) -> None:
    assert isinstance(outcome, Answer), (path.name, outcome)
    assert json.loads(outcome.result) == json.loads(filled(path, 1))["result"], path.name


@pytest.mark.edge(16)
@pytest.mark.parametrize("way", ["json", "session", "event"])
async def test_over_http_what_is_no_answer_fails_its_call_and_no_other(way: str) -> None:
    await through_http(way, "jsonrpc/refused", refused)
    await through_http(way, "jsonrpc/another-id", not_delivered)


@pytest.mark.edge(16)
async def test_half_a_character_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    connection._mended_at.clear()
    await through_http("json", "jsonrpc/mended", mended)
    told = [record.getMessage() for record in caplog.records if "U+FFFD" in record.getMessage()]
    assert told == ["remote sends text that is cut inside a character; it is passed on with U+FFFD there"], "once"


@pytest.mark.edge(16)
@pytest.mark.parametrize("way", HTTP)
async def test_over_http_what_is_odd_and_right_is_passed_on(way: str) -> None:
    await through_http(way, "jsonrpc/mended", mended)
    await through_http(way, "jsonrpc/kept", kept)


def refused_or_unanswered(path: Path, outcome: Outcome) -> None:
    if isinstance(outcome, Failure) and outcome.fault is Fault.TIMEOUT:
        assert path.name in UNCLEAR, path.name
    else:
        refused(path, outcome)


@pytest.mark.edge(16)
async def test_down_an_event_stream_it_fails_its_call_and_no_other() -> None:
    await through_http("sse", "jsonrpc/refused", refused_or_unanswered)
    await through_http("sse", "jsonrpc/another-id", not_delivered)


def refused_or_printed(path: Path, outcome: Outcome) -> None:
    """On a program's stdout only what looks like a message can be meant as one."""
    if path.read_bytes().startswith(b'{"jsonrpc"'):
        refused_or_unanswered(path, outcome)
    else:
        assert isinstance(outcome, Failure), path.name


PROGRAM = """
import json, sys
out = sys.stdout.buffer
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        continue
    id = json.dumps(message["id"]).encode()
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
        out.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode() + b"\\n")
    else:
        path = message["params"]["arguments"]["file"]
        said = open(path, "rb").read() if path else b""
        if path and "before-the-answer" not in path:
            said = said.replace(b"%ID%", id).replace(b"\\r", b" ").replace(b"\\n", b" ") + b"\\n"
        else:
            said += b'{"jsonrpc":"2.0","id":' + id + b',"result":{"content":[],"good":true}}\\n'
        out.write(said)
    out.flush()
"""


async def say(one: Upstream, path: Path | None, seconds: float = 3.0) -> Outcome:
    arguments = Raw(json.dumps({"file": str(path) if path else ""}).encode())
    return await call(one, seconds=seconds, params={"name": Raw(b'"x"'), "arguments": arguments})


@pytest.mark.edge(16)
async def test_on_a_programs_stdout_it_fails_its_call_and_no_other() -> None:
    checks = {
        "jsonrpc/refused": refused_or_printed,
        "jsonrpc/another-id": not_delivered,
        "jsonrpc/mended": mended,
        "jsonrpc/kept": kept,
    }
    async with upstream(process(PROGRAM)) as one:
        assert isinstance(await say(one, None), Answer)
        for folder, check in checks.items():
            for path in files(folder):
                check(path, await say(one, path, patience(path, "stdio")))
                assert isinstance(await say(one, None), Answer), f"after {path.name}"


@pytest.mark.edge(16)
async def test_what_stands_before_an_answer_is_read_over() -> None:
    async with upstream(process(PROGRAM)) as one:
        for path in files("stdio/before-the-answer"):
            assert isinstance(await say(one, path), Answer), path.name
    sender = Sender()

    async def answer(request: Request, wire: Wire) -> None:
        good = GOOD.replace(b"%ID%", str(request.id).encode())
        await wire.send(SSE_HEAD)
        await wire.chunk(sender.next)
        await wire.chunk(b"\n\ndata: " + good + b"\n\n")

    async with served(modern({"tools/call": answer})) as server, upstream(http(server)) as one:
        for path in files("sse/before-the-answer"):
            sender.next = path.read_bytes()
            assert isinstance(await call(one), Answer), path.name
