"""What a gateway's worker costs, and what a neighbour notices, while somebody else does what they should not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil

MIB = 1024 * 1024


def worker(supervisor: int) -> psutil.Process:
    """The process that serves, among those that the supervisor started."""
    family = psutil.Process(supervisor).children(recursive=True)
    return next(one for one in family if "mcpgateway" in " ".join(one.cmdline()))


class Watch:
    """A worker's memory, and the slowest `visit` of a neighbour, which raises when it is not served."""

    def __init__(self, process: psutil.Process, visit: Callable[[], object]) -> None:
        self._process = process
        self._visit = visit
        self._over = threading.Event()
        self._failures: list[BaseException] = []
        self.before = self.most = process.memory_info().rss
        self.visits = 0
        self.slowest_s = 0.0

    def __enter__(self) -> Watch:
        self._threads = [threading.Thread(target=work) for work in (self._weigh, self._call)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    @property
    def more_mib(self) -> float:
        return (self.most - self.before) / MIB

    def _weigh(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, self._process.memory_info().rss)

    def _call(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self._visit()
            except Exception as error:
                self._failures.append(error)
                return
            self.visits += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if self._over.wait(0.05):
                return
