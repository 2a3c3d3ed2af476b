"""A client that loses a stream in the middle comes back with the last event it saw and misses nothing; nobody else can."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from tests.component.real_gateway import Client, Gateway, Session, Stream, message, odd, until

ASKED: dict[str, Any] = {"elicitation": {}}


class Event(NamedTuple):
    id: str
    retry: str
    data: str

    @property
    def message(self) -> Any:
        return json.loads(self.data)


def next_event(stream: Stream) -> Event | None:
    """The next event with an id, comments skipped; None at the end."""
    fields: dict[str, str] = {}
    while line := stream.line():
        name, _, value = line.decode().rstrip("\n").partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif "id" in fields:
            return Event(fields["id"], fields.get("retry", ""), fields.get("data", ""))
    return None


def events(stream: Stream) -> list[Event]:
    return list(iter(lambda: next_event(stream), None))


def begin(session: Session, method: str, params: Any, id: Any = 1) -> Stream:
    return session.client.stream("POST", "/mcp", message(method, params, id=id), session.headers)


def slow(steps: int = 3, seconds: float = 0.6, remote: str = "old") -> dict[str, Any]:
    arguments = {"n": steps, "seconds": seconds}
    return {"name": f"{remote}__slow", "arguments": arguments, "_meta": {"progressToken": "p"}}


def head(session: Session, last: str, client: Client | None = None) -> list[tuple[str, str]]:
    bearer = (client or session.client).bearer
    return [bearer, ("Accept", "text/event-stream"), ("Mcp-Session-Id", session.id), ("Last-Event-ID", last)]


def resume(session: Session, last: str) -> Stream:
    return session.client.stream("GET", "/mcp", None, head(session, last))


def told(event: Event) -> Any:
    """What an event says: the step of a progress notification, or the answer's text."""
    said = event.message
    return said["params"]["progress"] if "method" in said else said["result"]["content"][0]["text"]


class TestNumbers:
    def test_the_newest_sessions_stream_begins_with_something_to_come_back_with(self, gateway: Gateway) -> None:
        with begin(gateway.client().session(), "tools/call", slow()) as stream:
            first, *rest = events(stream)
        stream_name, _, number = first.id.rpartition(".")
        assert (number, first.retry, first.data) == ("0", "1000", "")
        assert [event.id for event in rest] == [f"{stream_name}.{number}" for number in range(1, 5)]
        assert [told(event) for event in rest] == [1, 2, 3, "3 steps"]

    @pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18"])
    def test_an_earlier_ones_has_ids_and_no_event_that_is_no_message(self, gateway: Gateway, revision: str) -> None:
        with begin(gateway.client().session(revision), "tools/call", slow(1, 0.1)) as stream:
            found = events(stream)
        assert [told(event) for event in found] == [1, "1 steps"]
        assert [event.id.rpartition(".")[2] for event in found] == ["1", "2"]

    def test_the_sessions_own_stream_has_them_too(self, gateway: Gateway) -> None:
        client = gateway.client()
        with client.session().stream() as newest, client.session("2025-06-18").stream() as earlier:
            first = next_event(newest)
            assert first is not None
            assert (first.id[:2], first.data) == ("s.", "")
            assert earlier.line() == b": heartbeat\n"
            assert [earlier.line() for _ in range(2)] == [b"\n", b": heartbeat\n"]

    def test_an_answer_that_needs_no_stream_is_json_as_ever(self, gateway: Gateway) -> None:
        reply = gateway.client().session().call("tools/call", {"name": "old__echo", "arguments": {"text": "x"}})
        assert reply.headers["content-type"] == "application/json"


class TestCall:
    @pytest.mark.parametrize("revision", ["2025-11-25", "2025-06-18"])
    @pytest.mark.parametrize("remote", ["old", "new", "sse"])
    def test_who_lost_the_stream_reads_on_where_it_was_lost(self, gateway: Gateway, revision: str, remote: str) -> None:
        session = gateway.client().session(revision)
        with begin(session, "tools/call", slow(remote=remote)) as stream:
            before = [next_event(stream)]
            while before[-1] is not None and not before[-1].data:
                before.append(next_event(stream))
        last = before[-1]
        assert last is not None
        assert told(last) == 1
        with resume(session, last.id) as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            rest = events(stream)
        assert [told(event) for event in rest] == [2, 3, "3 steps"]
        assert rest[-1].message["id"] == 1
        # And again, for it may have been lost again.
        with resume(session, rest[1].id) as stream:
            assert [told(event) for event in events(stream)] == ["3 steps"]
        with resume(session, rest[-1].id) as stream:
            assert (stream.status, events(stream)) == (204, [])
            assert not {"content-length", "transfer-encoding"} & set(stream.headers)

    def test_an_answer_given_while_the_client_was_away_waits_for_it(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        with begin(session, "tools/call", slow(3, 0.1)) as stream:
            first = next_event(stream)
        assert first is not None
        until(lambda: not gateway.status()["in_flight"], "the call ended")
        with resume(session, first.id) as stream:
            assert [told(event) for event in events(stream)] == [1, 2, 3, "3 steps"]

    def test_a_question_put_while_the_client_was_away_waits_for_it_too(self, gateway: Gateway) -> None:
        for remote in ("new", "old"):
            session = gateway.client().session(capabilities=ASKED)
            with begin(session, "tools/call", {"name": f"{remote}__ask", "arguments": {}}, id="a") as stream:
                first = next_event(stream)
            assert first is not None
            assert first.data == ""
            with resume(session, first.id) as stream:
                question = next_event(stream)
                assert question is not None
                assert question.message["method"] == "elicitation/create"
                answer = {"action": "accept", "content": {"colour": "blue"}}
                body = json.dumps({"jsonrpc": "2.0", "id": question.message["id"], "result": answer}).encode()
                assert session.client.ask("POST", "/mcp", body, session.headers).status == 202
                (last,) = events(stream)
                assert (last.message["id"], told(last)) == ("a", "blue"), remote

    def test_the_newer_reader_reads_on_and_the_older_ends(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        with begin(session, "tools/call", slow(3, 0.9)) as older:
            first = next_event(older)
            assert first is not None
            with resume(session, first.id) as newer:
                assert [told(event) for event in events(newer)] == [1, 2, 3, "3 steps"]
            assert len(events(older)) < 4
        assert session.call("ping").status == 200

    def test_two_streams_are_never_mixed(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        lost = []
        for id in ("one", "two"):
            with begin(session, "tools/call", slow(2, 0.4), id=id) as stream:
                lost.append(next_event(stream))
        for id, first in zip(("one", "two"), lost, strict=True):
            with resume(session, first.id if first else "") as stream:
                found = events(stream)
            assert len(found) == 3
            assert found[-1].message["id"] == id

    def test_a_cancelled_call_leaves_nothing_to_come_back_for(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        tag = uuid.uuid4().hex
        with begin(session, "tools/call", {"name": "odd__wait", "arguments": {"tag": tag}}) as stream:
            first = next_event(stream)
        assert first is not None
        assert session.tell("notifications/cancelled", {"requestId": 1}).status == 202
        until(lambda: gateway.journal_of(tag) == ["started", "cancelled"])
        until(lambda: not gateway.status()["in_flight"])
        reply = session.client.ask("GET", "/mcp", None, head(session, first.id))
        assert (reply.status, reply.body) == (204, b"")

    def test_delete_ends_a_resumed_stream_and_the_call(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        tag = uuid.uuid4().hex
        with begin(session, "tools/call", {"name": "odd__wait", "arguments": {"tag": tag}}) as stream:
            first = next_event(stream)
        assert first is not None
        with resume(session, first.id) as stream:
            assert stream.status == 200
            assert session.delete().status == 204
            assert events(stream) == []
        until(lambda: gateway.journal_of(tag) == ["started", "cancelled"])
        assert session.client.ask("GET", "/mcp", None, head(session, first.id)).status == 404

    @pytest.mark.edge(3)
    def test_a_resumed_stream_counts_as_an_open_stream(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        with begin(session, "tools/call", slow(2, 1.0)) as stream:
            first = next_event(stream)
        assert first is not None
        with resume(session, first.id) as stream:
            until(lambda: gateway.status()["connections"]["active"] == 1)
            assert events(stream)
        until(lambda: not gateway.status()["connections"]["active"])


class TestWhose:
    @pytest.fixture
    def lost(self, gateway: Gateway) -> tuple[Session, str]:
        session = gateway.client().session()
        with begin(session, "tools/call", slow(1, 0.1)) as stream:
            first = next_event(stream)
        assert first is not None
        return session, first.id

    def test_another_key_finds_no_session_and_no_event(self, gateway: Gateway, lost: tuple[Session, str]) -> None:
        session, last = lost
        other = gateway.client("other")
        assert other.ask("GET", "/mcp", None, head(session, last, other)).error == (404, -32600, None)
        own = other.session()
        assert other.ask("GET", "/mcp", None, head(own, last)).error == (400, -32600, None)

    def test_another_session_of_the_same_key_finds_no_event(self, gateway: Gateway, lost: tuple[Session, str]) -> None:
        session, last = gateway.client().session(), lost[1]
        assert session.client.ask("GET", "/mcp", None, head(session, last)).error == (400, -32600, None)

    @pytest.mark.parametrize(
        "last", ["x", "c.AAAAAAAA.1", "c.AAAAAAAA", ".", "../..", "c." + "A" * 5000 + ".1", "\xe9"]
    )
    def test_an_event_that_is_unknown_is_refused_and_the_session_lives(self, gateway: Gateway, last: str) -> None:
        session = gateway.client().session()
        assert session.client.ask("GET", "/mcp", None, head(session, last)).error == (400, -32600, None)
        assert session.call("ping").status == 200

    @pytest.mark.parametrize("last", ["", "s.AAAAAAAA.3"])
    def test_without_one_or_with_one_of_a_stream_that_is_gone_a_fresh_stream_opens(
        self, gateway: Gateway, last: str
    ) -> None:
        session = gateway.client().session()
        with resume(session, last) as stream:
            first = next_event(stream)
            assert stream.status == 200
            assert first is not None
            assert first.id.startswith("s.")
            assert first.id.endswith(".0")


class TestSessionStream:
    @pytest.fixture
    def restored(self, tight: Gateway) -> Iterator[Gateway]:
        yield tight
        tight.write_config()
        until(lambda: set(tight.status()["mcps"]) == set(tight.remotes))

    def test_a_change_that_was_missed_is_told_on_return_and_only_once(self, restored: Gateway) -> None:
        session = restored.client().session()
        with session.stream() as stream:
            first = next_event(stream)
        assert first is not None
        restored.write_config(late=odd())
        restored.healthy("late")
        with resume(session, first.id) as stream:
            missed = [next_event(stream) for _ in range(3)]
            methods = {event.message["method"] for event in missed if event is not None}
            kinds = ("prompts", "resources", "tools")
            assert methods == {f"notifications/{kind}/list_changed" for kind in kinds}
        restored.write_config()
        restored.without("late")
        last = missed[-1]
        assert last is not None
        with resume(session, last.id) as stream:
            again = next_event(stream)
        assert again is not None
        assert int(again.id.rpartition(".")[2]) == int(last.id.rpartition(".")[2]) + 1

    def test_the_one_who_comes_back_takes_the_place_of_the_one_who_was_there(self, gateway: Gateway) -> None:
        session = gateway.client().session()
        with session.stream() as older:
            first = next_event(older)
            assert first is not None
            with resume(session, first.id) as newer:
                assert newer.status == 200
                assert events(older) == []
                until(lambda: gateway.status()["connections"]["active"] == 1)
                assert newer.line().startswith(b": ")


@asynccontextmanager
async def bad_line(port: int, after: bytes) -> AsyncIterator[str]:
    """An address in front of the gateway that cuts one connection, the first whose answer holds these bytes."""
    cuts: list[bytes] = []
    ends: list[asyncio.StreamWriter] = []
    ways: list[asyncio.Task[None]] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
                if after in chunk and not cuts:
                    cuts.append(chunk)
                    return
        finally:
            writer.transport.abort()
            back.transport.abort()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        ends.extend((writer, inner_writer))
        ways.append(asyncio.create_task(carry(reader, inner_writer, writer)))
        ways.append(asyncio.create_task(carry(inner_reader, writer, inner_writer)))

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        for end in ends:
            end.transport.abort()
        await asyncio.gather(*ways, return_exceptions=True)
    assert cuts


async def test_the_official_client_over_a_bad_line_gets_all_progress_and_its_answer(gateway: Gateway) -> None:
    from mcp import Client as OfficialClient
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    client = gateway.client()
    steps: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async with (
        bad_line(client.port, b"notifications/progress") as url,
        create_mcp_http_client(headers=dict([client.bearer])) as http,
        OfficialClient(streamable_http_client(url, http_client=http), mode="legacy") as official,
    ):
        params: dict[str, Any] = {"n": 6, "seconds": 1.2}
        async with asyncio.timeout(20):
            result = await official.call_tool("old__slow", params, progress_callback=on_progress)
    assert result.content[0].text == "6 steps"
    assert steps == [1, 2, 3, 4, 5, 6]
