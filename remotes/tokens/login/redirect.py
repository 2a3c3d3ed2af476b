"""Where the person's browser comes back after the consent: a port of this machine, open for this one login, or a pasted address.

A browser on another machine (a login over SSH) cannot reach that port: it shows an error page, whose address holds all that is
needed. Whatever comes without this login's `state` is not for us and is answered with 404.
"""

import asyncio
import contextlib
import random
import secrets
import sys
import threading
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

from mcpserver.lib.errors import Exit, GatewayError

Answer = dict[str, str]

_LINE_MAX = 16 * 1024
_HEAD_S = 10.0
_PAGE = "<!doctype html><title>MCP-Server</title><p>{}</p>"
_DONE = _PAGE.format("This is all that was needed: you can close this page and go back to the terminal.")
_NOT_OURS = _PAGE.format("Nobody waits for this.")
LOOPBACK = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "::1": "::1"}


class Redirect:
    """One login's way back. `uri` is what the authorization server is told."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.state = secrets.token_urlsafe(32)
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def answer(self) -> Answer:
        """The parameters that came back, `state` checked."""
        return await asyncio.shield(self._answer)

    def offer(self, address: str) -> bool:
        """Whether `address` (a whole one, or a path with its query) is this login's answer."""
        values = parse_qs(urlsplit(address.strip()).query)
        answer = {name: found[0] for name, found in values.items() if len(found) == 1}
        is_ours = secrets.compare_digest(answer.get("state", "").encode(), self.state.encode())
        if is_ours and ("code" in answer or "error" in answer) and not self._answer.done():
            self._answer.set_result(answer)
        return is_ours

    def _nothing_came(self) -> None:
        if not self._answer.done():
            hint = "run it in a terminal, and paste the whole address at which the browser ends"
            failure = GatewayError("login_failed", "no address was pasted", hint=hint, exit_code=Exit.KEY)
            self._answer.set_exception(failure)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of a browser."""
        with contextlib.suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(_HEAD_S):
                method, target, *_ = (await reader.readline()).decode("latin-1").split(" ")
                while (await reader.readline()).strip():
                    pass
                is_path = method == "GET" and urlsplit(target).path == urlsplit(self.uri).path
                is_ours = is_path and self.offer(target)
                page = (_DONE if is_ours else _NOT_OURS).encode()
                status = "200 OK" if is_ours else "404 Not Found"
                head = f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(page)}\r\n"
                writer.write(f"{head}Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode() + page)
                await writer.drain()
        writer.close()

    def read_pasted(self, *, only: bool) -> None:
        """Take an address from standard input. In a thread of its own: reading a terminal cannot be interrupted. `only`: there
        is no other way, so that the end of the input is the end of the login."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            with contextlib.suppress(RuntimeError):  # the login has ended meanwhile
                for line in sys.stdin:
                    loop.call_soon_threadsafe(self.offer, line)
                if only:
                    loop.call_soon_threadsafe(self._nothing_came)

        threading.Thread(target=read, name="pasted", daemon=True).start()


@contextlib.asynccontextmanager
async def opened(uri: str, *, listens: bool) -> AsyncIterator[Redirect]:
    """A way back at `uri`; port 0 is any free one. GatewayError when nothing can listen there."""
    redirect = Redirect(uri)
    parts = urlsplit(uri)
    host = parts.hostname or ""
    if not listens:
        if parts.port == 0:  # browsers know no such port; nobody listens at another either
            redirect.uri = f"http://{host}:{random.randint(49152, 65535)}{parts.path}"  # noqa: S311 - no secret
        yield redirect
        return
    try:
        server = await asyncio.start_server(redirect.serve, LOOPBACK[host], parts.port or 0, limit=_LINE_MAX)
    except OSError as error:
        raise GatewayError(
            "port_taken", f"the login cannot wait at {parts.netloc}: {error.strerror}",
            hint="name another with --redirect-uri, or use --no-browser or --device",
        ) from None  # fmt: skip
    async with server:
        port = server.sockets[0].getsockname()[1]
        redirect.uri = f"http://{f'[{host}]' if ':' in host else host}:{port}{parts.path}"
        yield redirect
