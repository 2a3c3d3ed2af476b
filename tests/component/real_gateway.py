"""A real gateway (`manage.py mcpgateway`, a process of its own) in front of real remotes, and a client of raw HTTP.

What the endpoint's tests talk through. Two gateways for the whole run: `gateway` with all transports and eras behind it and the
limits of an installation, `tight` with limits that are met after a few requests and a remote that is down. Both end with the run.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import http.client
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from mcpserver.lib import control
from tests import peers
from tests.system import servers

ROOT = Path(__file__).resolve().parents[2]
ODD_PEER = Path(__file__).with_name("odd_peer.py")
PATIENCE_S = 20.0
# With more than one, a gateway's requests go to its workers in turns, each on a connection of its own: nothing is sticky. They
# have a Redis in common, as they must have (`mcpserver start` refuses several without).
WORKERS = int(os.environ.get("MCP_TEST_WORKERS", "1"))
# With these, each of them is a machine of its own: its own folders, and nothing in common but Redis and a PostgreSQL.
REDIS = os.environ.get("MCP_TEST_REDIS_URL", "")
POSTGRES = os.environ.get("MCP_TEST_DATABASE_URL", "")
NODES = bool(REDIS and POSTGRES)
MODERN = "2026-07-28"
PREFIX = "io.modelcontextprotocol/"
Headers = Iterable[tuple[str, str]]

_PREPARE = """
import json, django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from keys import services
GRANTS = {
    "narrow": {"mcps": ("demo", "odd", "old"), "deny": ("*__echo", "old__*", "odd__peer://*")},
    "counted": {"rate": 3, "rates": (("demo", 1),), "max_connections": 1},
}
NAMES = ("main", "other", "doomed", *GRANTS)
made = {name: services.generate(name=name, actor="test", changes=GRANTS.get(name, {})) for name in NAMES}
print(json.dumps({name: one["key"] for name, one in made.items()}))
"""


def until(look: Callable[[], Any], what: str = "", *, within_s: float = PATIENCE_S) -> Any:
    """Look until there is something; a bound, not a pause that hopes."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what or look}; last seen {found!r}"
        time.sleep(0.02)
    return found


class Reply:
    """A whole HTTP answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def messages(self) -> list[Any]:
        """The JSON-RPC messages, whether they came as JSON or as a stream."""
        if self.headers.get("content-type") != "text/event-stream":
            return [self.json]
        blocks = self.body.decode().split("\n\n")
        lines = (line for block in blocks for line in block.split("\n") if line.startswith("data: "))
        return [json.loads(line[6:]) for line in lines]

    @property
    def error(self) -> tuple[int, int, Any]:
        """HTTP status, code and id; the document's shape is checked whole."""
        document = self.json
        assert set(document) == {"jsonrpc", "id", "error"}, document
        assert document["jsonrpc"] == "2.0"
        assert set(document["error"]) <= {"code", "message", "data"}
        assert self.headers["content-type"] == "application/json"
        return self.status, document["error"]["code"], document["id"]

    @property
    def result(self) -> Any:
        final = self.messages[-1]
        assert "result" in final, final
        return final["result"]


class Stream:
    """An open event stream, read event by event."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.connection = connection
        self.response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    def line(self, within_s: float = PATIENCE_S) -> bytes:
        """One line with its end; b"" at the end of the stream."""
        if self.connection.sock is not None:
            self.connection.sock.settimeout(within_s)
        return self.response.readline()

    def event(self, within_s: float = PATIENCE_S) -> tuple[str, str] | None:
        """The next event's name and data, comments skipped; None at the end."""
        name, data = "", list[str]()
        while line := self.line(within_s):
            text = line.decode().rstrip("\n")
            if not text and data:
                return name, "\n".join(data)
            field, _, value = text.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
        return None

    def message(self, within_s: float = PATIENCE_S) -> Any:
        """The next JSON-RPC message; None at the end."""
        event = self.event(within_s)
        if event is None:
            return None
        assert event[0] == "message", event
        return json.loads(event[1])

    def answer(self, id: Any) -> Any:
        """The answer to one request; what comes before it is read over."""
        while (message := self.message()) is not None:
            if message.get("id") == id and "method" not in message:
                return message
        raise AssertionError(f"the stream ended before the answer to {id}")

    def rest(self) -> list[tuple[str, str]]:
        events = []
        while (event := self.event()) is not None:
            events.append(event)
        return events

    def close(self) -> None:
        self.response.close()
        self.connection.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """One caller with one key. Every request has a connection of its own."""

    def __init__(self, port: int | Callable[[], int], key: str, address: str = "127.0.0.1") -> None:
        self._port = port
        self.key = key
        self._address = address

    @property
    def port(self) -> int:
        return self._port if isinstance(self._port, int) else self._port()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Headers = (),
        *,
        host: str | None = "127.0.0.1",
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Exactly these headers, doubled ones too."""
        connection = self.post_only(method, path, body, headers, host=host)
        return connection, connection.getresponse()

    def post_only(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Headers = (),
        *,
        host: str | None = "127.0.0.1",
    ) -> http.client.HTTPConnection:
        """Send, and leave the answer unread."""
        connection = http.client.HTTPConnection(self._address, self.port, timeout=PATIENCE_S)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if host is not None:
            connection.putheader("Host", host)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Headers = (),
        *,
        host: str | None = "127.0.0.1",
    ) -> Reply:
        connection, response = self.send(method, path, body, headers, host=host)
        with contextlib.closing(connection):
            return Reply(response)

    def stream(self, method: str, path: str, body: bytes | None = None, headers: Headers = ()) -> Stream:
        return Stream(*self.send(method, path, body, headers))

    @property
    def bearer(self) -> tuple[str, str]:
        return "Authorization", f"Bearer {self.key}"

    def basics(self, *, accept: str = "application/json, text/event-stream") -> list[tuple[str, str]]:
        return [self.bearer, ("Content-Type", "application/json"), ("Accept", accept)]

    # 2026-07-28

    def modern_request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        id: Any = 1,
        meta: Mapping[str, Any] | None = None,
        headers: Mapping[str, str | None] | None = None,
        accept: str = "application/json, text/event-stream",
    ) -> tuple[bytes, list[tuple[str, str]]]:
        """Body and headers of a good request; `headers` and `meta` replace, and remove with None."""
        whole = {PREFIX + "protocolVersion": MODERN, PREFIX + "clientCapabilities": {}} | dict(meta or {})
        whole = {key: value for key, value in whole.items() if value is not None}
        params = dict(params or {}) | {"_meta": whole}
        named = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        about = params.get("name", params.get("uri"))
        if method in ("tools/call", "prompts/get", "resources/read") and isinstance(about, str):
            named["Mcp-Name"] = about if about.isascii() and about.isprintable() else sentinel(about)
        chosen = named | dict(headers or {})
        body = json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()
        return body, [
            *self.basics(accept=accept),
            *((name, value) for name, value in chosen.items() if value is not None),
        ]

    def modern(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> Reply:
        return self.ask("POST", "/mcp", *self.modern_request(method, params, **options))

    def modern_stream(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> Stream:
        return self.stream("POST", "/mcp", *self.modern_request(method, params, **options))

    # Handshake revisions over /mcp

    def session(self, revision: str = "2025-11-25", capabilities: Mapping[str, Any] | None = None) -> Session:
        reply = self.ask("POST", "/mcp", initialize(revision, capabilities), self.basics())
        assert reply.status == 200, reply.body
        session = Session(self, reply.headers["mcp-session-id"], reply.result)
        assert session.tell("notifications/initialized").status == 202
        return session

    # 2024-11-05

    def relay(self) -> Relay:
        return Relay(self, self.stream("GET", "/sse", None, [self.bearer, ("Accept", "text/event-stream")]))


class Session:
    """A handshake session over Streamable HTTP."""

    def __init__(self, client: Client, id: str, greeting: Any) -> None:
        self.client = client
        self.id = id
        self.greeting = greeting

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [*self.client.basics(), ("Mcp-Session-Id", self.id), ("MCP-Protocol-Version", "2025-11-25")]

    def call(self, method: str, params: Any = None, *, id: Any = 1) -> Reply:
        return self.client.ask("POST", "/mcp", message(method, params, id=id), self.headers)

    def begin(self, method: str, params: Any = None, *, id: Any = 1) -> http.client.HTTPConnection:
        return self.client.post_only("POST", "/mcp", message(method, params, id=id), self.headers)

    def tell(self, method: str, params: Any = None) -> Reply:
        return self.client.ask("POST", "/mcp", message(method, params), self.headers)

    def stream(self) -> Stream:
        head = [self.client.bearer, ("Accept", "text/event-stream"), ("Mcp-Session-Id", self.id)]
        return self.client.stream("GET", "/mcp", None, head)

    def delete(self) -> Reply:
        return self.client.ask("DELETE", "/mcp", None, [self.client.bearer, ("Mcp-Session-Id", self.id)])


class Relay:
    """A session of 2024-11-05: the stream, and the address that it named."""

    def __init__(self, client: Client, stream: Stream) -> None:
        self.client = client
        self.stream = stream
        event = stream.event()
        assert event is not None, stream.status
        self.first, self.address = event

    def post(self, body: bytes, **options: Any) -> Reply:
        return self.client.ask("POST", self.address, body, self.client.basics(), **options)

    def opened(self, revision: str = "2024-11-05") -> Relay:
        assert self.post(initialize(revision)).status == 202
        assert self.stream.answer(0)["result"]["protocolVersion"] == revision
        assert self.post(message("notifications/initialized")).status == 202
        return self

    def call(self, method: str, params: Any = None, *, id: Any = 1) -> Any:
        reply = self.post(message(method, params, id=id))
        assert (reply.status, reply.body) == (202, b"Accepted"), reply.body
        return self.stream.answer(id)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


class Worker:
    """One process of a gateway; those of one gateway share its folder, as behind one supervisor, unless they are nodes."""

    def __init__(self, number: int, gateway: Gateway) -> None:
        own = gateway.node(number)
        self.door = Path(own["MCP_RUN_DIR"]) / f"gateway-{number}.sock"
        self._output = gateway.folder / (f"output-{number}" if number else "output")
        self._pipe, write_end = os.pipe()
        with self._output.open("wb") as output, socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
            self.port = listener.getsockname()[1]
            os.set_inheritable(listener.fileno(), True)
            command = [sys.executable, str(ROOT / "manage.py"), "mcpgateway", "--worker", str(number)]
            self.process = subprocess.Popen(
                [*command, "--fd", str(listener.fileno()), "--ready-fd", str(write_end)],
                env=own | {"MCP_NODE_URL": f"http://127.0.0.1:{self.port}"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(listener.fileno(), write_end),
                start_new_session=True,
            )
        os.close(write_end)

    def wait_until_ready(self) -> None:
        ready, _, _ = select.select([self._pipe], [], [], PATIENCE_S)
        line = os.read(self._pipe, 65536) if ready else b""
        os.close(self._pipe)
        assert line.startswith(b'{"ok": true'), (line, self._output.read_text())


class Gateway:
    """The process, its folders and its configuration file."""

    def __init__(self, folder: Path, keys: Mapping[str, str], remotes: Mapping[str, Any], **limits: str) -> None:
        self.folder = folder
        self.keys = keys
        self.remotes = dict(remotes)
        self.journal = folder / "journal"
        self.environment = environment(folder) | limits
        self.write_config()
        self.workers: list[Worker] = []
        self._ports: Iterator[int] = iter(())

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The only worker's, or the first one's."""
        return self.workers[0].process

    @property
    def port(self) -> int:
        """Of another worker each time, where there are several: no request comes where the one before it came."""
        return next(self._ports)

    def node(self, number: int) -> dict[str, str]:
        """The environment of one worker; a node of its own has a copy of the configuration in folders of its own."""
        if not NODES or number == 0:
            return self.environment
        folder = self.folder / f"node-{number}"
        folder.mkdir()
        shutil.copy(self.folder / "mcp-config.yaml", folder)
        return self.environment | folders(folder)

    def start(self) -> Gateway:
        self.workers = [Worker(number, self) for number in range(WORKERS)]
        for worker in self.workers:
            worker.wait_until_ready()
        self._ports = itertools.cycle([worker.port for worker in self.workers])
        return self

    def client(self, name: str = "main") -> Client:
        return Client(lambda: self.port, self.keys[name])

    def status(self) -> dict[str, Any]:
        """The first worker's, with what all of them have open."""
        first, *others = self.statuses()
        for other in others:
            first["in_flight"] += other["in_flight"]
            first["connections"]["active"] += other["connections"]["active"]
        return first

    def statuses(self) -> list[dict[str, Any]]:
        return [control.ask(worker.door, {"op": "status"}) for worker in self.workers]

    def healthy(self, *names: str) -> Gateway:
        """Wait until these remotes are served."""

        def are_healthy() -> bool:
            told = [status["mcps"] for status in self.statuses()]
            return all(mcps.get(name, {}).get("status") == "healthy" for name in names for mcps in told)

        until(are_healthy, f"{names} healthy")
        return self

    def without(self, name: str) -> None:
        """Wait until no worker has this remote any more."""
        until(lambda: not any(name in status["mcps"] for status in self.statuses()), f"{name} is gone")

    def idle(self) -> None:
        """Wait until nothing of an earlier test is left: streams closed, requests ended."""

        def is_idle() -> bool:
            status = self.status()
            return not status["connections"]["active"] and not status["in_flight"]

        until(is_idle, "no open stream and no request in flight")

    def write_config(self, **more: Any) -> None:
        """The remotes and these besides; None leaves one out."""
        chosen = {name: entry for name, entry in (self.remotes | more).items() if entry is not None}
        path = self.folder / "mcp-config.yaml"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"version": 1, "mcpServers": chosen}))  # JSON is YAML
        fresh.replace(path)

    def command(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *words],
            env=self.environment,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def journal_of(self, tag: str) -> list[str]:
        """What the remotes say happened to a call with this tag, in order."""
        return [line["event"] for line in peers.journal_lines(self.journal) if line.get("tag") == tag]

    def term(self) -> None:
        for worker in self.workers:
            worker.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        for worker in self.workers:
            peers.end_group(worker.process, signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)


def environment(folder: Path) -> dict[str, str]:
    chosen = {
        "DJANGO_SETTINGS_MODULE": "mcpserver.settings",
        "SECRET_KEY": f"only-for-{folder.name}",  # what tells gateways apart that share a Redis
        "DATABASE_URL": database(folder) if NODES else f"sqlite:///{folder}/data/gateway.sqlite3",
        "REDIS_URL": redis_url(),
        "MCP_WORKERS": str(WORKERS),
        "PYTHONPATH": str(ROOT),
        "PEER_JOURNAL": str(folder / "journal"),
    }
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return inherited | chosen | folders(folder)


@functools.cache
def redis_url() -> str:
    """Of the one that was named, or of one for this run, where several workers need it."""
    if REDIS or WORKERS == 1:
        return REDIS
    running = servers.redis()
    url = running.__enter__().url
    atexit.register(running.__exit__, None, None, None)
    return url


def folders(folder: Path) -> dict[str, str]:
    chosen = {"MCP_CONFIG": str(folder / "mcp-config.yaml")}
    for name in ("data", "logs", "backups", "run"):
        (folder / name).mkdir(exist_ok=True)
        variable = {"logs": "MCP_LOG_DIR", "backups": "MCP_BACKUP_DIR"}.get(name, f"MCP_{name.upper()}_DIR")
        chosen[variable] = str(folder / name)
    return chosen


def database(folder: Path) -> str:
    """A database of its own for the gateway of this folder, made when it is asked for first."""
    name = folder.name.replace("-", "_").lower()
    with (
        psycopg.connect(POSTGRES, autocommit=True) as connection,
        contextlib.suppress(psycopg.errors.DuplicateDatabase),
    ):
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return urlsplit(POSTGRES)._replace(path=f"/{name}").geturl()


def message(method: str, params: Any = None, *, id: Any = None) -> bytes:
    """A request, or a notification without an id."""
    document: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        document["id"] = id
    if params is not None:
        document["params"] = params
    return json.dumps(document).encode()


def initialize(revision: str, capabilities: Mapping[str, Any] | None = None) -> bytes:
    client = {"name": "raw", "version": "1"}
    params = {"protocolVersion": revision, "capabilities": dict(capabilities or {}), "clientInfo": client}
    return message("initialize", params, id=0)


def sentinel(value: str) -> str:
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


@contextlib.contextmanager
def prepared(remotes: Mapping[str, Any], **limits: str) -> Iterator[Gateway]:
    """A folder with a migrated database and keys in it; the gateway is not started."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-"))
    done = subprocess.run(
        [sys.executable, "-c", _PREPARE],
        env=environment(folder),
        capture_output=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr.decode()
    gateway = Gateway(folder, json.loads(done.stdout), remotes, **limits)
    try:
        yield gateway
    finally:
        gateway.stop()


def demo() -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}


def odd() -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(ODD_PEER)], "env": {"PEER_JOURNAL": "${PEER_JOURNAL}"}}


@pytest.fixture(scope="session")
def _whole_gateway() -> Iterator[Gateway]:
    with prepared({}, MCP_HEARTBEAT_S="1") as gateway, contextlib.ExitStack() as stack:
        chosen = {"PEER_JOURNAL": str(gateway.journal)}
        new = stack.enter_context(peers.sdk_server("http", "--era", "modern", environment=chosen))
        old = stack.enter_context(peers.sdk_server("http", "--era", "legacy", environment=chosen))
        sse = stack.enter_context(peers.sdk_server("sse", environment=chosen))
        gateway.remotes = {
            "new": {"url": new.url},
            "old": {"url": old.url},
            "sse": {"url": sse.url, "type": "sse"},
            "odd": odd(),
            "demo": demo(),
        }
        gateway.write_config()
        yield gateway.start().healthy(*gateway.remotes)


@pytest.fixture
def gateway(_whole_gateway: Gateway) -> Gateway:
    """One gateway for all tests; each begins when nothing of the one before is left."""
    _whole_gateway.idle()
    return _whole_gateway


@pytest.fixture(scope="session")
def _tight_gateway() -> Iterator[Gateway]:
    down = f"http://127.0.0.1:{peers.free_port()}/mcp"
    limits = {"MCP_MAX_REQUESTS_IN_FLIGHT": "3", "MCP_MAX_IN_FLIGHT_PER_KEY": "2", "MCP_MAX_TOTAL_CONNECTIONS": "12"}
    limits |= {"MCP_SLOT_WAIT_S": "0.1"}
    with prepared({"odd": odd(), "down": {"url": down}}, **limits) as gateway:
        yield gateway.start().healthy("odd")


@pytest.fixture
def tight(_tight_gateway: Gateway) -> Gateway:
    _tight_gateway.idle()
    return _tight_gateway
