"""Clients that can be asked, of every era and transport, in front of remotes that ask (asking_peer.py).

Each client begins a call and says what comes next: a question, or the end. How a question travels is the client's own matter.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.component.real_gateway import Client, Gateway, Relay, Session, Stream, initialize, message, prepared, until

PEER = str(Path(__file__).with_name("asking_peer.py"))
REMOTES = ("io", "io_new", "old", "sse", "new")
TIMEOUT_S = 3
LEGACY = ("io", "old", "sse")
ALL: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
FORM = {"type": "object", "properties": {"name": {"type": "string", "vendorOfSchema": [1.10]}}, "required": ["name"]}
Answer = Callable[[dict[str, Any]], dict[str, Any]]

INVALID_PARAMS, NOT_FOUND, INTERNAL, MISSING, URL_NEEDED = -32602, -32601, -32603, -32021, -32042
DECLINED = {"action": "decline"}
LIFE_S = 0.7
tags = (f"r{number}" for number in itertools.count())


def plan_of(*rounds: list[Any], **more: Any) -> dict[str, Any]:
    return {"tag": next(tags), "rounds": list(rounds)} | more


def is_modern(remote: str) -> bool:
    return remote.endswith("new")


@contextlib.contextmanager
def asking_gateway(**limits: str) -> Iterator[Gateway]:
    """A gateway in front of an asking remote of each transport and era, with three seconds for a call."""
    with prepared({}, **limits) as gateway, contextlib.ExitStack() as stack:
        chosen = {"PEER_JOURNAL": str(gateway.journal)}
        remotes: dict[str, Any] = {}
        for name, era, transport in (("old", "legacy", "http"), ("new", "modern", "http"), ("sse", "legacy", "sse")):
            command = [sys.executable, PEER, "--transport", transport, "--era", era, "--name", name]
            path = "/sse" if transport == "sse" else "/mcp"
            peer = stack.enter_context(peers.running(command, path=path, environment=chosen))
            remotes[name] = {"url": peer.url} | ({"type": "sse"} if transport == "sse" else {})
        for name, era in (("io", "legacy"), ("io_new", "modern")):
            remotes[name] = {"command": sys.executable, "args": [PEER, "--era", era, "--name", name], "env": chosen}
        gateway.remotes = {name: entry | {"timeout": TIMEOUT_S} for name, entry in remotes.items()}
        gateway.write_config()
        yield gateway.start().healthy(*remotes)


# Questions


def form(text: str = "Your name?") -> dict[str, Any]:
    params = {"message": text, "requestedSchema": FORM, "vendorOfQuestion": {"wide": 12345678901234567890123}}
    return {"method": "elicitation/create", "params": params}


def url() -> dict[str, Any]:
    params = {"mode": "url", "message": "Go there", "url": "https://example.com/x?y=\u00e9", "elicitationId": "own-id"}
    return {"method": "elicitation/create", "params": params}


def sampling(text: str = "Say it") -> dict[str, Any]:
    said = [{"role": "user", "content": {"type": "text", "text": text}}]
    params = {"messages": said, "maxTokens": 10, "tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
    return {"method": "sampling/createMessage", "params": params}


def roots() -> dict[str, Any]:
    return {"method": "roots/list"}


def accepted(question: dict[str, Any]) -> dict[str, Any]:
    """A good result for any question; vendor fields are for the remote to find."""
    match question["method"]:
        case "elicitation/create":
            if question["params"].get("mode") == "url":
                return {"action": "accept"}
            return {"action": "accept", "content": {"name": "\u00c5sa \u2028"}, "vendorOfAnswer": [None]}
        case "sampling/createMessage":
            return {"role": "assistant", "content": {"type": "text", "text": "said"}, "model": "m", "stopReason": "x"}
        case _:
            return {"roots": [{"uri": "file:///here", "name": "here", "vendorOfRoot": 1}]}


# Calls


def params_for(method: str, remote: str, plan: Mapping[str, Any], tool: str = "ask") -> dict[str, Any]:
    if method == "tools/call":
        return {"name": f"{remote}__{tool}", "arguments": {"plan": dict(plan)}}
    if method == "prompts/get":
        return {"name": f"{remote}__ask", "arguments": {"plan": json.dumps(plan)}}
    return {"uri": f"asking.{remote.replace('_', '-')}://{urllib.parse.quote(json.dumps(plan), safe='')}/"}


def told(result: Any) -> Any:
    """What an ended call's text says: tag and replies."""
    block = (result.get("content") or [each["content"] for each in result.get("messages", ())] or result["contents"])[0]
    return json.loads(block["text"])


class Ended:
    """How a call ended, what was asked in it and what else came."""

    def __init__(self, final: dict[str, Any], asked: list[Any], others: list[Any]) -> None:
        self.final = final
        self.asked = asked
        self.others = others

    @property
    def result(self) -> Any:
        assert "result" in self.final, self.final
        return self.final["result"]

    @property
    def error(self) -> tuple[int, str]:
        assert "error" in self.final, self.final
        return self.final["error"]["code"], self.final["error"]["message"]

    @property
    def replies(self) -> Any:
        return told(self.result)["replies"]


class Modern:
    """A client of 2026-07-28: each question is the end of a request, and its answer part of the next."""

    def __init__(self, client: Client, capabilities: Mapping[str, Any] = ALL) -> None:
        self.client = client
        self.meta = {"io.modelcontextprotocol/clientCapabilities": dict(capabilities)}

    def ask(self, method: str, params: Mapping[str, Any], **more: Any) -> Any:
        """One request: its HTTP status and all its messages."""
        meta = self.meta | more.pop("meta", {})
        reply = self.client.modern(method, params, meta=meta, **more)
        return reply.status, reply.messages

    def run(self, method: str, params: dict[str, Any], answer: Answer = accepted, pause: Any = None) -> Ended:
        asked: list[Any] = []
        others: list[Any] = []
        more: dict[str, Any] = {}
        for number in range(1, 30):
            _, messages = self.ask(method, params | more, id=number, meta={"progressToken": f"p{number}"})
            others += messages[:-1]
            result = messages[-1].get("result", {})
            assert messages[-1]["id"] == number
            if result.get("resultType") != "input_required":
                return Ended(messages[-1], asked, others)
            put = result["inputRequests"]
            asked.append(list(put.values()))
            if pause is not None:
                pause()
            more = {"inputResponses": {key: answer(question) for key, question in put.items()}}
            more |= {"requestState": result["requestState"]}
        raise AssertionError("asked for ever")

    def parked(self, remote: str, plan: dict[str, Any], method: str = "tools/call") -> Parked:
        params = params_for(method, remote, plan)
        status, messages = self.ask(method, params)
        result = messages[-1]["result"]
        assert (status, result["resultType"]) == (200, "input_required"), messages
        return Parked(self, method, params, result["inputRequests"], result["requestState"])


class Parked:
    """A call that waits for this client's second request."""

    def __init__(self, modern: Modern, method: str, params: dict[str, Any], asked: Any, state: str) -> None:
        self.modern = modern
        self.method = method
        self.params = params
        self.asked = asked
        self.state = state

    @property
    def responses(self) -> dict[str, Any]:
        return {key: accepted(question) for key, question in self.asked.items()}

    def retry(self, *, by: Modern | None = None, **changed: Any) -> tuple[int, dict[str, Any]]:
        """The second request, or one that differs from it; HTTP status and last message."""
        more = {"inputResponses": self.responses, "requestState": self.state} | changed
        wanted = self.params | {name: value for name, value in more.items() if value is not None}
        status, messages = (by or self.modern).ask(self.method, wanted, id=2)
        return status, messages[-1]


class OnStream:
    """One call of a session, followed message by message."""

    def __init__(self, stream: Stream, id: Any, post: Callable[[bytes], Any]) -> None:
        self.stream = stream
        self.id = id
        self.post = post
        self.others: list[Any] = []

    def next(self) -> Any:
        """The next question, or the call's answer."""
        if self.stream.headers.get("content-type") == "application/json":
            return json.loads(self.stream.response.read())
        while (came := self.stream.message()) is not None:
            if "id" in came and ("method" in came or came["id"] == self.id):
                return came
            self.others.append(came)
        raise AssertionError(f"the stream ended before the answer; it said {self.others}")

    def answer(self, question: dict[str, Any], **outcome: Any) -> None:
        document = {"jsonrpc": "2.0", "id": question["id"], **outcome}
        assert self.post(json.dumps(document).encode()).status == 202

    def run(self, answer: Answer = accepted, pause: Any = None) -> Ended:
        asked: list[Any] = []
        while "method" in (came := self.next()):
            asked.append({name: came[name] for name in ("method", "params") if name in came})
            if pause is not None:
                pause()
            replied = answer(came)
            outcome = {"error": replied["error"]} if "error" in replied else {"result": replied}
            self.answer(came, **outcome)
        return Ended(came, asked, self.others)


class OverHttp:
    """A session over Streamable HTTP."""

    def __init__(self, client: Client, capabilities: Mapping[str, Any] = ALL, revision: str = "2025-11-25") -> None:
        self.session: Session = client.session(revision, capabilities)
        self.client = client

    def post(self, body: bytes) -> Any:
        return self.client.ask("POST", "/mcp", body, self.session.headers)

    def begin(self, method: str, params: dict[str, Any], id: Any = 1) -> OnStream:
        params = params | {"_meta": {"progressToken": f"p{id}"}}
        stream = self.client.stream("POST", "/mcp", message(method, params, id=id), self.session.headers)
        return OnStream(stream, id, self.post)

    def run(self, method: str, params: dict[str, Any], answer: Answer = accepted, pause: Any = None) -> Ended:
        call = self.begin(method, params)
        with call.stream:
            return call.run(answer, pause)


class OverSse:
    """A session over HTTP+SSE, with one call at a time."""

    def __init__(self, client: Client, capabilities: Mapping[str, Any] = ALL, revision: str = "2025-11-25") -> None:
        self.relay: Relay = client.relay()
        assert self.post(initialize(revision, capabilities)).status == 202
        assert self.relay.stream.answer(0)["result"]["protocolVersion"] == revision
        assert self.post(message("notifications/initialized")).status == 202

    def post(self, body: bytes) -> Any:
        return self.relay.post(body)

    def begin(self, method: str, params: dict[str, Any], id: Any = 1) -> OnStream:
        params = params | {"_meta": {"progressToken": f"p{id}"}}
        assert self.post(message(method, params, id=id)).status == 202
        return OnStream(self.relay.stream, id, self.post)

    def run(self, method: str, params: dict[str, Any], answer: Answer = accepted, pause: Any = None) -> Ended:
        return self.begin(method, params).run(answer, pause)

    def close(self) -> None:
        self.relay.stream.close()


KINDS: dict[str, Any] = {"modern": Modern, "session": OverHttp, "sse": OverSse}
PAIRS = list(itertools.combinations_with_replacement(KINDS, 2))
every_remote = pytest.mark.parametrize("remote", REMOTES)
legacy_remote = pytest.mark.parametrize("remote", LEGACY)
every_client = pytest.mark.parametrize("kind", KINDS)
session_client = pytest.mark.parametrize("kind", ["session", "sse"])


@contextlib.contextmanager
def client_of(kind: str, gateway: Gateway, capabilities: Mapping[str, Any] = ALL) -> Iterator[Any]:
    client = KINDS[kind](gateway.client(), capabilities)
    try:
        yield client
    finally:
        if kind == "sse":
            client.close()


# What the remotes saw


def lines(gateway: Gateway, tag: str, event: str) -> list[dict[str, Any]]:
    text = gateway.journal.read_text() if gateway.journal.exists() else ""
    beginning = f'{{"event": "{event}", "tag": "{tag}"'  # a long journal is read often
    return [json.loads(line) for line in text.splitlines() if line.startswith(beginning)]


def declared(gateway: Gateway) -> list[Any]:
    """The capabilities that the remotes' sessions were opened with."""
    written = peers.journal_lines(gateway.journal)
    return [line["capabilities"] for line in written if line["event"] == "initialized"]


def seen(gateway: Gateway, tag: str, event: str, within_s: float = 5.0) -> dict[str, Any]:
    """The first such line of the journal, waited for."""
    found: list[dict[str, Any]] = until(lambda: lines(gateway, tag, event), f"{event} of {tag}", within_s=within_s)
    return found[0]


def at_once(*work: Callable[[], Any]) -> list[Any]:
    """Do these side by side; the first failure is raised."""
    results: list[Any] = [None] * len(work)
    faults: list[BaseException] = []

    def run(place: int) -> None:
        try:
            results[place] = work[place]()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return results
