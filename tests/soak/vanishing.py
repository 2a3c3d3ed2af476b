"""Those who go: streams of every era that are opened together and vanish, with FIN, with RST, or without a word."""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from tests.component.real_gateway import Client, Stream
from tests.soak.crowd import eventually
from tests.soak.site import Site

T = TypeVar("T")
TOGETHER = 50
LISTEN = {"notifications": {"toolsListChanged": True}}


class Vanishing:
    """`noticed_s`: the longest that those of one way were held; `failures`: those that were held beyond what is allowed."""

    def __init__(self, site: Site) -> None:
        self.vanished: Counter[str] = Counter()
        self.noticed_s: dict[str, float] = {}
        self.failures: list[str] = []
        self._site = site
        self._ways = ("FIN", "RST", "silence") if site.far else ("FIN", "RST")

    async def run(self, count: int, seconds: float, *, staying: int) -> None:
        """So many in all, evenly over the time, in batches; `staying` streams are there all the while."""
        loop = asyncio.get_running_loop()
        together = min(TOGETHER, max(1, count // len(self._ways)))
        batches = -(-count // together)
        began = loop.time()
        for number in range(batches):
            way = self._ways[number % len(self._ways)]
            await self._batch(way, min(together, count - number * together), staying)
            await asyncio.sleep(max(0.0, began + seconds * (number + 1) / batches - loop.time()))

    async def _batch(self, way: str, count: int, staying: int) -> None:
        streams = await asyncio.to_thread(self._opened, count)
        await asyncio.to_thread(self._leave, way, streams)
        allowed_s = self._site.patience.allowed_s[way]
        took = await eventually(lambda: self._site.health()["active"] <= staying, within_s=allowed_s)
        if way == "silence":
            await asyncio.to_thread(self._come_back, streams)
        self.vanished[way] += count
        self.noticed_s[way] = max(self.noticed_s.get(way, 0.0), allowed_s if took is None else took)
        if took is None:
            self.failures.append(f"streams that vanished ({way}) were held for more than {allowed_s:g} s")

    def _opened(self, count: int) -> list[Stream]:
        client = self._site.distant
        return self._there(lambda: [_open(client, number) for number in range(count)])

    def _leave(self, way: str, streams: list[Stream]) -> None:
        if way == "silence":
            assert self._site.far is not None
            self._site.far.cut()
            return
        for stream in streams:
            assert stream.connection.sock is not None
            with contextlib.suppress(OSError):
                if way == "RST":
                    stream.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    stream.connection.sock.shutdown(socket.SHUT_RDWR)
            stream.close()

    def _come_back(self, streams: list[Stream]) -> None:
        """Their sockets end while nothing can leave the island, so that the gateway never hears of it."""
        assert self._site.far is not None
        for stream in streams:
            stream.close()
        self._site.far.mend()

    def _there(self, work: Callable[[], T]) -> T:
        return self._site.far.inside(work) if self._site.far else work()


def _open(client: Client, number: int) -> Stream:
    match number % 3:
        case 0:
            stream = client.modern_stream("subscriptions/listen", LISTEN)
        case 1:
            stream = client.session().stream()
        case _:
            stream = client.relay().opened().stream
    assert stream.status == 200, stream.response.read()
    return stream
