"""The load: c callers in a closed loop, each with its own link, every answer's status, id and result checked.

A wrong answer is counted with its reason and never timed as a call. What is measured is what happens between two moments
of a running loop, after a warm-up, so that neither opening nor ending is part of it.
"""

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import msgspec

from tests.bench.links import ANSWER_TIMEOUT_S, FIRST_NUMBER, LINKS, NUMBER, Dialect, Link, LinkError, SseLink, Target


class _Content(msgspec.Struct):
    text: str = ""


class _Result(msgspec.Struct):
    content: list[_Content] = []
    isError: bool = False
    tools: list[msgspec.Raw] = []


class _Answer(msgspec.Struct):
    id: int | None = None
    result: _Result | None = None


_decode = msgspec.json.Decoder(_Answer).decode


@dataclass(frozen=True)
class Work:
    """What is asked again and again: `tool` called with 220 B of text, or without one the list of `tools` tools."""

    tool: str = ""
    tools: int = 0
    answer_bytes: int = 0
    text_bytes: int = 220

    def request(self, link: Link) -> bytes:
        """The request to number with `% {b"n": …}`; the number is in the text too, so a mixed-up answer is noticed."""
        if not self.tool:
            return link.request("tools/list", {})
        pad = "x" * (self.text_bytes - len(str(FIRST_NUMBER)))
        arguments = {"text": NUMBER + "-" + pad[1:]}
        return link.request("tools/call", {"name": link.target.prefix + self.tool, "arguments": arguments})

    def fault(self, number: int, body: bytes) -> str:
        """Why `body` is not the answer to request `number`; empty when it is."""
        try:
            answer = _decode(body)
        except msgspec.MsgspecError as error:
            return f"not an answer ({error}): {body[:160]!r}"
        result = answer.result
        if answer.id != number:
            return "the answer to another id"
        if result is None or result.isError:
            return f"an error: {body[:200]!r}"
        if not self.tool:
            return "" if len(result.tools) == self.tools else f"{len(result.tools)} tools listed, not {self.tools}"
        text = result.content[0].text if result.content else ""
        if self.answer_bytes:
            return "" if len(text) == self.answer_bytes else f"{len(text)} bytes answered, not {self.answer_bytes}"
        good = len(text) == self.text_bytes and text.startswith(f"{number}-x") and text.endswith("x")
        return "" if good else "another text than was sent"


@dataclass
class Tally:
    """What the callers of one round saw; latencies count only inside the measured window."""

    counting: bool = False
    stopping: bool = False
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    faults: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Window:
    """How long a round runs before, and while, it is measured."""

    warm_s: float
    seconds: float


@dataclass(frozen=True)
class Sample:
    """One round: the right answers inside the window, its length, the CPU spent in it by the measured process, the faults."""

    calls: int
    seconds: float
    cpu_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    faults: dict[str, int]

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU per call; not a number when nothing was answered."""
        return self.cpu_s / self.calls * 1e6 if self.calls else float("nan")


class Caller:
    """One client: sends, waits for the answer, checks it, sends again, until the tally says stop or its connection is lost."""

    def __init__(self, link: Link, work: Work, tally: Tally, *, reconnecting: bool = False) -> None:
        self.link = link
        self._work, self._tally, self._reconnecting = work, tally, reconnecting
        self._template = work.request(link)
        self._reopening: asyncio.Task[None] | None = None
        self._number = FIRST_NUMBER
        self._sent = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        link.answered, link.lost = self._answered, self._lost

    def send(self) -> None:
        self._number += 1
        self._sent = perf_counter()
        self.link.send(self._template % {b"n": self._number})

    def _answered(self, body: bytes, refusal: str) -> None:
        seconds = perf_counter() - self._sent
        fault = refusal or self._work.fault(self._number, body)
        if fault:
            self._tally.faults[fault] += 1
        elif self._tally.counting:
            self._tally.latencies.append(seconds)
        if self._tally.stopping:
            self._end()
        elif self._reconnecting:
            self._reopening = asyncio.ensure_future(self._reopen())
        else:
            self.send()

    async def _reopen(self) -> None:
        """A connection for each call: this one's time begins before it is made."""
        self.link.close()
        self.link = type(self.link)(self.link.target)
        began = perf_counter()
        try:
            await self.link.open()
        except (OSError, LinkError) as error:
            self._tally.faults[f"no new connection: {error}"] += 1
            self._end()
            return
        self.link.answered, self.link.lost = self._answered, self._lost
        self.send()
        self._sent = began

    def _lost(self) -> None:
        self._tally.faults["the connection was closed"] += 1
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def drive(
    target: Target,
    dialect: Dialect,
    work: Work,
    *,
    clients: int,
    window: Window,
    cpu: Callable[[], float],
    reconnecting: bool = False,
) -> Sample:
    """One round. `cpu` is read at both ends of the window: seconds of CPU of the process under test so far."""
    links = [LINKS[dialect](target) for _ in range(clients)]
    tally = Tally()
    callers: list[Caller] = []
    try:
        await asyncio.gather(*(link.open() for link in links))
        callers = [Caller(link, work, tally, reconnecting=reconnecting) for link in links]
        for caller in callers:
            caller.send()
        await asyncio.sleep(window.warm_s)
        tally.counting, began, cpu_before = True, perf_counter(), cpu()
        await asyncio.sleep(window.seconds)
        tally.counting, length, cpu_s = False, perf_counter() - began, cpu() - cpu_before
        tally.stopping = True
        _, silent = await asyncio.wait([caller.ended for caller in callers], timeout=ANSWER_TIMEOUT_S)
        if silent:
            tally.faults[f"no answer within {ANSWER_TIMEOUT_S:g} s"] += len(silent)
    except (OSError, LinkError, TimeoutError) as error:
        raise LinkError(f"{target.name} {dialect}: {error or type(error).__name__}") from None
    finally:
        for link in [caller.link for caller in callers] or links:
            link.close()
    ordered = sorted(tally.latencies)
    p50, p99, p999 = (_quantile(ordered, share) * 1000 for share in (0.5, 0.99, 0.999))
    return Sample(len(ordered), length, cpu_s, p50, p99, p999, dict(tally.faults))


async def call_once(target: Target, dialect: Dialect, work: Work) -> str:
    """Open, ask once, close: why the answer was wrong, or nothing."""
    link = LINKS[dialect](target)
    try:
        await link.open()
        body = await link.exchange(work.request(link) % {b"n": FIRST_NUMBER})
        return work.fault(FIRST_NUMBER, body)
    except (OSError, LinkError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        link.close()


async def hold_streams(target: Target, count: int) -> list[Link]:
    """`count` idle 2024-11-05 streams, each past its first event; the caller closes them."""
    links = [SseLink(target) for _ in range(count)]
    await asyncio.gather(*(link.open_stream() for link in links))
    return list(links)


def _quantile(ordered: list[float], share: float) -> Any:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
