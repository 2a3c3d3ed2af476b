"""`./start timing`: 200 refusals of each kind in random order against a real gateway, compared in pairs.

Every kind of bad key must get the same answer, byte for byte, in the same time. A control, a key that is good and known, is
measured beside them: it shows that this machine can tell a difference. Exit code 1 when a pair can be told apart.
"""

import argparse
import http.client
import json
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from statistics import fmean, median

from keys import format
from tests.system import gateway
from tests.timing import welch

SAMPLES = 200
WARM_UP = 20
CONTROL = "good (control)"

# Its own process: the gateway's database, not this one's. An expired key is one that was made when there was time.
_PREPARE = """
import json, django
django.setup()
from datetime import timedelta
from keys import services
from mcpserver.lib.clock import SystemClock
class Earlier(SystemClock):
    def now(self):
        return super().now() - timedelta(days=1)
made = {
    "right": services.generate(name="right", actor="timing")["key"],
    "revoked": services.generate(name="revoked", actor="timing")["key"],
    "expired": services.generate(name="expired", actor="timing", expires_in=timedelta(hours=1), clock=Earlier())["key"],
}
services.revoke(name="revoked", actor="timing")
print(json.dumps(made))
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./start timing", description=__doc__)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    samples: int = parser.parse_args(argv).samples
    with gateway.running({}) as running:
        keys = bad_keys(_prepared(running)) | {CONTROL: running.key}
        time.sleep(2)  # the gateway has read the new rows: it looks each second
        times, answers = measured(running.url, keys, samples)
    return report(times, answers)


def bad_keys(made: Mapping[str, str]) -> dict[str, str]:
    right = format.parse(made["right"])
    last = "A" if right.secret[-1] != "A" else "B"
    return {
        "unknown": format.compose("0" * format.ID_LENGTH, "x" * format.SECRET_LENGTH),
        "near miss": format.compose(right.key_id, right.secret[:-1] + last),
        "right id": format.compose(right.key_id, "x" * format.SECRET_LENGTH),
        "garbage": "x" * len(made["right"]),
        "revoked": made["revoked"],
        "expired": made["expired"],
    }


def measured(url: str, keys: Mapping[str, str], samples: int) -> tuple[dict[str, list[float]], dict[str, set[str]]]:
    """Milliseconds of each kind, and every answer it got, in an order that nothing can follow."""
    address = url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=30)
    order = [kind for kind in keys for _ in range(samples)]
    random.shuffle(order)
    times: dict[str, list[float]] = {kind: [] for kind in keys}
    answers: dict[str, set[str]] = {kind: set() for kind in keys}
    for kind in [*list(keys) * WARM_UP, *order]:
        began = time.perf_counter()
        connection.request("POST", "/mcp", b"{}", {"Authorization": f"Bearer {keys[kind]}"})
        reply = connection.getresponse()
        body = reply.read()
        took = time.perf_counter() - began
        headers = sorted((name.lower(), value) for name, value in reply.getheaders() if name.lower() != "date")
        answers[kind].add(json.dumps([reply.status, headers, body.decode()]))
        times[kind].append(1000 * took)
    connection.close()
    return {kind: series[WARM_UP:] for kind, series in times.items()}, answers


def report(times: Mapping[str, list[float]], answers: Mapping[str, set[str]]) -> int:
    bad = {kind: series for kind, series in times.items() if kind != CONTROL}
    print(f"{'kind':<16}{'mean ms':>10}{'median':>10}{'answers':>10}")
    for kind, series in times.items():
        print(f"{kind:<16}{fmean(series):>10.3f}{median(series):>10.3f}{len(answers[kind]):>10}")
    pairs = welch.compared(bad)
    worst = max(pairs, key=lambda pair: abs(pair.t))
    print(
        f"worst pair: {worst.one} and {worst.other}: t {worst.t:+.2f}, {worst.difference_ms:+.3f} ms, {worst.percent:+.1f} %"
    )
    told = [f"{pair.one} and {pair.other} can be told apart by time" for pair in pairs if pair.tells]
    if len(set().union(*(answers[kind] for kind in bad))) != 1:
        told.append("the answers differ")
    control = welch.compared({"unknown": times["unknown"], CONTROL: times[CONTROL]})
    if not control[0].tells:
        told.append("this run cannot tell even a good key from a bad one: measure again on a quieter machine")
    print("\n".join(told) or "no refusal can be told from another")
    return 1 if told else 0


def _prepared(running: gateway.Gateway) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", _PREPARE],
        cwd=gateway.ROOT,
        env=dict(running.environment) | {"DJANGO_SETTINGS_MODULE": "mcpserver.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    made: dict[str, str] = json.loads(done.stdout)
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
