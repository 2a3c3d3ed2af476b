"""`python -m tests.bench` (`make bench`): measure, print the table, optionally write it as JSON.

Exit 0 whatever the budgets say; 1 when an answer was wrong or something did not start; 130 or 143 when told to stop.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop

from tests.bench import report
from tests.bench.links import LinkError
from tests.bench.processes import Cores, StartError
from tests.bench.scenarios import FULL, QUICK, Plan, Run

CANDIDATES = ("floor", "daphne", "gateway", "direct", "nginx", "mcp-proxy")


def main() -> int:
    arguments = _arguments()
    plan = QUICK if arguments.quick else FULL
    cores = Cores.allowed()
    _raise_open_files()
    os.sched_setaffinity(0, {cores.load})
    began = perf_counter()

    def say(words: str) -> None:
        print(f"{perf_counter() - began:6.1f} s  {words}", file=sys.stderr)

    run = Run(plan, cores, arguments.only, say)
    gc.freeze()
    gc.disable()
    try:
        with tempfile.TemporaryDirectory(prefix="mcp-bench-") as folder, ExitStack() as stack:
            uvloop.run(_until_told_to_stop(run, Path(folder), stack))
    except (StartError, LinkError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except asyncio.CancelledError:
        return 143
    machine = _machine(plan, cores, perf_counter() - began)
    print(report.text(run.results, machine))
    if arguments.json:
        arguments.json.write_text(json.dumps(report.document(run.results, machine), indent=1) + "\n")
    return 1 if run.results.problems else 0


async def _until_told_to_stop(run: Run, folder: Path, stack: ExitStack) -> None:
    """SIGTERM cancels, as Ctrl-C does already: every process that was started is ended on the way out."""
    measuring = asyncio.ensure_future(run.measure(folder, stack))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, measuring.cancel)
    await measuring


def _arguments() -> argparse.Namespace:
    description = "CPU per call, ratios and memory of the gateway, beside a bare floor and the direct connection."
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=description)
    parser.add_argument("--quick", action="store_true", help="short rounds: under a minute instead of about four")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round and figure there too")
    some = f"some of {','.join(CANDIDATES)}"
    parser.add_argument("--only", type=_candidates, default=set(CANDIDATES), metavar="A,B", help=some)
    return parser.parse_args()


def _candidates(names: str) -> set[str]:
    wanted = set(names.split(","))
    if unknown := wanted - set(CANDIDATES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(CANDIDATES)}")
    return wanted


def _raise_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard))


def _machine(plan: Plan, cores: Cores, seconds: float) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "shared": cores.shared,
        "rounds": plan.rounds,
        "round_s": plan.window.seconds,
        "took_s": round(seconds, 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
