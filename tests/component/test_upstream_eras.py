"""Which era a remote speaks: found out by probing, pinned, remembered; and found out anew when it has changed."""

import asyncio
import gc

import pytest

from remotes.config.snapshot import RemoteSpec
from remotes.upstream.outcome import Answer, Fault, Refusal
from tests.component.upstreams import (
    MODERN,
    EventStream,
    Request,
    Wire,
    body,
    call,
    discover_result,
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


def unsupported(*revisions: str, http_status: int = 400):
    async def script(request: Request, wire: Wire) -> None:
        data = {"supported": list(revisions), "requested": MODERN}
        await wire.error(request, -32022, "unsupported protocol version", status=http_status, data=data)

    return script


async def test_a_modern_remote_is_asked_once_and_never_initialised():
    async with served(modern()) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)
        assert one.greeting is not None
        assert (one.greeting.transport, one.greeting.revision) == ("http", MODERN)
        assert server.calls() == ["server/discover", "tools/call"]


@pytest.mark.parametrize("http_status", [400, 402, 403, 404, 405, 406, 415, 422])
async def test_any_other_4xx_to_the_probe_means_initialize(http_status):
    async with served(legacy(probe=http_status)) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)
        assert one.greeting is not None
        assert one.greeting.revision == "2025-11-25"
        assert server.calls()[:3] == ["server/discover", "initialize", "notifications/initialized"]


@pytest.mark.parametrize(
    "answer",
    [
        body(b"<html>hello</html>", kind="text/html"),
        body(b'{"jsonrpc":"2.0","id":%ID%,"result":{"hello":1}}'),
        body(b'{"jsonrpc":"2.0","id":%ID%,"error":{"code":-32601,"message":"no"}}'),
        body(b'{"jsonrpc":"2.0","id":%ID%,"error":{"code":-32600,"message":"no"}}'),
        unsupported("2025-11-25", "2025-06-18"),
        unsupported("2025-11-25", http_status=200),
    ],
    ids=["html", "another result", "method not found", "invalid request", "-32022 with 400", "-32022 with 200"],
)
async def test_an_answer_that_is_not_modern_means_initialize(answer):
    async with served(legacy({"server/discover": answer})) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)
        assert one.greeting is not None
        assert one.greeting.revision == "2025-11-25"
        assert server.count("initialize") == 1


async def test_a_discover_result_without_the_modern_revision_means_initialize():
    async def older(request: Request, wire: Wire) -> None:
        await wire.result(request, discover_result(supportedVersions=["2025-11-25"]))

    async with served(legacy({"server/discover": older})) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)
        assert one.greeting is not None
        assert not one.greeting.modern


async def test_a_remote_with_no_revision_in_common_says_so():
    async with (
        served(
            modern({"server/discover": unsupported("2099-01-01"), "initialize": unsupported("2099-01-01")})
        ) as server,
        upstream(http(server)) as one,
    ):
        outcome = await call(one)
        assert (outcome.fault, outcome.phase) == (Fault.INVALID, "handshake")
        assert server.count("tools/call") == 0


@pytest.mark.parametrize("initialize", [400, 404, 405])
async def test_a_remote_that_refuses_to_initialize_is_tried_as_an_event_stream(initialize):
    stream = EventStream()

    async def script(request: Request, wire: Wire) -> None:
        if request.method == "POST" and request.target == "/mcp":
            await wire.answer(b"no", status=initialize)
        else:
            await stream(request, wire)

    async with served(script) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)
        assert one.greeting is not None
        assert one.greeting.transport == "sse"
        assert server.calls()[:4] == ["server/discover", "initialize", "GET", "initialize"]


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429])
async def test_a_server_error_decides_nothing(code):
    async with served(modern({"server/discover": status(code)})) as server, upstream(http(server)) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.status) == (Fault.HTTP_STATUS, code)
        assert server.calls() == ["server/discover"]


async def test_a_server_error_that_is_dressed_as_json_rpc_decides_nothing():
    async def overloaded(request: Request, wire: Wire) -> None:
        await wire.error(request, -32000, "starting up", status=503)

    async with served(modern({"server/discover": overloaded})) as server, upstream(http(server)) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.status) == (Fault.HTTP_STATUS, 503)
        assert server.calls() == ["server/discover"]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (reset, Fault.BROKEN),
        (
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: application/json\r\n\r\n{", close=True),
            Fault.BROKEN,
        ),
        (raw(b"", close=True), Fault.BROKEN),
        (silence, Fault.NOT_SENT),
    ],
    ids=["reset", "cut off", "closed", "silence"],
)
async def test_a_broken_connection_decides_nothing(answer, fault):
    async with served(modern({"server/discover": answer})) as server, upstream(http(server)) as one:
        outcome = await call(one, seconds=1)
        assert outcome.fault is fault
        assert server.calls() == ["server/discover"]


async def test_a_remote_that_wants_a_credential_is_asked_nothing_more():
    async with served(modern({"server/discover": status(401)})) as server, upstream(http(server)) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.status) == (Fault.UNAUTHORIZED, 401)
        assert server.calls() == ["server/discover"]


@pytest.mark.edge(1)
async def test_a_remote_that_refuses_connections_fails_at_once_and_provably_unsent():
    async with served(modern()) as server:
        pass  # the port is closed again
    async with upstream(http(server)) as one:
        outcome = await call(one, seconds=20)
        assert (outcome.fault, outcome.phase) == (Fault.NOT_SENT, "tcp"), "and no timeout"


async def test_a_host_that_does_not_resolve_is_named_by_its_phase():
    async with served(modern()) as server, upstream(http(server, url="http://nowhere.invalid/mcp")) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.phase) == (Fault.NOT_SENT, "dns")
        assert server.calls() == []


async def test_plain_http_behind_an_https_address_is_a_tls_failure_that_was_never_sent():
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        async with upstream(RemoteSpec("remote", "http", url=url)) as one:
            outcome = await call(one)
            assert (outcome.fault, outcome.phase) == (Fault.NOT_SENT, "tls")


async def test_a_pinned_modern_remote_is_never_initialised():
    async with served(legacy()) as server, upstream(http(server, era=MODERN)) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.phase) in {(Fault.HTTP_STATUS, "http"), (Fault.INVALID, "handshake")}
        assert server.calls() == ["server/discover"]


async def test_a_pinned_handshake_remote_is_never_probed():
    async with served(legacy()) as server, upstream(http(server, era="2025-11-25")) as one:
        assert isinstance(await call(one), Answer)
        assert server.calls()[0] == "initialize"


async def test_a_pinned_handshake_remote_is_not_tried_as_an_event_stream():
    async with served(legacy({"initialize": status(404)})) as server, upstream(http(server, era="2025-11-25")) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.status) == (Fault.HTTP_STATUS, 404)
        assert server.calls() == ["initialize"]


@pytest.mark.parametrize("spec", [{"era": "2024-11-05"}, {"transport": "sse"}], ids=["by era", "by transport"])
async def test_a_pinned_event_stream_is_opened_at_once(spec):
    async with served(EventStream()) as server, upstream(http(server, **spec)) as one:
        assert isinstance(await call(one), Answer)
        assert server.calls()[:2] == ["GET", "initialize"]


async def test_a_remembered_era_is_not_asked_for_again():
    async with served(legacy()) as server, upstream(http(server), era="2025-11-25") as one:
        assert isinstance(await call(one), Answer)
        assert server.count("server/discover") == 0


@pytest.mark.parametrize("era", [MODERN, "2025-11-25", "2024-11-05"])
@pytest.mark.parametrize("script", [modern, legacy, EventStream])
async def test_a_remembered_era_that_changed_is_found_out_anew_within_the_same_call(era, script):
    async with served(script()) as server, upstream(http(server), era=era) as one:
        assert isinstance(await call(one), Answer)
        assert server.count("tools/call") == 1


async def test_a_remembered_event_stream_that_now_says_nothing_is_forgotten_for_the_next_call():
    async def hold(request: Request, wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await wire.until_gone()

    spec = {"connect_timeout_s": 0.3}
    async with served(modern({"GET": hold})) as server, upstream(http(server, **spec), era="2024-11-05") as one:
        assert (await call(one)).fault is Fault.TIMEOUT
        assert isinstance(await call(one), Answer)


async def test_a_connected_remote_that_becomes_modern_is_met_in_its_new_era():
    scripts = [legacy()]

    async def script(request: Request, wire: Wire) -> None:
        await scripts[-1](request, wire)

    async with served(script) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)
        refuse = unsupported(MODERN)

        async def only_modern(request: Request, wire: Wire) -> None:
            era = request.headers.get("mcp-protocol-version")
            await (modern() if era == MODERN else refuse)(request, wire)

        scripts.append(only_modern)
        assert isinstance(await call(one), Refusal)
        assert isinstance(await call(one), Answer)
        assert one.greeting is not None
        assert one.greeting.modern


@pytest.mark.parametrize("code", [None, -32000, -32600], ids=["plain 400", "-32000", "-32600"])
async def test_a_connected_remote_that_becomes_legacy_is_met_in_its_new_era(code):
    scripts = [modern()]

    async def script(request: Request, wire: Wire) -> None:
        await scripts[-1](request, wire)

    async with served(script) as server, upstream(http(server)) as one:
        assert isinstance(await call(one), Answer)

        async def no_session(request: Request, wire: Wire) -> None:
            if request.headers.get("mcp-session-id"):
                await wire.result(request, {"content": []})
            elif code is None:
                await wire.answer(b"Bad Request", status=400)
            else:
                await wire.error(request, code, "Bad Request: no valid session", status=400)

        scripts.append(legacy({"tools/call": no_session}))
        assert not isinstance(await call(one), Answer)
        assert isinstance(await call(one), Answer)
        assert one.greeting is not None
        assert one.greeting.revision == "2025-11-25"


async def test_a_remote_that_chooses_a_revision_nobody_proposed_is_refused():
    answer = body(b'{"jsonrpc":"2.0","id":%ID%,"result":{"protocolVersion":"1999-01-01","capabilities":{}}}')
    async with served(legacy({"initialize": answer})) as server, upstream(http(server)) as one:
        outcome = await call(one)
        assert (outcome.fault, outcome.phase) == (Fault.INVALID, "handshake")
        assert "1999-01-01" in outcome.message
        assert server.count("tools/call") == 0


async def test_callers_that_come_together_share_one_connect():
    async with served(modern()) as server, upstream(http(server)) as one:
        outcomes = await asyncio.gather(*(call(one) for _ in range(20)))
        assert all(isinstance(outcome, Answer) for outcome in outcomes)
        assert (server.count("server/discover"), server.count("tools/call")) == (1, 20)


async def test_a_caller_that_leaves_does_not_end_the_connect_that_others_wait_for():
    go = asyncio.Event()

    async def late(request: Request, wire: Wire) -> None:
        await go.wait()
        await wire.result(request, discover_result())

    async with served(modern({"server/discover": late})) as server, upstream(http(server)) as one:
        impatient, patient = asyncio.create_task(call(one, seconds=0.2)), asyncio.create_task(call(one))
        assert (await impatient).fault is Fault.NOT_SENT
        go.set()
        assert isinstance(await patient, Answer)
        assert server.calls() == ["server/discover", "tools/call"]


async def test_a_connect_that_fails_after_its_last_caller_has_left_is_no_surprise(caplog):
    async with served(silence) as server, upstream(http(server, connect_timeout_s=0.2)) as one:
        leaving = asyncio.create_task(call(one))
        await server.until(lambda state: state.count("server/discover") == 1)
        leaving.cancel()
        await server.until(lambda state: state.open == 0)
        assert one.last_failure is not None
    gc.collect()
    assert not [record for record in caplog.records if "never retrieved" in record.getMessage()]


@pytest.mark.parametrize(
    "stage", ["server/discover", "initialize", "notifications/initialized", "tools/call"], ids=lambda stage: stage
)
@pytest.mark.edge(1)
async def test_a_remote_that_hangs_at_any_stage_costs_its_caller_no_more_than_its_deadline(stage):
    async with (
        served(legacy({stage: silence})) as server,
        upstream(http(server, connect_timeout_s=0.25)) as one,
    ):
        outcome = await call(one, seconds=0.5)
        assert outcome.fault is Fault.TIMEOUT
        again = await call(one, seconds=0.5)
        assert again.fault is Fault.TIMEOUT, "a hung connect must end, so that the next call tries anew"
        assert server.count("tools/call") == (2 if stage == "tools/call" else 0)


@pytest.mark.edge(1)
@pytest.mark.parametrize("stage", ["GET", "initialize", "notifications/initialized", "tools/call"])
async def test_an_event_stream_that_hangs_at_any_stage_costs_its_caller_no_more_than_its_deadline(stage):
    stream = EventStream()

    async def script(request: Request, wire: Wire) -> None:
        await (silence if request.call == stage else stream)(request, wire)

    async with served(script) as server, upstream(http(server, transport="sse", connect_timeout_s=0.25)) as one:
        outcome = await call(one, seconds=0.5)
        assert outcome.fault is Fault.TIMEOUT
        again = await call(one, seconds=0.5)
        assert again.fault is Fault.TIMEOUT
        assert server.count("tools/call") == (2 if stage == "tools/call" else 0)
