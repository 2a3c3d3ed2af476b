"""Clients behind a cable that can be cut: a network namespace whose packets then go nowhere, without FIN and without RST.

Needs root, `ip`, and a kernel that gives namespaces: without them `island` raises Unavailable.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


class Unavailable(Exception):
    """This machine has no island."""


class Island:
    """`shore` is this machine's address as the island sees it."""

    def __init__(self, name: str, shore: str) -> None:
        self.shore = shore
        self._name = name

    def inside(self, work: Callable[[], T]) -> T:
        """Do it in a thread of the island. The sockets that it opens stay there, whoever uses them later."""
        found: list[T] = []

        def visit() -> None:
            self._enter()
            found.append(work())

        thread = threading.Thread(target=visit)
        thread.start()
        thread.join(30)
        assert found, "failed on the island"
        return found[0]

    def cut(self) -> None:
        """What the gateway sends still arrives; no answer to it leaves, of programs or of the kernel."""
        _ip("-n", self._name, "route", "add", "blackhole", f"{self.shore}/32")

    def mend(self) -> None:
        _ip("-n", self._name, "route", "del", "blackhole", f"{self.shore}/32")

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/run/netns/{self._name}").open() as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def island() -> Iterator[Island]:
    number = os.getpid() % 16384
    name, shore, sea = f"mcp{number}", f"mcps{number}", f"mcpi{number}"
    network = f"10.213.{number // 64}.{number % 64 * 4}"
    base, last = network.rsplit(".", 1)
    here, there = f"{base}.{int(last) + 1}", f"{base}.{int(last) + 2}"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"no network namespace can be made here: {error}") from None
    try:
        _ip("link", "add", shore, "type", "veth", "peer", "name", sea, "netns", name)
        _ip("address", "add", f"{here}/30", "dev", shore)
        _ip("link", "set", shore, "up")
        _ip("-n", name, "address", "add", f"{there}/30", "dev", sea)
        _ip("-n", name, "link", "set", sea, "up")
        yield Island(name, here)
    finally:
        _ip("netns", "delete", name)  # and the cable with it


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)
