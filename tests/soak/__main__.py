"""`./start soak [SECONDS]`: streams and calls of every era on a real gateway for some minutes, and streams that come and vanish.

Judged by the rule in `tests.soak.judge`, which is printed as a table. Exit code 0 when it holds, 1 otherwise.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.soak import judge
from tests.soak.crowd import Callers, Listeners, eventually
from tests.soak.site import Site, standing
from tests.soak.vanishing import TOGETHER, Vanishing

SECONDS = 300.0
SAMPLE_S = 1.0
AFTER_S = 20.0


@dataclass(frozen=True)
class Plan:
    seconds: float
    streams: int
    calls: int
    vanished: int

    @property
    def crowd(self) -> int:
        """Room for everybody at once: who calls over HTTP+SSE holds a stream too."""
        return self.streams + self.calls + TOGETHER + 10


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./start soak", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=SECONDS, help="how long (300)")
    parser.add_argument("--streams", type=int, default=100, help="streams that stay open (100)")
    parser.add_argument("--calls", type=int, default=100, help="calls in flight all the time (100)")
    parser.add_argument("--vanished", type=int, default=1000, help="streams that are opened and vanish (1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure and sample there too")
    options = parser.parse_args(argv)
    plan = Plan(options.seconds, options.streams, options.calls, options.vanished)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended on the way out
    with standing(seconds=plan.seconds, crowd=plan.crowd) as site:
        seen = asyncio.run(soaked(site, plan))
    print(judge.text(seen))
    document = judge.document(seen)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if document["ok"] else 1


async def soaked(site: Site, plan: Plan) -> judge.Seen:
    callers, listeners, vanishing = Callers(site.target), Listeners(site.target), Vanishing(site)
    await _acquainted(site)
    before = await asyncio.to_thread(site.sample, 0.0)
    await listeners.come(plan.streams)
    await callers.come(plan.calls)
    staying = plan.streams + plan.calls // 3
    going = asyncio.create_task(vanishing.run(plan.vanished, plan.seconds, staying=staying))
    during = await _sampled(site, plan.seconds)
    await going
    await callers.leave()
    lost = listeners.lost
    await listeners.leave()
    left = await eventually(lambda: _is_empty(site, before), within_s=AFTER_S)
    after = await asyncio.to_thread(site.sample, plan.seconds)
    say("everybody has left" if left is not None else "something is left")
    return judge.Seen(
        before=before,
        during=during,
        after=after,
        calls=callers.calls,
        latencies_ms=_latencies(callers.latencies_s),
        failures=[*callers.failures, *vanishing.failures],
        streams_lost=lost,
        vanished=dict(vanishing.vanished),
        noticed_s=vanishing.noticed_s,
        allowed_s=site.patience.allowed_s,
    )


async def _acquainted(site: Site) -> None:
    """One caller of each kind to each remote: what the very first calls load and connect is no growth."""
    first = Callers(site.target)
    await first.come(12)
    await first.leave()
    assert not first.failures, first.failures


async def _sampled(site: Site, seconds: float) -> list[judge.Sample]:
    loop = asyncio.get_running_loop()
    began, samples = loop.time(), list[judge.Sample]()
    while (at := loop.time() - began) < seconds:
        samples.append(await asyncio.to_thread(site.sample, at))
        if len(samples) % 30 == 0:
            last = samples[-1]
            say(f"{at:5.0f} s  {last.rss_mb:.1f} MB, {last.descriptors} descriptors, {last.streams} streams")
        await asyncio.sleep(max(0.0, SAMPLE_S - (loop.time() - began - at)))
    return samples


def _is_empty(site: Site, before: judge.Sample) -> bool:
    sample = site.sample(0)
    return not sample.streams and not sample.in_flight and sample.descriptors <= before.descriptors


def _latencies(found: list[float]) -> dict[str, float]:
    ordered = sorted(found) or [0.0]
    return {name: 1000 * ordered[int(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p99", 0.99))}


def say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
