"""`mcpstatus --watch`: the page of `screen` on a terminal, drawn anew every few seconds, until Ctrl-C.

On a screen of its own, as pagers do, so that what stood on the terminal stands there again at the end; each frame is one
write over the one before, so that nothing flickers. A terminal that changes its size is drawn to at once.
"""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from monitoring import screen

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_LINE_END, _TO_SCREEN_END = "\x1b[H", "\x1b[K", "\x1b[J"

Document = Mapping[str, Any]


def lines(ask: Callable[[], Document], every_s: float) -> Iterator[Document | None]:
    """For a pipe: a document each time. None in between: a reader that left is noticed then."""
    while True:
        yield ask()
        until = time.monotonic() + every_s
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            yield None


def watch(ask: Callable[[], Document], every_s: float, out: TextIO = sys.stdout) -> None:
    """Until Ctrl-C, TERM, or until nobody looks any more."""
    resized = threading.Event()
    before, asked_at, rates = None, 0.0, {}
    with _screen(out), _resizes(resized):
        try:
            while True:
                document, now = ask(), time.monotonic()
                rates = screen.calls_per_minute(before, document, now - asked_at)
                before, asked_at = document, now
                _draw(out, document, rates, every_s)
                while (left := asked_at + every_s - time.monotonic()) > 0:
                    if resized.wait(left):
                        resized.clear()
                        _draw(out, document, rates, every_s)
        except (KeyboardInterrupt, OSError):
            return


def _draw(out: TextIO, document: Document, rates: Mapping[str, float | None], every_s: float) -> None:
    width, height = shutil.get_terminal_size()
    colour = "NO_COLOR" not in os.environ
    page = screen.frame(document, calls_per_minute=rates, width=width, height=height - 1, colour=colour)
    stamp = f"{time.strftime('%H:%M:%SZ', time.gmtime())}, every {every_s:g} s, Ctrl-C ends"[:width]
    body = "".join(f"{line}{_TO_LINE_END}\r\n" for line in page)
    out.write(f"{_HOME}{body}{stamp}{_TO_LINE_END}{_TO_SCREEN_END}")
    out.flush()


@contextmanager
def _screen(out: TextIO) -> Iterator[None]:
    out.write(_ENTER)
    out.flush()
    try:
        yield
    finally:
        try:
            out.write(_LEAVE)
            out.flush()
        except OSError:  # The terminal is gone, and there is nothing to give back.
            return


@contextmanager
def _resizes(resized: threading.Event) -> Iterator[None]:
    """TERM and a terminal that hangs up end it as Ctrl-C does: the screen is given back."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = {signal.SIGWINCH: signal.signal(signal.SIGWINCH, lambda *_: resized.set())}
    before |= {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
