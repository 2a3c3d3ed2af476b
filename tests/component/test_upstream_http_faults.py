"""What a Streamable HTTP remote can do wrong once it is connected: the outcome, the time it takes, and who executed what."""

import asyncio
import gzip
import json
import time
import zlib

import pytest
from msgspec import Raw

from remotes.upstream.outcome import Answer, Failure, Fault, Refusal
from tests.component.upstreams import (
    CAP,
    SSE_HEAD,
    Request,
    Wire,
    body,
    call,
    http,
    legacy,
    modern,
    raw,
    reset,
    served,
    silence,
    status,
    upstream,
)

RESULT = b'{"jsonrpc":"2.0","id":%ID%,"result":{"content":[]}}'


async def outcome_of(answer, *, script=modern, seconds: float = 10.0, cap: int = CAP):
    """The outcome of one tools/call that `answer` answers; it reaches the remote exactly once."""
    async with served(script({"tools/call": answer})) as server, upstream(http(server), cap=cap) as one:
        outcome = await call(one, seconds=seconds)
        assert server.count("tools/call") == 1, "executed at most once"
        return outcome


FAULTS = {
    "reset": (reset, Fault.BROKEN),
    "closed without a byte": (raw(b"", close=True), Fault.BROKEN),
    "half a status line": (raw(b"HTTP/1.1 20", close=True), Fault.BROKEN),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", close=True), Fault.INVALID),
    "truncated body": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n" + RESULT, close=True),
        Fault.BROKEN,
    ),
    "truncated chunks": (
        raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", close=True
        ),
        Fault.BROKEN,
    ),
    "bad chunk": (
        raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", close=True
        ),
        Fault.INVALID,
    ),
    "not gzip": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope", close=True),
        Fault.INVALID,
    ),
    "a header without an end": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000, close=True), Fault.INVALID),
    "html": (body(b"<html>welcome</html>", kind="text/html"), Fault.INVALID),
    "nothing": (body(b""), Fault.INVALID),
    "no JSON-RPC": (body(b'{"hello":1}'), Fault.INVALID),
    "wrong version": (body(RESULT.replace(b"2.0", b"1.0")), Fault.INVALID),
    "wrong id": (body(RESULT.replace(b"%ID%", b"99")), Fault.INVALID),
    "id of another type": (body(RESULT.replace(b"%ID%", b'"%ID%"')), Fault.INVALID),
    "id of 5,000 digits": (body(RESULT.replace(b"%ID%", b"1" * 5000)), Fault.INVALID),
    "no id": (body(b'{"jsonrpc":"2.0","result":{}}'), Fault.INVALID),
    "both result and error": (
        body(b'{"jsonrpc":"2.0","id":%ID%,"result":{},"error":{"code":1,"message":"x"}}'),
        Fault.INVALID,
    ),
    "neither result nor error": (body(b'{"jsonrpc":"2.0","id":%ID%}'), Fault.INVALID),
    "null error": (body(b'{"jsonrpc":"2.0","id":%ID%,"error":null}'), Fault.INVALID),
    "an error that is a word": (body(b'{"jsonrpc":"2.0","id":%ID%,"error":"boom"}'), Fault.INVALID),
    "an error without a code": (body(b'{"jsonrpc":"2.0","id":%ID%,"error":{"message":"boom"}}'), Fault.INVALID),
    "an id twice": (body(b'{"jsonrpc":"2.0","id":%ID%,"id":%ID%,"result":{}}'), Fault.INVALID),
    "NaN": (body(b'{"jsonrpc":"2.0","id":%ID%,"result":{"a":NaN}}'), Fault.INVALID),
    "not UTF-8": (body(b'{"jsonrpc":"2.0","id":%ID%,"result":{"a":"\xff\xfe"}}'), Fault.INVALID),
    "overlong UTF-8": (body(b'{"jsonrpc":"2.0","id":%ID%,"result":{"a":"\xc0\xaf"}}'), Fault.INVALID),
    "a raw line end in a string": (body(b'{"jsonrpc":"2.0","id":%ID%,"result":{"a":"\n"}}'), Fault.INVALID),
    "nested without end": (body(b'{"jsonrpc":"2.0","id":%ID%,"result":' + b"[" * 50_000 + b"}"), Fault.INVALID),
    "a batch": (body(b"[" + RESULT + b"]"), Fault.INVALID),
    "a request": (body(b'{"jsonrpc":"2.0","id":%ID%,"method":"ping"}'), Fault.INVALID),
    "a body over the cap": (body(RESULT[:-3] + b',"x":"' + b"a" * (2 * CAP) + b'"}}'), Fault.TOO_LARGE),
    "a stream without an answer": (raw(SSE_HEAD + b"0\r\n\r\n"), Fault.BROKEN),
    "a stream that is cut": (raw(SSE_HEAD + b"9\r\ndata: {", close=True), Fault.BROKEN),
    "a stream of nonsense": (raw(SSE_HEAD + b"d\r\ndata: {oops\n\n\r\n"), Fault.INVALID),
    "a redirect": (status(307, headers="Location: /elsewhere\r\n"), Fault.HTTP_STATUS),
    "a redirect abroad": (status(302, headers="Location: http://127.0.0.1:9/\r\n"), Fault.HTTP_STATUS),
    "403": (status(403, b"no"), Fault.HTTP_STATUS),
    "429": (status(429, headers="Retry-After: 7\r\n"), Fault.HTTP_STATUS),
    "500": (status(500, b"oops"), Fault.HTTP_STATUS),
    "503 with a wait nobody can read": (status(503, headers="Retry-After: \u00b2\r\n"), Fault.HTTP_STATUS),
    "401": (status(401), Fault.UNAUTHORIZED),
}


@pytest.mark.edge(16)
@pytest.mark.parametrize("script", [modern, legacy])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_answer_is_a_failure_with_a_cause_at_once(fault, script):
    answer, expected = FAULTS[fault]
    outcome = await outcome_of(answer, script=script, seconds=20)
    assert isinstance(outcome, Failure), outcome
    assert outcome.fault is expected, outcome
    assert outcome.message.startswith(("remote", "the connection to remote"))
    assert len(outcome.excerpt) <= 4096


async def test_a_retry_after_is_kept_for_who_decides_on_it():
    assert (await outcome_of(status(429, headers="Retry-After: 7\r\n"))).retry_after_s == 7


@pytest.mark.edge(16)
async def test_one_broken_answer_leaves_the_connection_and_its_neighbours_as_they_were():
    async with served(modern({"prompts/get": body(b"nonsense")})) as server, upstream(http(server)) as one:
        outcomes = await asyncio.gather(*(call(one, method=m) for m in ["tools/call", "prompts/get", "tools/call"]))
        assert [isinstance(outcome, Answer) for outcome in outcomes] == [True, False, True]
        assert server.count("server/discover") == 1


async def drip(request: Request, wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        await wire.send(b" ")
        await asyncio.sleep(0.05)


async def heartbeats(request: Request, wire: Wire) -> None:
    await wire.send(SSE_HEAD)
    for _ in range(200):
        await wire.chunk(b": still here\n\n")
        await asyncio.sleep(0.05)


async def progress(request: Request, wire: Wire) -> None:
    await wire.send(SSE_HEAD)
    for number in range(200):
        params = {"progressToken": request.id, "progress": number}
        await wire.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        await asyncio.sleep(0.05)


async def hanging_body_of_an_error(request: Request, wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 500 X\r\nContent-Length: 1000\r\n\r\n")
    await wire.until_gone()


@pytest.mark.edge(1)
@pytest.mark.edge(15)
@pytest.mark.parametrize("answer", [silence, drip, heartbeats, progress])
@pytest.mark.parametrize("script", [modern, legacy])
async def test_nothing_that_a_remote_trickles_stretches_the_deadline(answer, script):
    outcome = await outcome_of(answer, script=script, seconds=0.6)  # which it does not overstay
    assert outcome.fault is Fault.TIMEOUT


async def test_an_error_status_whose_body_never_comes_is_reported_by_its_status():
    outcome = await outcome_of(hanging_body_of_an_error, seconds=4)
    assert (outcome.fault, outcome.status) == (Fault.HTTP_STATUS, 500)


@pytest.mark.parametrize("size", [10, 20_000])
async def test_an_error_of_the_remote_is_read_whole_however_its_packets_fall(size):
    async def in_pieces(request: Request, wire: Wire) -> None:
        text = json.dumps({"jsonrpc": "2.0", "id": request.id, "error": {"code": -32602, "message": "x" * size}})
        await wire.send(b"HTTP/1.1 400 X\r\nContent-Length: %d\r\n\r\n" % len(text), text[:9].encode())
        await asyncio.sleep(0.05)
        await wire.send(text[9:].encode())

    outcome = await outcome_of(in_pieces)
    assert isinstance(outcome, Refusal)
    assert json.loads(outcome.error)["message"] == "x" * size


@pytest.mark.edge(14)
@pytest.mark.parametrize("kind", ["gzip", "deflate"])
async def test_a_compressed_bomb_stops_at_the_cap_of_decompressed_bytes(kind):
    bomb = (gzip.compress if kind == "gzip" else zlib.compress)(b" " * (200 * 1024 * 1024), 9)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {kind}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    before, started = resident(), time.process_time()
    outcome = await outcome_of(raw(head, bomb), seconds=20)
    assert outcome.fault in (Fault.TOO_LARGE, Fault.INVALID)
    assert time.process_time() - started < 5
    assert resident() - before < 120 * 1024 * 1024


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def endless(request: Request, wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1000):
        await wire.chunk(b" " * 65536)


async def endless_line(request: Request, wire: Wire) -> None:
    await wire.send(SSE_HEAD)
    await wire.chunk(b"data: ")
    for _ in range(1000):
        await wire.chunk(b"a" * 65536)


async def endless_event(request: Request, wire: Wire) -> None:
    await wire.send(SSE_HEAD)
    for _ in range(1000):
        await wire.chunk(b"data: aaaaaaaa\n" * 4096)


@pytest.mark.edge(14)
@pytest.mark.parametrize("answer", [endless, endless_line, endless_event])
async def test_an_answer_without_end_stops_at_the_cap_and_its_connection_is_closed(answer):
    async with served(modern({"tools/call": answer})) as server, upstream(http(server)) as one:
        outcome = await call(one, seconds=5)
        assert outcome.fault is Fault.TOO_LARGE
        assert str(CAP) in outcome.message
        await server.until(lambda state: state.open <= 1)


async def test_carriage_returns_alone_do_not_stop_the_loop():
    async def returns(request: Request, wire: Wire) -> None:
        await wire.send(SSE_HEAD)
        for _ in range(8):
            await wire.chunk(b"\r" * 250_000)
        await wire.event({"jsonrpc": "2.0", "id": request.id, "result": {}})

    started = time.process_time()
    assert isinstance(await outcome_of(returns, seconds=20), Answer)
    assert time.process_time() - started < 2


async def test_an_answer_at_the_cap_comes_byte_for_byte():
    text = b'"' + "é".encode() * ((CAP - 100) // 2) + b'"'
    outcome = await outcome_of(body(b'{"jsonrpc":"2.0","id":%ID%,"result":{"a": ' + text + b"}}"))
    assert isinstance(outcome, Answer)
    assert outcome.result == b'{"a": ' + text + b"}"


async def test_what_follows_an_answer_on_its_stream_is_not_waited_for():
    async def chatty(request: Request, wire: Wire) -> None:
        await wire.send(SSE_HEAD)
        await wire.event(b"not for us", name="banner")
        await wire.event({"jsonrpc": "2.0", "id": request.id, "result": {"n": 1}})
        await wire.event({"jsonrpc": "2.0", "id": request.id, "result": {"n": 2}})
        await wire.until_gone()

    assert await outcome_of(chatty) == Answer(b'{"n": 1}', True), "and no timeout"


@pytest.mark.edge(15)
async def test_a_modern_remote_is_told_of_a_timeout_by_the_end_of_its_connection():
    async with served(modern({"tools/call": silence})) as server, upstream(http(server)) as one:
        assert (await call(one, seconds=0.3)).fault is Fault.TIMEOUT
        await server.until(lambda state: state.open <= 1, 2)
        assert "notifications/cancelled" not in server.calls()


@pytest.mark.edge(15)
async def test_a_legacy_remote_is_told_of_a_timeout_and_of_a_caller_that_left():
    async with served(legacy({"tools/call": silence})) as server, upstream(http(server)) as one:
        assert (await call(one, seconds=0.3)).fault is Fault.TIMEOUT
        await server.until(lambda state: state.count("notifications/cancelled") == 1)
        leaving = asyncio.create_task(call(one))
        await server.until(lambda state: state.count("tools/call") == 2)
        leaving.cancel()
        await server.until(lambda state: state.count("notifications/cancelled") == 2)
        ids = [request.id for request in server.arrived if request.call == "tools/call"]
        told = [r.json["params"]["requestId"] for r in server.arrived if r.call == "notifications/cancelled"]
        assert told == ids


async def test_a_remote_that_takes_no_cancellations_does_not_pile_them_up(monkeypatch):
    monkeypatch.setattr("remotes.upstream.sessions._TELL_S", 0.2)
    script = legacy({"tools/call": silence, "notifications/cancelled": silence})
    async with served(script) as server, upstream(http(server)) as one:
        await asyncio.gather(*(call(one, seconds=0.3) for _ in range(10)))
        await server.until(lambda state: state.count("notifications/cancelled") == 10)
        await server.until(lambda state: state.open <= 2, 3)


NOT_FOUND = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}'


@pytest.mark.edge(1)
@pytest.mark.parametrize("said", [b"", NOT_FOUND], ids=["empty", "as JSON-RPC"])
async def test_a_lost_session_is_opened_once_more_and_the_call_executed_once(said):
    executed = []

    async def restarted(request: Request, wire: Wire) -> None:
        if request.headers["mcp-session-id"] == "s-1":
            await wire.answer(said, status=404)
        else:
            executed.append(request.headers["mcp-session-id"])
            await wire.result(request, {"content": []})

    async with served(legacy({"tools/call": restarted})) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)
        assert executed == ["s-2"]
        assert server.count("initialize") == 2


async def test_a_session_that_is_lost_every_time_is_not_opened_for_ever():
    async with served(legacy({"tools/call": status(404)})) as server, upstream(http(server)) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.status) == (Fault.HTTP_STATUS, 404)
        assert (server.count("initialize"), server.count("tools/call")) == (2, 2)


@pytest.mark.edge(1)
async def test_many_callers_of_a_lost_session_share_one_new_handshake():
    executed = []

    async def restarted(request: Request, wire: Wire) -> None:
        if request.headers["mcp-session-id"] == "s-1":
            await wire.answer(b"", status=404)
        else:
            executed.append(request.id)
            await wire.result(request, {"content": []})

    async with served(legacy({"tools/call": restarted})) as server, upstream(http(server)) as one:
        outcomes = await asyncio.gather(*(call(one) for _ in range(10)))
        assert all(isinstance(outcome, Answer) for outcome in outcomes)
        assert (server.count("initialize"), len(executed)) == (2, 10)


async def test_an_unknown_method_in_a_404_is_no_lost_session():
    async def unknown(request: Request, wire: Wire) -> None:
        await wire.error(request, -32601, "method not found", status=404)

    async with served(legacy({"tools/call": unknown})) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Refusal)
        assert server.count("initialize") == 1


@pytest.mark.parametrize("session", ["\u00e9", "a b", "x" * 2000], ids=["not ascii", "with a space", "too long"])
async def test_a_session_id_that_no_header_can_carry_is_not_sent_back(session):
    async def call_without(request: Request, wire: Wire) -> None:
        assert "mcp-session-id" not in request.headers
        await wire.result(request, {"content": []})

    script = legacy({"tools/call": call_without}, session=session)
    async with served(script) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)


async def test_a_remote_that_comes_back_serves_the_next_call():
    async with served(modern()) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)
        port = server.port
    async with upstream(http(server)) as one:
        assert (await call(one)).fault is Fault.NOT_SENT
        async with served(modern(), port=port):
            assert isinstance(await call(one), Answer)


async def test_a_ping_on_a_call_stream_is_answered_and_other_requests_are_declined():
    async def asks(request: Request, wire: Wire) -> None:
        await wire.send(SSE_HEAD)
        await wire.event({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        await wire.event({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}})
        await server.until(lambda state: state.count("answer") == 2)
        await wire.event({"jsonrpc": "2.0", "id": request.id, "result": {}})

    async with served(legacy({"tools/call": asks})) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)
        said = {r.json["id"]: r.json for r in server.arrived if r.call == "answer"}
        assert said["p"]["result"] == {}
        assert said["q"]["error"]["code"] == -32601


async def test_a_flood_of_pings_is_not_answered_without_bound():
    async def flood(request: Request, wire: Wire) -> None:
        await wire.send(SSE_HEAD)
        for number in range(2000):
            await wire.event({"jsonrpc": "2.0", "id": number, "method": "ping"})
        await wire.event({"jsonrpc": "2.0", "id": request.id, "result": {}})

    async with served(legacy({"tools/call": flood, "answer": silence})) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)
        assert server.accepted < 80


async def test_progress_of_a_call_reaches_its_caller_under_its_own_token():
    heard: list[tuple[str, bytes | None]] = []

    async def answer(request: Request, wire: Wire) -> None:
        token = request.json["params"]["_meta"]["progressToken"]
        params = {"progressToken": token, "progress": 1}
        await wire.send(SSE_HEAD)
        await wire.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        await wire.event({"jsonrpc": "2.0", "id": request.id, "result": {}})

    async with served(modern({"tools/call": answer})) as server, upstream(http(server)) as one:
        await call(one, progress_token=Raw(b'"mine"'), notify=lambda method, params: heard.append((method, params)))
        sent = server.last("tools/call").json["params"]["_meta"]["progressToken"]
        assert sent != "mine"
        assert [(method, json.loads(params or b"")) for method, params in heard] == [
            ("notifications/progress", {"progressToken": "mine", "progress": 1})
        ]


@pytest.mark.edge(1)
@pytest.mark.parametrize("answer", [silence, drip, endless_line, status(500)])
async def test_whatever_one_remote_does_its_neighbour_answers_in_time(answer):
    async with (
        served(modern({"tools/call": answer})) as bad,
        served(modern()) as good,
        upstream(http(bad)) as sick,
        upstream(http(good)) as well,
    ):
        waiting = [asyncio.create_task(call(sick, seconds=60)) for _ in range(20)]
        for _ in range(20):
            assert isinstance(await call(well), Answer), "and no timeout: a sixth of the time that the sick one has"
            await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
