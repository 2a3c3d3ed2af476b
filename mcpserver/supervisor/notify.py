"""Telling systemd how it goes: READY, STOPPING and the watchdog, as datagrams. Without NOTIFY_SOCKET it says nothing.

Nobody's readiness may depend on it: a socket that does not take a message loses it.
"""

import contextlib
import socket
from collections.abc import Mapping

# What belongs to this process alone and must not reach its children: they would answer for it.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class Notifier:
    """`interval_s` is how often `alive` wants to be called; None when nobody watches."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        microseconds = environment.get("WATCHDOG_USEC", "")
        self.interval_s = int(microseconds) / 2e6 if self._address and microseconds.isdigit() else None

    def ready(self, words: str) -> None:
        self._send(f"READY=1\nSTATUS={words}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.setblocking(False)
            peer.sendto(message.encode(), self._address)
