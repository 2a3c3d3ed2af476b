"""`mcpgateway`: one gateway worker. The supervisor runs it; people run `mcpserver start`.

Says on `--ready-fd`, in one JSON line, that it serves or why it cannot; then a line every two seconds, its beat, from the loop
that serves. Ends on SIGTERM after a drain.
"""

# First of all: this import chooses the event loop, before anything else can create one.
from gateway.serving.server import serve  # isort: skip

import asyncio
import faulthandler
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import CommandParser

from gateway import serving
from gateway.admission import guards
from gateway.control import Control
from gateway.serving import Lifecycle
from mcpserver.lib import control, log
from mcpserver.lib.command import JsonCommand, Result
from mcpserver.lib.errors import Exit, GatewayError
from mcpserver.lib.sockets import listening_socket
from mcpserver.supervisor.vigil import BEAT_EVERY_S
from remotes import selectors

if TYPE_CHECKING:
    from gateway.runtime import Runtime


class Command(JsonCommand):
    help = "Run one gateway worker in the foreground (the supervisor does this: see mcpserver start)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--fd", type=int, help="a listening socket to serve; without it, HOST and PORT are bound")
        parser.add_argument(
            "--spare", type=_spare, action="append", default=[], metavar="N:FD", help="a sibling's socket"
        )
        parser.add_argument("--ready-fd", type=int, help="where to say that it is ready, or why not")
        parser.add_argument("--stacks-fd", type=int, help="where to write the stacks on SIGABRT and crashes (stderr)")
        parser.add_argument(
            "--last-known-good", action="store_true", help="a file that is not valid can wait: what ran last goes on"
        )
        parser.add_argument("--worker", type=int, default=0, help="the number of this worker")

    def run(
        self,
        *,
        fd: int | None,
        spare: list[tuple[int, int]],
        ready_fd: int | None,
        stacks_fd: int | None,
        last_known_good: bool,
        worker: int,
    ) -> Result:
        pipe = _Pipe(ready_fd)
        guards.limit_open_files(settings.LIMITS)
        # A loop that hangs is ended by SIGABRT: where it was goes to the supervisor, which logs it.
        faulthandler.enable(sys.stderr if stacks_fd is None else stacks_fd)
        from mcpserver import asgi  # noqa: F401  Django sets logging up once more: what follows must come after it

        log.start(
            "gateway",
            settings.MCP_LOG_DIR,
            max_bytes=settings.LIMITS.log_max_bytes,
            files=settings.LIMITS.log_files,
            level=settings.LOG_LEVEL,
            target=settings.MCP_LOG_TARGET,
        )
        try:
            return {"exit": _serve(fd, dict(spare), worker, pipe, last_known_good=last_known_good)}
        except GatewayError as error:
            pipe.write(error.document())
            raise
        except OSError as error:  # A socket that cannot be made: no inode, no permission.
            cause = GatewayError("cannot_start", f"{error.strerror}: {error.filename or settings.MCP_RUN_DIR}")
            pipe.write(cause.document())
            raise cause from error
        finally:
            log.stop()


def _serve(fd: int | None, spares: dict[int, int], worker: int, pipe: "_Pipe", *, last_known_good: bool) -> int:
    listener = socket.socket(fileno=fd) if fd is not None else listening_socket(settings.HOST, settings.PORT)
    from mcpserver import asgi

    path = settings.MCP_RUN_DIR / f"gateway-{worker}.sock"
    servers: list[asyncio.AbstractServer] = []

    async def on_start() -> None:
        await asgi.start(last_known_good=last_known_good)
        servers.append(await control.listen(path, Control(asgi.runtime).handle))

    async def on_stop() -> None:
        for server in servers:
            server.close()  # The file stays: in a rolling restart it is the successor's already.
        await asgi.runtime.stop()

    exit_code = serve(
        asgi.application,
        sockets=[listener],
        limits=settings.LIMITS,
        lifecycle=Lifecycle(on_start=on_start, on_drain=asgi.runtime.drain, on_stop=on_stop),
        ready=lambda: pipe.ready(_ready(asgi.runtime), lambda: _beat_of(asgi.runtime)),
        door=asgi.runtime.neighbours.open_door(),
        spares={number: socket.socket(fileno=spare) for number, spare in spares.items()},
    )
    if exit_code:
        raise GatewayError("failed", f"the server ended with {exit_code}", exit_code=Exit.FAILED)
    return exit_code


def _ready(runtime: "Runtime") -> dict[str, Any]:
    """`pending_error`: what is wrong with the file, where the revision that ran last is served instead."""
    pending = selectors.pending_error()
    started_with = {"revision": runtime.snapshot.revision} | ({"pending_error": list(pending)} if pending else {})
    return {"ok": True, "pid": os.getpid(), "started_with": started_with}


def _beat_of(runtime: "Runtime") -> dict[str, Any]:
    return {
        "rss_mb": round(runtime.used.rss_mb, 1),
        "memory_max_mb": runtime.limits.max_memory_mb,
        "grace_s": runtime.limits.shutdown_grace_s,
        "adopted": serving.adopted(),
    }


class _Pipe:
    """To the supervisor: one line that it is ready or why not, then the beats. Never waits for whoever reads."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        if fd is not None:
            os.set_blocking(fd, False)

    def ready(self, document: dict[str, Any], beat: Callable[[], dict[str, Any]]) -> None:
        """`beat`: what the worker has to say from now on, again and again."""
        self.write(document)
        self._beat(asyncio.get_running_loop(), beat)

    def write(self, document: dict[str, Any]) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, json.dumps(document).encode() + b"\n")
        except BlockingIOError:
            return  # A supervisor that does not read has lost this beat.
        except OSError:  # It is gone.
            os.close(self._fd)
            self._fd = None

    def _beat(self, loop: asyncio.AbstractEventLoop, beat: Callable[[], dict[str, Any]]) -> None:
        if self._fd is not None:
            loop.call_later(BEAT_EVERY_S, self._beat, loop, beat)
            self.write({"beat": beat()})


def _spare(text: str) -> tuple[int, int]:
    number, _, descriptor = text.partition(":")
    return int(number), int(descriptor)
