"""Those who stay: callers that call again as soon as they are answered, and streams that are held open and read."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import msgspec

from tests.bench.links import FIRST_NUMBER, LINKS, Dialect, Link, LinkError, SessionLink, Target
from tests.soak.site import REMOTES

DIALECTS: tuple[Dialect, ...] = ("modern", "session", "sse")
CALL_S = 1.0
# A call that takes its time, so that as many are in flight as there are callers; and one answer in so many is large.
LARGE_EVERY, LARGE_BYTES = 50, 300_000


class _Answer(msgspec.Struct):
    id: int | None = None
    result: dict[str, Any] | None = None


class Callers:
    """`failures` in words; `latencies_s` of the calls that take their time."""

    def __init__(self, target: Target) -> None:
        self.calls = 0
        self.failures: list[str] = []
        self.latencies_s: list[float] = []
        self._target = target
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def come(self, count: int) -> None:
        links = [LINKS[DIALECTS[number % 3]](self._target) for number in range(count)]
        await asyncio.gather(*(link.open() for link in links))
        for number, link in enumerate(links):
            remote = REMOTES[number // 3 % len(REMOTES)]
            self._tasks.append(asyncio.create_task(self._call(link, remote, number)))

    async def leave(self) -> None:
        """After the answers that they wait for."""
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _call(self, link: Link, remote: str, number: int) -> None:
        slow = link.request("tools/call", {"name": f"{remote}__slow", "arguments": {"n": 2, "seconds": CALL_S}})
        large = link.request("tools/call", {"name": f"{remote}__big", "arguments": {"n": LARGE_BYTES}})
        count = FIRST_NUMBER + number  # not all at the same moment
        await asyncio.sleep(number % 10 / 10 * CALL_S)
        try:
            while not self._over:
                count += 1
                is_large = count % LARGE_EVERY == 0
                began = time.monotonic()
                body = await link.exchange((large if is_large else slow) % {b"n": count})
                self._judge(body, count, LARGE_BYTES if is_large else 0)
                if not is_large:
                    self.latencies_s.append(time.monotonic() - began)
        except (LinkError, TimeoutError) as error:
            self.failures.append(f"{type(link).__name__} to {remote}: {error or type(error).__name__}")
        finally:
            link.close()

    def _judge(self, body: bytes, number: int, at_least: int) -> None:
        answer = msgspec.json.decode(body, type=_Answer)
        result = answer.result or {}
        is_right = answer.id == number and result.get("content") and not result.get("isError") and len(body) >= at_least
        if is_right:
            self.calls += 1
        else:
            self.failures.append(f"{body[:200]!r}")


class Listeners:
    """Streams of every era that stay; `lost` counts those that did not."""

    def __init__(self, target: Target) -> None:
        self.lost = 0
        self._target = target
        self._writers: list[asyncio.StreamWriter] = []
        self._readers: list[asyncio.Task[None]] = []

    async def come(self, count: int) -> None:
        await asyncio.gather(*(self._come(DIALECTS[number % 3]) for number in range(count)))

    async def leave(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    async def _come(self, dialect: Dialect) -> None:
        request = await {"modern": self._listen, "session": self._session, "sse": self._relay}[dialect]()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        self._writers.append(writer)
        self._readers.append(asyncio.create_task(self._read(reader)))

    async def _listen(self) -> bytes:
        request = Link(self._target).request(
            "subscriptions/listen", {"notifications": {"toolsListChanged": True}}, number=1
        )
        return request % {}

    async def _session(self) -> bytes:
        link = SessionLink(self._target)
        await link.open()
        link.close()
        return self._get("/mcp", f"Mcp-Session-Id: {link.session}")

    async def _relay(self) -> bytes:
        return self._get("/sse")

    def _get(self, path: str, *more: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream"]
        return "\r\n".join([*lines, f"Authorization: Bearer {self._target.key}", *more, "", ""]).encode()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                continue
        self.lost += 1


async def eventually(ask: Callable[[], Any], *, within_s: float) -> float | None:
    """How long it took until it held, None when it never did; `ask` blocks, and runs in a thread."""
    began = time.monotonic()
    while not await asyncio.to_thread(ask):
        if time.monotonic() - began > within_s:
            return None
        await asyncio.sleep(0.1)
    return time.monotonic() - began
