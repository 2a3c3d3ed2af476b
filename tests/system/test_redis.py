"""One worker and a Redis that is not there when it starts, comes, goes under load, and comes again."""

from __future__ import annotations

import time

import pytest

from tests.component.real_gateway import Client, until
from tests.system import servers
from tests.system.load import load, modern, session
from tests.system.nodes import DEMO, installed


@pytest.mark.edge(19)
def test_one_worker_needs_redis_for_no_call_and_says_what_it_lacks() -> None:
    with servers.redis() as redis, installed({"demo": DEMO}, REDIS_URL=redis.url) as (node, client):
        redis.kill()
        node.start()
        assert node.took_s < 20
        rated = Client(node.port, str(node.manage("mcpkey", "generate", "rated", "--rate", "100000")["key"]))
        until(lambda: rated.modern("tools/list").status == 200)
        says(client, "degraded")
        with load(lambda: modern(client), lambda: session(client), lambda: modern(rated)) as calls:
            calls.goes_on()
            redis.start()
            says(client, "healthy")
            calls.goes_on()
            redis.kill()
            says(client, "degraded")
            calls.goes_on()
            with client.relay() as relay:
                assert relay.opened().call("ping", id=2)["result"] == {}
            redis.start()
            says(client, "healthy")
            redis.freeze()
            says(client, "degraded")
            calls.goes_on()
        assert calls.failures == []
        assert calls.slowest_s < 5
        assert node.status()["cluster"]["requests_counted_alone"] > 0


def says(client: Client, word: str) -> None:
    """Within the minute that is promised, /health says so."""
    began = time.monotonic()
    until(lambda: client.ask("GET", "/health").json["status"] == word, f"{word} in /health", within_s=60)
    print(f"{word} after {time.monotonic() - began:.1f} s")
