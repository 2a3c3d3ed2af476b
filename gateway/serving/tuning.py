"""What makes Daphne cheaper, each for a measured reason. None changes what a client sees.

Must be imported before anything of Twisted: the loop under its reactor is chosen at the first import.
"""

import asyncio
import ctypes
import gc
import os
import sys
import time
from typing import Any

import uvloop

_TIDY_EVERY_S = 30.0
_ALL_EVERY = 4


def use_uvloop() -> None:
    """The loop under Twisted's reactor: its first importer decides, for the whole life of the process."""
    if "twisted.internet.reactor" not in sys.modules:
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def loop_of(reactor: Any) -> asyncio.AbstractEventLoop:
    """The asyncio loop that Twisted runs on; RuntimeError when somebody imported Twisted first and it is a slow one."""
    loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
    if not isinstance(loop, uvloop.Loop):
        raise RuntimeError(f"Twisted was imported before gateway.serving.server: it runs on {type(loop).__name__}")
    return loop


def use_monotonic_time(reactor: Any) -> None:
    """Twisted's timers would otherwise stop, or all fire, when somebody sets the clock."""
    reactor.seconds = time.monotonic


def leave_out_native_websockets() -> None:
    """Autobahn would load a C compiler's front end to validate the text of WebSockets, of which there are none here."""
    os.environ.setdefault("AUTOBAHN_USE_NVX", "0")


def relax_garbage_collection() -> None:
    """What was loaded at start stays for good: do not walk it again and again, and give back what loading it took."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    _libc("malloc_trim", 0)


def tidy(loop: asyncio.AbstractEventLoop, rounds: int = 0) -> None:
    """Collect twice a minute, however few there are: an ended stream leaves a hundred objects that hold each other, and by
    their number alone they would be looked for once 50,000 had come together, twenty megabytes later. What ended after long is
    old by then: every fourth time all are looked at, and pages that hold nothing any more are given back."""
    loop.call_later(_TIDY_EVERY_S, tidy, loop, rounds + 1)
    if rounds % _ALL_EVERY:
        gc.collect(1)
    elif rounds:
        gc.collect()
        _libc("malloc_trim", 0)


def share_arenas() -> None:
    """glibc gives each thread a heap of its own; ours hold next to nothing, and the pages would stay for good."""
    m_arena_max = -8
    _libc("mallopt", m_arena_max, 2)


def _libc(function: str, *arguments: int) -> None:
    """Call into the C library, if it is one that has this."""
    call = getattr(ctypes.CDLL(None), function, None)
    if call is not None:
        call(*arguments)
