"""A server that asks in the middle of a call, over every transport and in both eras, as raw messages.

    python asking_peer.py --transport stdio|http|sse --era legacy|modern [--name NAME] [--ready-fd N]

Standard library only. What it does is up to the caller: the argument `plan` (for a prompt, as text; for a resource, in its URI)
is an object with any of

| member     | meaning |
| ---------- | --- |
| `tag`      | marks what the journal (PEER_JOURNAL) says of the call |
| `rounds`   | lists of questions `{method, params}`; those of one round are put together |
| `after`    | a tag: asks only once the call with it has started here |
| `progress` | tells progress after each round |
| `deaf`     | takes no cancellation |
| `impatient`| asks, and answers the call without waiting for the replies |
| `hang`     | never answers, but for a cancellation |
| `slow`     | seconds before the answer |
| `refusal`  | answers the first call with this JSON-RPC error |

The answer's text is JSON: what was replied, round by round. `only_task` can only be called as a task, `as_task` may be.
"""

import argparse
import itertools
import json
import os
import select
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 20.0
PREFIX = "io.modelcontextprotocol/"
RELATED = PREFIX + "related-task"
EXTENSION = PREFIX + "tasks"
# A state that is easily broken: escapes, line separators, wide characters.
STATE_MARK = "\u2028 \u00e9\U0001f600 \\u0041 \" '"
Say = Callable[[dict[str, Any]], None]

numbers = itertools.count(1)
lock = threading.Lock()
refused: set[str] = set()
tasks: dict[str, "Task"] = {}


def journal(event: str, **facts: Any) -> None:
    if path := os.environ.get("PEER_JOURNAL"):
        with lock, open(path, "a") as file:
            file.write(json.dumps({"event": event, **facts}) + "\n")


def await_start(tag: str) -> None:
    """Wait for the call with this tag, which may be another process's."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with open(os.environ["PEER_JOURNAL"]) as file:
            if any(line.startswith(f'{{"event": "started", "tag": "{tag}"') for line in file):
                return
        time.sleep(0.02)


class Cancelled(Exception):
    pass


class Failed(Exception):
    """A JSON-RPC error."""


class Session:
    """What one client has open here."""

    def __init__(self, era: str) -> None:
        self.era = era
        self.id = f"session-{next(numbers)}"
        self.waiting: dict[str, tuple[threading.Event, list[Any]]] = {}
        self.calls: dict[Any, Call] = {}

    def received(self, message: dict[str, Any], say: Say, **facts: Any) -> None:
        """One message from the client; blocks until a request is answered."""
        if "method" not in message:
            event, replies = self.waiting.get(message["id"], (threading.Event(), []))
            replies.append({name: message[name] for name in ("result", "error") if name in message})
            event.set()
        elif "id" in message:
            self.serve(message, say, **facts)
        elif message["method"] == "notifications/cancelled" and message["params"]["requestId"] in self.calls:
            self.calls[message["params"]["requestId"]].cancel("notified")

    def serve(self, message: dict[str, Any], say: Say, **facts: Any) -> None:
        call = self.calls[message["id"]] = Call(self, message, say, **facts)
        try:
            result = call.answer()
        except Cancelled:
            return
        except Failed as failed:
            say({"jsonrpc": "2.0", "id": call.id, "error": failed.args[0]})
        else:
            if self.era == "modern":
                result = {"resultType": "complete"} | result
            say({"jsonrpc": "2.0", "id": call.id, "result": result})
        finally:
            del self.calls[call.id]


class Call:
    def __init__(self, session: Session, message: dict[str, Any], say: Say, **facts: Any) -> None:
        self.session = session
        self.id = message["id"]
        self.method = message["method"]
        self.params = message.get("params") or {}
        self.meta = self.params.get("_meta") or {}
        self.say = say
        self.facts = facts
        self.changed = threading.Event()
        self.put: list[tuple[threading.Event, list[Any]]] = []
        self.cancelled = False
        self.tag = ""
        self.plan_of_call: dict[str, Any] = {}

    def cancel(self, how: str) -> None:
        if not self.cancelled and not self.plan_of_call.get("deaf"):
            self.cancelled = True
            journal("cancelled", tag=self.tag, how=how)
            self.changed.set()
            for event, _ in self.put:
                event.set()

    def answer(self) -> dict[str, Any]:
        match self.method:
            case "initialize":
                journal("initialized", capabilities=self.params["capabilities"])
                return greeting("legacy")
            case "server/discover" if self.session.era == "modern":
                return greeting("modern")
            case "ping":
                return {}
            case "tools/list":
                return hinted(self, {"tools": TOOLS})
            case "prompts/list":
                return hinted(self, {"prompts": [{"name": "ask", "arguments": [{"name": "plan"}]}]})
            case "resources/list":
                return hinted(self, {"resources": []})
            case "resources/templates/list":
                return hinted(self, {"resourceTemplates": [{"uriTemplate": TEMPLATE, "name": "ask"}]})
            case "tools/call" | "prompts/get" | "resources/read":
                return self.planned()
        if self.method.startswith("tasks/"):
            return served_task(self)
        raise Failed({"code": -32601, "message": f"no {self.method}"})

    @property
    def plan(self) -> dict[str, Any]:
        arguments = self.params.get("arguments") or {}
        if self.method == "tools/call":
            found = arguments.get("plan") or {}
        elif self.method == "prompts/get":
            found = json.loads(arguments["plan"])
        else:
            found = json.loads(urllib.parse.unquote(self.params["uri"].split("/")[2]))
        return dict(found)

    def planned(self) -> dict[str, Any]:
        plan = self.plan
        self.tag, self.plan_of_call = plan.get("tag", ""), plan
        journal("started", tag=self.tag, params=self.params, **self.facts)
        if after := plan.get("after"):
            await_start(after)
        if "refusal" in plan and self.tag not in refused:
            refused.add(self.tag)
            raise Failed(plan["refusal"])
        if self.method == "tools/call" and self.params["name"].endswith("_task"):
            if "task" in self.params or EXTENSION in str(self.meta.get(PREFIX + "clientCapabilities")):
                return Task(self, plan).created()
            if self.params["name"] == "only_task":
                raise Failed({"code": -32601, "message": "only as a task"})
        if self.session.era == "modern":
            return self.rounds_modern(plan)
        return self.ended(plan, [self.round(plan, number) for number in range(len(plan.get("rounds", [])))])

    def round(self, plan: dict[str, Any], number: int, **mark: Any) -> list[Any]:
        """Put the questions of one round and wait for all the replies."""
        self.put = []
        for question in plan["rounds"][number]:
            id = f"question-{next(numbers)}"
            self.put.append(self.session.waiting.setdefault(id, (threading.Event(), [])))
            params = dict(question.get("params") or {})
            if mark:
                params["_meta"] = params.get("_meta", {}) | mark
            asked = {"jsonrpc": "2.0", "id": id, "method": question["method"]}
            self.say(asked | ({"params": params} if params else {}))
            journal("asked", tag=self.tag, id=id)
        if plan.get("impatient"):
            return []
        for event, replies in self.put:
            event.wait(PATIENCE_S)
            if not replies:
                raise Cancelled
            journal("replied", tag=self.tag, reply=replies[0])
        self.progress(plan, number + 1)
        return [replies[0] for _, replies in self.put]

    def rounds_modern(self, plan: dict[str, Any]) -> dict[str, Any]:
        rounds = plan.get("rounds", [])
        state = json.loads(self.params["requestState"]) if "requestState" in self.params else {"replies": []}
        replies = state["replies"]
        if "requestState" in self.params:
            asked = range(len(rounds[len(replies)]))
            given = self.params.get("inputResponses") or {}
            journal("replied", tag=self.tag, given=given, intact=state.get("mark") == STATE_MARK)
            if all(f"k{n}" in given for n in asked):
                replies.append([given[f"k{n}"] for n in asked])
                self.progress(plan, len(replies))
        if len(replies) == len(rounds):
            return self.ended(plan, replies)
        put = {f"k{n}": question for n, question in enumerate(rounds[len(replies)])}
        state = json.dumps({"replies": replies, "mark": STATE_MARK}, ensure_ascii=False)
        return {"resultType": "input_required", "inputRequests": put, "requestState": state}

    def progress(self, plan: dict[str, Any], number: int) -> None:
        if plan.get("progress") and "progressToken" in self.meta:
            params = {"progressToken": self.meta["progressToken"], "progress": number, "message": "one more"}
            self.say({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    def ended(self, plan: dict[str, Any], replies: list[Any]) -> dict[str, Any]:
        if plan.get("hang") or plan.get("slow"):
            self.changed.wait(PATIENCE_S if plan.get("hang") else plan["slow"])
        if self.cancelled:
            raise Cancelled
        journal("ended", tag=self.tag)
        text = json.dumps({"tag": self.tag, "replies": replies})
        if self.method == "tools/call":
            return {"content": [{"type": "text", "text": text}]}
        if self.method == "prompts/get":
            return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}
        return hinted(self, {"contents": [{"uri": self.params["uri"], "text": text}]})


class Task:
    """Work that goes on after its call was answered: revision 2025-11-25, or the extension of 2026-07-28."""

    def __init__(self, call: Call, plan: dict[str, Any]) -> None:
        self.id = f"own-{call.tag}"
        self.call = call
        self.plan = plan
        self.status = "input_required" if plan.get("rounds") else "working"
        self.replies: list[Any] = []
        self.done = threading.Event()
        tasks[self.id] = self
        if self.status == "working" and not plan.get("hang"):
            self.complete()

    @property
    def is_modern(self) -> bool:
        return self.call.session.era == "modern"

    def facts(self) -> dict[str, Any]:
        ttl = {"ttlMs": 60000, "pollIntervalMs": 50} if self.is_modern else {"ttl": 60000, "pollInterval": 50}
        stamp = "2026-11-22T00:00:00Z"
        facts = {"taskId": self.id, "status": self.status, "createdAt": stamp, "lastUpdatedAt": stamp}
        return facts | ttl | {"vendorOfTask": 1}

    def created(self) -> dict[str, Any]:
        return {"resultType": "task", **self.facts()} if self.is_modern else {"task": self.facts()}

    def complete(self) -> None:
        self.status = "completed"
        self.done.set()

    def outcome(self) -> dict[str, Any]:
        text = json.dumps({"tag": self.call.tag, "replies": self.replies})
        return {"content": [{"type": "text", "text": text}]}

    def questions(self) -> dict[str, Any]:
        return {f"t{number}": question for number, question in enumerate(self.plan["rounds"][0])}


def served_task(call: Call) -> dict[str, Any]:
    if call.method == "tasks/list":
        return {"tasks": [task.facts() for task in tasks.values()]}
    task = tasks.get(call.params.get("taskId", ""))
    journal(call.method, tag=task.call.tag if task else "", **call.facts)
    if task is None:
        raise Failed({"code": -32602, "message": "no such task"})
    if call.method == "tasks/cancel":
        task.status = "cancelled"
        task.done.set()
        if not task.is_modern:
            call.say({"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": task.facts()})
        return {} if task.is_modern else task.facts()
    if call.method == "tasks/result":
        call.tag = task.call.tag
        if task.status == "input_required":
            task.replies.append(call.round(task.plan, 0, **{RELATED: {"taskId": task.id}}))
            task.complete()
        task.done.wait(PATIENCE_S)
        return task.outcome() | {"_meta": {RELATED: {"taskId": task.id}}}
    if call.method == "tasks/update":
        task.replies.append(call.params["inputResponses"])
        task.complete()
        return {}
    more = {"result": task.outcome()} if task.is_modern and task.status == "completed" else {}
    return task.facts() | (
        {"inputRequests": task.questions()} if task.status == "input_required" and task.is_modern else more
    )


def greeting(era: str) -> dict[str, Any]:
    offered: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {}}
    if era == "legacy":
        offered["tasks"] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
        about = {"name": "asking", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": offered, "serverInfo": about}
    offered["extensions"] = {EXTENSION: {}}
    return {"supportedVersions": ["2026-07-28"], "capabilities": offered, "ttlMs": 1000, "cacheScope": "private"}


def hinted(call: Call, result: dict[str, Any]) -> dict[str, Any]:
    return result | ({"ttlMs": 1000, "cacheScope": "private"} if call.session.era == "modern" else {})


ANY = {"type": "object"}
TEMPLATE = "asking.{}://{{plan}}/"
TOOLS = [
    {"name": "ask", "inputSchema": ANY},
    {"name": "ask_too", "inputSchema": ANY},
    {"name": "as_task", "inputSchema": ANY, "execution": {"taskSupport": "optional"}},
    {"name": "only_task", "inputSchema": ANY, "execution": {"taskSupport": "required"}},
]


# Transports


def stdio(era: str) -> None:
    session = Session(era)

    def say(message: dict[str, Any]) -> None:
        line = json.dumps(message)
        with lock:
            print(line, flush=True)

    for line in sys.stdin:
        threading.Thread(target=session.received, args=(json.loads(line), say), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    era = ""
    sessions: dict[str, Session] = {}
    streams: dict[str, Say] = {}

    def log_message(self, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path != "/sse":
            self.plain(405)
            return
        session = Session("legacy")
        self.begin_stream()
        self.sessions[session.id] = session
        self.streams[session.id] = self.event
        self.write(f"event: endpoint\ndata: /messages?id={session.id}\n\n")
        while not self.has_left():
            threading.Event().wait(0.02)

    def do_DELETE(self) -> None:
        self.plain(200)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(body)
        if self.path.startswith("/messages"):
            session = self.sessions[self.path.partition("id=")[2]]
            self.plain(202)
            say = self.streams[session.id]
            threading.Thread(target=session.received, args=(message, say), daemon=True).start()
        elif self.era == "modern":
            self.modern(message)
        else:
            self.legacy(message)

    def modern(self, message: dict[str, Any]) -> None:
        if self.headers.get("MCP-Protocol-Version") != "2026-07-28":
            self.plain(400)
            return
        session = Session("modern")
        self.begin_stream()
        named = self.headers.get("Mcp-Name")
        thread = threading.Thread(target=session.received, args=(message, self.event), kwargs={"named": named})
        thread.start()
        while thread.is_alive():
            thread.join(0.02)
            if self.has_left():
                for call in list(session.calls.values()):
                    call.cancel("closed")
        self.end_stream()

    def legacy(self, message: dict[str, Any]) -> None:
        if message.get("method") == "initialize":
            session = Session("legacy")
            self.sessions[session.id] = session
            result = Call(session, message, lambda message: None).answer()
            body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
            self.plain(200, body, ("Mcp-Session-Id", session.id))
            return
        found = self.sessions.get(self.headers.get("Mcp-Session-Id", ""))
        if found is None:
            self.plain(400)
        elif "id" not in message or "method" not in message:
            self.plain(202)
            found.received(message, self.event)
        else:
            self.begin_stream()
            found.received(message, self.event)
            self.end_stream()

    def plain(self, status: int, body: bytes = b"", *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Type", "application/json"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def event(self, message: dict[str, Any]) -> None:
        self.write(f"event: message\ndata: {json.dumps(message)}\n\n")

    def write(self, text: str) -> None:
        raw = text.encode()
        with lock:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))

    def end_stream(self) -> None:
        with lock:
            self.wfile.write(b"0\r\n\r\n")

    def has_left(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and self.connection.recv(1, 2) == b""  # MSG_PEEK


def http(era: str, ready_fd: int) -> None:
    Handler.era = era
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    os.write(ready_fd, json.dumps({"port": server.server_address[1]}).encode() + b"\n")
    server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=("stdio", "http", "sse"), default="stdio")
    parser.add_argument("--era", choices=("legacy", "modern"), default="legacy")
    parser.add_argument("--name", default="peer")
    parser.add_argument("--ready-fd", type=int, default=2)
    chosen = parser.parse_args()
    global TEMPLATE
    TEMPLATE = TEMPLATE.format(chosen.name.replace("_", "-"))
    if chosen.transport == "stdio":
        stdio(chosen.era)
    else:
        http(chosen.era, chosen.ready_fd)


if __name__ == "__main__":
    main()
