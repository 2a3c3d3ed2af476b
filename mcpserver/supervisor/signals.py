"""Signals as readable bytes: a loop handles them between two events, never inside one."""

import selectors
import signal
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


@contextmanager
def read(
    selector: selectors.BaseSelector, numbers: Collection[signal.Signals], on_signal: Callable[[int], None]
) -> Iterator[None]:
    """While the block runs, `on_signal` hears of each of `numbers` from the selector's loop."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)

    def hear() -> None:
        for number in reader.recv(4096):
            if number in numbers:
                on_signal(number)

    previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    previous = {number: signal.signal(number, lambda *_: None) for number in numbers}
    selector.register(reader, selectors.EVENT_READ, hear)
    try:
        yield
    finally:
        selector.unregister(reader)
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        reader.close()
        writer.close()
