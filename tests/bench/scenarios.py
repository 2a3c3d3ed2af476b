"""What is measured, in which order: candidates take turns in every round (A B A B), and only the one whose turn it is runs.

Every figure is a list of rounds; nothing is judged here (that is `report`), and a wrong answer never ends a run.
"""

import asyncio
import gc
import http.client
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from tests.bench import peers
from tests.bench.links import Dialect, LinkError, Target
from tests.bench.load import Sample, Window, Work, call_once, drive, hold_streams
from tests.bench.processes import REMOTES, TOOLS_PER_REMOTE, Cores, Process, Site, StartError, listen, start_module
from tests.bench.upstream import BIG_BYTES

TOOLS = REMOTES * TOOLS_PER_REMOTE
FIRST_CALL_TIMEOUT_S = 20.0
_SETTLE_S = 0.5
ECHO = Work("echo")


@dataclass(frozen=True)
class Plan:
    """How much time a run takes."""

    window: Window
    rounds: int
    cold_starts: int
    streams: int = 100


QUICK = Plan(Window(warm_s=0.1, seconds=0.25), rounds=3, cold_starts=2)
FULL = Plan(Window(warm_s=0.25, seconds=1.0), rounds=5, cold_starts=3)


@dataclass(frozen=True)
class Lane:
    """One candidate in one dialect."""

    candidate: str
    dialect: Dialect

    @property
    def label(self) -> str:
        path = {"modern": "/mcp 2026-07-28", "session": "/mcp 2025-11-25", "sse": "/sse 2024-11-05"}[self.dialect]
        return self.candidate if self.candidate in ("floor", "daphne") else f"{self.candidate} {path}"


FLOOR = Lane("floor", "modern")
STOCK = Lane("daphne", "modern")
MODERN, SESSION, SSE = (Lane("gateway", dialect) for dialect in ("modern", "session", "sse"))
DIRECT = Lane("direct", "modern")
NGINX = Lane("nginx", "modern")
MCP_PROXY = Lane("mcp-proxy", "session")


@dataclass(frozen=True)
class Scenario:
    """One kind of work for some numbers of clients, and the lanes that take turns at it."""

    name: str
    title: str
    work: Work
    clients: tuple[int, ...]
    lanes: tuple[Lane, ...]
    reconnecting: bool = False


SCENARIOS = (
    Scenario(
        "call",
        "tools/call, an echo of 220 B",
        ECHO,
        (1, 16, 64),
        (
            FLOOR,
            STOCK,
            MODERN,
            SESSION,
            SSE,
            DIRECT,
            Lane("direct", "session"),
            Lane("direct", "sse"),
            NGINX,
            MCP_PROXY,
        ),
    ),
    Scenario("list", f"tools/list of {TOOLS} tools over {REMOTES} remotes", Work(tools=TOOLS), (4,), (MODERN, DIRECT)),
    Scenario("big", "tools/call, an answer of 1 MB", Work("big", answer_bytes=BIG_BYTES), (4,), (MODERN, DIRECT)),
    Scenario("slow", "tools/call of a tool that takes 50 ms", Work("slow"), (256,), (MODERN, DIRECT)),
    Scenario("connect", "tools/call, a new connection for each", ECHO, (16,), (FLOOR, MODERN), reconnecting=True),
)


@dataclass
class Results:
    """Rounds by (scenario, lane, clients), and the other figures by name, one value per repetition."""

    rounds: dict[tuple[str, Lane, int], list[Sample]] = field(default_factory=dict)
    facts: dict[str, list[float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def note(self, fact: str, value: float) -> None:
        self.facts.setdefault(fact, []).append(value)


@dataclass
class Candidate:
    """Something to send calls to, and the process whose CPU and memory they cost."""

    target: Target
    process: Process
    always_awake: bool = False

    def wake(self) -> None:
        self.process.wake()

    def pause(self) -> None:
        if not self.always_awake:
            self.process.pause()


class Run:
    """One benchmark: starts what it measures, measures it, and leaves nothing behind."""

    def __init__(self, plan: Plan, cores: Cores, wanted: set[str], say: Callable[[str], None]) -> None:
        self._plan, self._cores, self._wanted, self._say = plan, cores, wanted, say
        self._candidates: dict[str, Candidate] = {}
        self.results = Results()

    async def measure(self, folder: Path, stack: ExitStack) -> Results:
        """All scenarios. `stack` ends what was started, whatever happens here."""
        await self._start_direct(folder, stack)
        if "gateway" in self._wanted:
            site, listener = self._install_gateway(folder, stack)
            await self._start_gateway(site, listener, stack)
            await self._idle_streams()
            self._candidates["gateway"].pause()
        for name, module in (("floor", "floor"), ("daphne", "stock")):
            if name in self._wanted:
                await self._start_bare(name, module, folder, stack)
        await self._start_peers(folder, stack)
        for scenario in SCENARIOS:
            await self._take_turns(scenario)
        if "gateway" in self._wanted:
            await self._after_all_calls(site)
        return self.results

    async def _start_direct(self, folder: Path, stack: ExitStack) -> None:
        listener = stack.enter_context(listen())
        process = start_module("upstream", listener, core=self._cores.load, folder=folder)
        stack.callback(process.end)
        target = Target("direct", listener.getsockname()[1], folder=f"/{TOOLS}")
        self._candidates["direct"] = Candidate(target, process, always_awake=True)
        await _first_call(target, process)

    async def _start_bare(self, name: str, module: str, folder: Path, stack: ExitStack) -> None:
        listener = stack.enter_context(listen())
        process = start_module(module, listener, core=self._cores.measured, folder=folder)
        stack.callback(process.end)
        self._candidates[name] = Candidate(Target(name, listener.getsockname()[1]), process)
        await _first_call(self._candidates[name].target, process)
        self.results.note(f"{name}_pss_mb", process.pss_kb() / 1024)
        process.pause()

    async def _start_peers(self, folder: Path, stack: ExitStack) -> None:
        for name, start in peers.present().items():
            if name in self._wanted:
                target, process = start(folder, self._candidates["direct"].target, self._cores.measured)
                stack.callback(process.end)
                await _first_call(target, process, "session")
                self._candidates[name] = Candidate(target, process)
                process.pause()

    def _install_gateway(self, folder: Path, stack: ExitStack) -> tuple[Site, socket.socket]:
        self._say("installing a gateway in a temporary folder")
        listener = stack.enter_context(listen())
        upstream_port = self._candidates["direct"].target.port
        return Site.install(folder, upstream_port=upstream_port, port=listener.getsockname()[1]), listener

    async def _start_gateway(self, site: Site, listener: socket.socket, stack: ExitStack) -> None:
        """Cold starts: from spawn to the first correct call, migrated; the last worker stays."""
        target = Target("gateway", listener.getsockname()[1], key=site.key, prefix="bench0__")
        for left in reversed(range(self._plan.cold_starts)):
            began = perf_counter()
            worker = site.start(listener, self._cores.measured)
            stack.callback(worker.end)
            await _first_call(target, worker)
            self.results.note("cold_start_s", perf_counter() - began)
            self.results.note("start_pss_mb", worker.pss_kb() / 1024)
            if left:
                worker.end()
        self._say("the gateway answers")
        self._candidates["gateway"] = Candidate(target, worker)

    async def _idle_streams(self) -> None:
        """Memory of idle 2024-11-05 streams on a fresh worker, and of as many again after those were closed."""
        gateway, count = self._candidates["gateway"], self._plan.streams
        await self._streams_held(gateway, 5)  # what the very first stream loads is not the price of a stream
        before = gateway.process.pss_kb()
        first = await self._streams_held(gateway, count)
        second = await self._streams_held(gateway, count)
        self.results.note("stream_kb", (first - before) / count)
        self.results.note("stream_again_kb", (second - first) / count)

    async def _streams_held(self, gateway: Candidate, count: int) -> int:
        """The worker's memory while it holds `count` streams; they are closed afterwards."""
        links = await hold_streams(gateway.target, count)
        await asyncio.sleep(_SETTLE_S)
        held = gateway.process.pss_kb()
        for link in links:
            link.close()
        await asyncio.sleep(_SETTLE_S)
        return held

    async def _take_turns(self, scenario: Scenario) -> None:
        lanes = [lane for lane in scenario.lanes if lane.candidate in self._wanted & self._candidates.keys()]
        for clients in scenario.clients:
            self._say(f"{scenario.title}, {clients} at a time")
            for _ in range(self._plan.rounds):
                for lane in lanes:
                    await self._round(scenario, lane, clients)

    async def _round(self, scenario: Scenario, lane: Lane, clients: int) -> None:
        candidate = self._candidates[lane.candidate]
        gc.collect()  # it is off while a round runs: its pauses would be read as the candidate's tail
        candidate.wake()
        try:
            sample = await drive(
                candidate.target,
                lane.dialect,
                scenario.work,
                clients=clients,
                window=self._plan.window,
                cpu=candidate.process.cpu_s,
                reconnecting=scenario.reconnecting,
            )
        except LinkError as error:
            self.results.problems.append(f"{scenario.name}, {lane.label}, {clients}: {error}")
            return
        finally:
            candidate.pause()
        self.results.rounds.setdefault((scenario.name, lane, clients), []).append(sample)
        for fault, count in sample.faults.items():
            self.results.problems.append(f"{scenario.name}, {lane.label}, {clients}: {count} x {fault}")

    async def _after_all_calls(self, site: Site) -> None:
        """Whether lists are served without asking the remotes, memory after everything, and that the log was on."""
        gateway = self._candidates["gateway"]
        gateway.wake()
        before = self._upstream_lists()
        fault = await call_once(gateway.target, "modern", Work(tools=TOOLS))
        self.results.note("upstream_lists", self._upstream_lists() - before)
        if fault:
            self.results.problems.append(f"the last list: {fault}")
        own = (samples for (_, lane, _), samples in self.results.rounds.items() if lane.candidate == "gateway")
        self.results.note("gateway_calls", sum(sample.calls for samples in own for sample in samples))
        self.results.note("end_pss_mb", gateway.process.pss_kb() / 1024)
        self.results.note("logged_kb", site.logged_bytes() / 1024)

    def _upstream_lists(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._candidates["direct"].target.port, timeout=5)
        try:
            connection.request("GET", "/counts")
            counts: dict[str, int] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return counts.get("tools/list", 0)


async def _first_call(target: Target, process: Process, dialect: Dialect = "modern") -> None:
    """Call until one answer is correct; the process's own words when it ends or never gives one."""
    deadline = perf_counter() + FIRST_CALL_TIMEOUT_S
    fault = "no answer"
    while perf_counter() < deadline:
        call = asyncio.ensure_future(call_once(target, dialect, ECHO))
        while not call.done():
            process.require_alive()
            await asyncio.wait([call], timeout=0.05)
        fault = call.result()
        if not fault:
            return
        await asyncio.sleep(0.01)
    raise StartError(f"{process.name} never answered correctly: {fault}; {process.last_words()}")
