"""Remotes that speak HTTP+SSE (2024-11-05, basic/transports): answers come down one stream, requests go up as POSTs."""

import asyncio
import contextlib
import logging

from mcpserver.protocol import codes, jsonrpc, sse
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.budget import FREE_BYTES, Budget, Held
from remotes.upstream.connection import Listener
from remotes.upstream.credential import Credential
from remotes.upstream.duplex import Duplex
from remotes.upstream.faults import classified, read_excerpt, unexpected_status
from remotes.upstream.http1 import HttpError, Response
from remotes.upstream.lines import Oversized
from remotes.upstream.origin import Origin
from remotes.upstream.outcome import Failed, Failure, Fault

log = logging.getLogger("mcp.upstream")

# An event that is over the cap is passed over; one that never ends is no accident.
_ENDLESS = 16


async def open_sse(
    spec: RemoteSpec,
    origin: Origin,
    listener: Listener,
    credential: Credential,
    *,
    deadline: float,
    budget: Budget,
) -> Duplex:
    """Open the stream and learn where to POST; the handshake is the caller's. Raises Failed."""
    wire = SseWire(spec, origin, credential)
    channel = Duplex(spec.name, wire, listener)
    try:
        async with asyncio.timeout_at(deadline):
            await wire.start(channel, budget)
    except TimeoutError:
        await wire.close()
        raise Failed(Failure(Fault.TIMEOUT, "connect", f"{spec.name} did not open its event stream in time")) from None
    except BaseException:
        await wire.close()
        raise
    return channel


class SseWire:
    def __init__(self, spec: RemoteSpec, origin: Origin, credential: Credential) -> None:
        self._spec = spec
        self._origin = origin
        self._credential = credential
        self._stream: Response | None = None
        self._pump: asyncio.Task[None] | None = None
        self._post_head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def start(self, channel: Duplex, budget: Budget) -> None:
        name = self._spec.name
        try:
            head = self._origin.head("GET", {**self._spec.headers, "Accept": "text/event-stream"})
            self._stream = await self._origin.send(head, self._credential.headers)
        except HttpError as error:
            raise Failed(classified(name, error, "connect")) from None
        if self._stream.status != 200:
            raise Failed(unexpected_status(name, self._stream, await read_excerpt(self._stream)))
        if self._stream.media_type != b"text/event-stream":
            excerpt = await read_excerpt(self._stream)
            raise Failed(Failure(Fault.INVALID, "handshake", f"{name} opened no event stream", excerpt))
        self._pump = asyncio.create_task(self._read(channel, self._stream, budget))
        await self._post_head

    async def send(self, message: bytes) -> None:
        """Post it; a stream that ends meanwhile ends the waiting too, because no answer can come any more."""
        assert self._pump is not None
        posting = asyncio.ensure_future(self._post(message))
        try:
            await asyncio.wait({posting, self._pump}, return_when=asyncio.FIRST_COMPLETED)
            if not posting.done():
                raise Failed(Failure(Fault.BROKEN, "send", f"the event stream of {self._spec.name} ended"))
            posting.result()
        finally:
            posting.cancel()

    async def _post(self, message: bytes) -> None:
        try:
            response = await self._origin.send(self._post_head.result(), self._credential.headers, message)
            try:
                excerpt = await read_excerpt(response)  # a connection serves again only after a whole answer
                if response.status >= 300:
                    raise Failed(unexpected_status(self._spec.name, response, excerpt))
            finally:
                response.close()
        except HttpError as error:
            raise Failed(classified(self._spec.name, error, "send")) from None

    async def close(self) -> None:
        if not self._post_head.done():
            self._post_head.cancel()
        if self._pump is not None and self._pump is not asyncio.current_task():
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        if self._stream is not None:
            self._stream.close()

    async def _read(self, channel: Duplex, stream: Response, budget: Budget) -> None:
        failure = Failure(Fault.BROKEN, "answer", f"the event stream of {self._spec.name} ended")
        try:
            cap = budget.read_max_bytes
            splitter, held = sse.Splitter(cap, passes_over=True), budget.held(self._spec.name)
            while piece := await stream.take():
                for event in splitter.feed(piece):
                    self._take(channel, event, held, cap)
                    held = budget.held(self._spec.name)  # the event took the memory with it
                if splitter.passed_over > (_ENDLESS * cap if self._post_head.done() else 0):
                    raise Failed(_too_large(self._spec.name, cap))
                if splitter.passed_over:
                    held.shrink()
                elif splitter.pending > FREE_BYTES:
                    await channel.afford(held, splitter.pending)
        except HttpError as error:
            failure = classified(self._spec.name, error, "answer")
        except Failed as failed:
            failure = failed.failure
        finally:
            stream.close()
            if not self._post_head.done():
                self._post_head.set_exception(Failed(failure))
            channel.broke(failure)

    def _take(self, channel: Duplex, event: sse.Event, held: Held, cap: int) -> None:
        if event.name == "endpoint":
            self._learn(event.data.decode("utf-8", "replace"))
        elif event.name == sse.OVERSIZED:
            ends = Oversized(event.data[: sse.ENDS_BYTES], event.data[-sse.ENDS_BYTES :])
            channel.failed(ends.number, _too_large(self._spec.name, cap))
        elif event.name == "message" and not event.is_blank:
            self._received(channel, event.data, held)

    def _received(self, channel: Duplex, raw: bytes, held: Held) -> None:
        try:
            channel.received(raw, held)
        except jsonrpc.Malformed as error:
            is_meant = error.code == codes.PARSE_ERROR and b'"method"' not in raw[: sse.ENDS_BYTES]
            if not channel.unreadable(raw, error, is_meant=is_meant):
                channel.strays += 1
                log.info("%s sent what is no message: %s", self._spec.name, error.message)

    def _learn(self, endpoint: str) -> None:
        """The POST address must stay on the stream's origin, or a remote could send our credentials elsewhere."""
        try:
            address = self._origin.address.joined(self._spec.url, endpoint)
        except ValueError:
            why = f"{self._spec.name} named an endpoint that is not on its own origin"
            raise Failed(Failure(Fault.INVALID, "handshake", why)) from None
        if not self._post_head.done():
            headers = {**self._spec.headers, "Content-Type": "application/json"}
            self._post_head.set_result(self._origin.head("POST", headers, target=address.target))


def _too_large(name: str, cap: int) -> Failure:
    return Failure(Fault.TOO_LARGE, "answer", f"{name} sent an event of more than {cap} bytes")
