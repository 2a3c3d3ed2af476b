"""The benchmark's own ends agree, and its client notices what is wrong. Correctness only: nothing here is timed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.bench.links import LINKS, Dialect, LinkError, Target
from tests.bench.load import Caller, Tally, Work, call_once, hold_streams
from tests.bench.processes import listen
from tests.bench.upstream import BIG_BYTES
from tests.bench.upstream import listen as serve_upstream
from tests.bench.wire import Events, Messages

TOOLS = 40
WORKS = [Work("echo"), Work("slow"), Work("big", answer_bytes=BIG_BYTES), Work(tools=TOOLS)]


@pytest.fixture
async def direct() -> AsyncIterator[Target]:
    with listen() as listener:
        server = await serve_upstream(listener)
        yield Target("direct", listener.getsockname()[1], folder=f"/{TOOLS}")
        server.close()


@pytest.mark.parametrize("dialect", list(LINKS))
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.tool or "list")
async def test_the_load_client_and_the_upstream_agree(direct: Target, dialect: Dialect, work: Work) -> None:
    assert await call_once(direct, dialect, work) == ""


@pytest.mark.parametrize("dialect", list(LINKS))
async def test_many_callers_each_get_their_own_answer(direct: Target, dialect: Dialect) -> None:
    links = [LINKS[dialect](direct) for _ in range(8)]
    await asyncio.gather(*(link.open() for link in links))
    tally = Tally(counting=True, stopping=True)
    callers = [Caller(link, Work("echo"), tally) for link in links]
    for caller in callers:
        caller.send()
    await asyncio.wait_for(asyncio.gather(*(caller.ended for caller in callers)), 10)
    for link in links:
        link.close()
    assert (len(tally.latencies), dict(tally.faults)) == (8, {})


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b'{"id":8,"result":{"content":[]}}', "the answer to another id"),
        (b'{"id":7,"result":{"content":[{"text":"8-xx"}]}}', "another text than was sent"),
        (b'{"id":7,"result":{"content":[{"text":"7-"}]}}', "another text than was sent"),
        (b'{"id":7,"result":{"content":[],"isError":true}}', "an error"),
        (b'{"id":7,"error":{"code":-32603,"message":"no"}}', "an error"),
        (b"<html>", "not an answer"),
    ],
)
def test_a_wrong_answer_is_noticed(answer: bytes, fault: str) -> None:
    assert Work("echo").fault(7, answer).startswith(fault)


def test_a_list_that_is_not_whole_is_noticed() -> None:
    assert Work(tools=3).fault(7, b'{"id":7,"result":{"tools":[{},{}]}}') == "2 tools listed, not 3"


async def test_a_refusal_is_noticed() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        target = Target("refusing", server.sockets[0].getsockname()[1])
        assert await call_once(target, "modern", Work("echo")) == "LinkError: HTTP 401 no"
        with pytest.raises(LinkError, match="HTTP 401"):
            await hold_streams(target, 1)


async def test_a_connection_that_is_closed_is_noticed() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        target = Target("closing", server.sockets[0].getsockname()[1])
        assert await call_once(target, "modern", Work("echo")) == "LinkError: the connection was closed"


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_responses_are_the_same_however_their_bytes_arrive(size: int) -> None:
    plain = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    data = plain + b"\r\nhello" + chunked + b"\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n" + plain + b"\r\nhello"
    assert _fed(Messages().feed, data, size) == [(plain, b"hello"), (chunked, b"hello"), (plain, b"hello")]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("chunk", [5, 1000])
def test_events_are_the_same_however_their_bytes_arrive(size: int, chunk: int) -> None:
    text = b"event: endpoint\r\ndata: /here\r\n\r\n: ping\n\nevent: message\ndata: {}\n\n"
    parts = [text[at : at + chunk] for at in range(0, len(text), chunk)]
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    stream += b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    assert _fed(Events().feed, stream, size) == [(b"endpoint", b"/here"), (b"", b""), (b"message", b"{}")]


def _fed(feed: Callable[[bytes], Iterator[tuple[bytes, bytes]]], data: bytes, size: int) -> list[tuple[bytes, bytes]]:
    return [found for at in range(0, len(data), size) for found in feed(data[at : at + size])]
