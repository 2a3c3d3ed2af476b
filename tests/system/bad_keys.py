"""Forty callers who try keys without a pause: `python -m tests.system.bad_keys PORT SECONDS`. Prints how each was answered."""

import http.client
import json
import sys
import threading
import time
from collections import Counter

from keys import format

THREADS = 40


def main(port: int, seconds: float) -> int:
    until = time.monotonic() + seconds
    answers = [Counter[str]() for _ in range(THREADS)]
    threads = [threading.Thread(target=_try, args=(number, port, until, answers[number])) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    print("begun", flush=True)
    for thread in threads:
        thread.join()
    print(json.dumps(sum(answers, Counter())), flush=True)
    return 0


def _try(number: int, port: int, until: float, answers: Counter[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    tried = 0
    while time.monotonic() < until:
        tried += 1
        key = format.compose(f"{number:05}{tried % 100000:05}", "x" * format.SECRET_LENGTH)
        connection.request("POST", "/mcp", b"{}", {"Authorization": f"Bearer {key}"})
        reply = connection.getresponse()
        reply.read()
        answers[str(reply.status)] += 1
    connection.close()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2])))
