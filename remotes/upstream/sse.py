"""Remotes that speak HTTP+SSE (2024-11-05, basic/transports): answers come down one stream, requests go up as POSTs."""

import asyncio
import contextlib

from mcpserver.protocol import jsonrpc, sse
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.connection import Listener
from remotes.upstream.credential import Credential
from remotes.upstream.duplex import Duplex
from remotes.upstream.faults import classified, read_excerpt, unexpected_status
from remotes.upstream.http1 import HttpError, Response
from remotes.upstream.origin import Origin
from remotes.upstream.outcome import Failed, Failure, Fault


async def open_sse(
    spec: RemoteSpec,
    origin: Origin,
    listener: Listener,
    credential: Credential,
    *,
    deadline: float,
    event_max_bytes: int,
) -> Duplex:
    """Open the stream and learn where to POST; the handshake is the caller's. Raises Failed."""
    wire = SseWire(spec, origin, credential)
    channel = Duplex(spec.name, wire, listener)
    try:
        async with asyncio.timeout_at(deadline):
            await wire.start(channel, event_max_bytes)
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

    async def start(self, channel: Duplex, event_max_bytes: int) -> None:
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
        self._pump = asyncio.create_task(self._read(channel, self._stream, event_max_bytes))
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

    async def _read(self, channel: Duplex, stream: Response, event_max_bytes: int) -> None:
        failure = Failure(Fault.BROKEN, "answer", f"the event stream of {self._spec.name} ended")
        try:
            splitter = sse.Splitter(event_max_bytes)
            while piece := await stream.take():
                for event in splitter.feed(piece):
                    self._take(channel, event)
        except HttpError as error:
            failure = classified(self._spec.name, error, "answer")
        except sse.TooLong as error:
            failure = Failure(Fault.TOO_LARGE, "answer", f"{self._spec.name}: {error}")
        except Failed as failed:
            failure = failed.failure
        finally:
            stream.close()
            if not self._post_head.done():
                self._post_head.set_exception(Failed(failure))
            channel.broke(failure)

    def _take(self, channel: Duplex, event: sse.Event) -> None:
        if event.name == "endpoint":
            self._learn(event.data.decode("utf-8", "replace"))
        elif event.name == "message":
            try:
                channel.received(event.data)
            except jsonrpc.Malformed as error:
                failure = Failure(Fault.INVALID, "answer", f"{self._spec.name}: {error.message}", event.data[:4096])
                raise Failed(failure) from None

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
