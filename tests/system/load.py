"""Callers that never stop: threads that call a tool again and again, and keep what went wrong."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.component.real_gateway import Client

ECHO = ("demo__echo", {"text": "hello"})


@dataclass
class Load:
    """`failures`: an exception, a status other than 200, or an answer that is an error."""

    answered: int = 0
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, failure: str | None, took_s: float) -> None:
        with self._lock:
            self.slowest_s = max(self.slowest_s, took_s)
            if failure is None:
                self.answered += 1
            else:
                self.failures.append(failure)

    def goes_on(self, calls: int = 20, *, within_s: float = 20.0) -> None:
        """Wait until so many more have been answered."""
        wanted, until = self.answered + calls, time.monotonic() + within_s
        while self.answered < wanted:
            assert time.monotonic() < until, f"{self.answered} of {wanted} answered; {self.failures[-3:]}"
            time.sleep(0.02)


@contextlib.contextmanager
def load(*callers: Callable[[], Callable[[], str | None]], pause_s: float = 0.05) -> Iterator[Load]:
    """Each of `callers` is called in a thread of its own and gives what is then done again and again."""
    found, over = Load(), threading.Event()

    def work(caller: Callable[[], Callable[[], str | None]]) -> None:
        call = caller()
        while not over.is_set():
            began = time.monotonic()
            try:
                failure = call()
            except (OSError, http.client.HTTPException, AssertionError, ValueError, KeyError) as error:
                failure = f"{type(error).__name__}: {error}"
            found.note(failure, time.monotonic() - began)
            over.wait(pause_s)

    threads = [threading.Thread(target=work, args=(caller,), daemon=True) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


def modern(client: Client, name: str = ECHO[0], arguments: dict[str, Any] | None = None) -> Callable[[], str | None]:
    """Single requests of 2026-07-28."""
    params = {"name": name, "arguments": ECHO[1] if arguments is None else arguments}
    return lambda: judged(client.modern("tools/call", params))


def session(client: Client) -> Callable[[], str | None]:
    """One session of 2025-11-25, kept for the whole time."""
    opened = client.session()
    return lambda: judged(opened.call("tools/call", {"name": ECHO[0], "arguments": ECHO[1]}))


def relayed(client: Client) -> Callable[[], str | None]:
    """A whole session of 2024-11-05 each time. One whose stream ended with its worker, which said so, is begun again."""

    def whole() -> str | None:
        with client.relay() as relay:
            try:
                answer = relay.opened().call("tools/call", {"name": ECHO[0], "arguments": ECHO[1]}, id=9)
            except AssertionError as error:
                if "server shutting down" not in f"{error}{relay.stream.rest()}":
                    raise
                return whole()
        return None if "result" in answer else json.dumps(answer)

    return whole


def judged(reply: Any) -> str | None:
    if reply.status != 200:
        return f"{reply.status} {reply.body[:300]!r}"
    final = reply.messages[-1]
    if "result" not in final or final["result"].get("isError"):
        return json.dumps(final)[:300]
    return None
