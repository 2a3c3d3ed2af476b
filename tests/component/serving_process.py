"""The real server in its own process, and a client of bytes: what the tests of `gateway.serving` talk through."""

import contextlib
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.component.serving_app"
PATIENCE_S = 20


class Serving:
    def __init__(
        self, *flags: str, limits: dict[str, Any] | None = None, deadlines: dict[str, Any] | None = None
    ) -> None:
        options = json.dumps({"limits": limits or {}, "deadlines": deadlines or {}})
        self.process = subprocess.Popen(
            [sys.executable, "-m", APP, options, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.log = ""
        self._readers = [threading.Thread(target=work, daemon=True) for work in (self._read_events, self._read_log)]
        for reader in self._readers:
            reader.start()
        self.port = 0

    def _read_events(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(json.loads(line))

    def _read_log(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log += line

    def until(self, event: str) -> dict[str, Any]:
        """Read on to the named event."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                told = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event!r}; stderr: {self.log}") from None
            if told["event"] == event:
                return told

    def ready(self) -> Self:
        self.port = self.until("ready")["port"]
        return self

    def term(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self, timeout_s: float = PATIENCE_S) -> int:
        code = self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return code

    def connect(self, **options: Any) -> "Wire":
        return Wire(self.port, **options)

    def seen(self) -> dict[str, Any]:
        with self.connect() as wire:
            wire.send(b"GET /seen HTTP/1.1\r\nConnection: close\r\n\r\n")
            facts: dict[str, Any] = wire.answer().json
            return facts

    def until_seen(self, **expected: Any) -> dict[str, Any]:
        """Ask until the server has seen at least that much; a bound, not a pause that hopes."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            facts = self.seen()
            if all(facts[name] >= value for name, value in expected.items()):
                return facts
            assert time.monotonic() < deadline, f"{expected} not within {PATIENCE_S} s: {facts}"


@contextlib.contextmanager
def serving(
    *flags: str, limits: dict[str, Any] | None = None, deadlines: dict[str, Any] | None = None
) -> Iterator[Serving]:
    server = Serving(*flags, limits=limits, deadlines=deadlines)
    try:
        yield server.ready()
    finally:
        server.process.kill()
        server.exit_code()


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes, *, complete: bool = True) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.complete = complete

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, int, str]:
        """Status, code and message of an answer that the server gave by itself; its whole shape is checked."""
        document = self.json
        error = document["error"]
        assert document == {"jsonrpc": "2.0", "id": None, "error": {"code": error["code"], "message": error["message"]}}
        assert self.headers["content-type"] == "application/json"
        return self.status, error["code"], error["message"]


class Wire:
    """One raw connection."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(("127.0.0.1", port))
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def post(self, path: str = "/", body: bytes = b"", *headers: str) -> None:
        lines = "".join(f"{line}\r\n" for line in headers)
        self.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def _more(self) -> bool:
        part = self.socket.recv(65536)
        self.buffer += part
        return bool(part)

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            assert self._more(), f"the connection ended after {self.buffer!r}"
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _exactly(self, length: int) -> bytes:
        while len(self.buffer) < length:
            assert self._more(), f"the connection ended {length - len(self.buffer)} bytes early"
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return body

    def head(self) -> tuple[int, dict[str, str]]:
        status = int(self._line().split(b" ")[1])
        headers = {}
        while line := self._line():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers

    def chunk(self) -> bytes:
        length = int(self._line(), 16)
        part = self._exactly(length)
        assert self._exactly(2) == b"\r\n"
        return part

    def answer(self, *, to_head: bool = False) -> Answer:
        status, headers = self.head()
        body = b""
        if not to_head and status not in (204, 304):
            if headers.get("transfer-encoding") == "chunked":
                while part := self.chunk():
                    body += part
            else:
                body = self._exactly(int(headers["content-length"]))
        return Answer(status, headers, body)

    def ended(self, timeout_s: float = PATIENCE_S) -> bool:
        """Read to the end, whatever comes; True once the server has ended it."""
        self.socket.settimeout(timeout_s)
        try:
            while self._more():
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def pour(self, data: bytes, *, seconds: float) -> int:
        """Send it again and again as fast as it is taken; how many bytes were."""
        until, sent = time.monotonic() + seconds, 0
        while (left := until - time.monotonic()) > 0:
            if select.select([], [self.socket], [], left)[1]:
                sent += self.socket.send(data)
        return sent

    def is_quiet(self) -> bool:
        """Nothing to read, no end: looked at now, without waiting."""
        return not select.select([self.socket], [], [], 0)[0]
