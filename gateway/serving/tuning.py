"""What makes Daphne cheaper, each for a measured reason. None changes what a client sees.

Must be imported before anything of Twisted: the loop under its reactor is chosen at the first import.
"""

import asyncio
import gc
import sys
import time
from typing import Any

import uvloop


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


def relax_garbage_collection() -> None:
    """What was loaded at start stays for good: do not walk it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
