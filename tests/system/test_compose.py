"""The Compose file's cluster: its Redis and PostgreSQL run with its words, and a gateway with what it tells to write into .env.

There is no engine here to run containers with; what they run is run as it is, but for addresses and folders.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import yaml

from tests.component.real_gateway import Client, until
from tests.system import gateway, servers
from tests.system.gateway import ROOT

TEXT = (ROOT / "deploy" / "container" / "compose.yaml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
PATIENCE_S = 60.0
SAID = dict(re.findall(r"(?m)^#   ([A-Z_]+)=(\S+)$", TEXT))


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[gateway.Gateway, servers.Postgres, servers.Redis]]:
    with ExitStack() as stack:
        postgres = stack.enter_context(servers.postgres(*SERVICES["postgres"]["command"][1:]))
        redis = stack.enter_context(servers.redis(*SERVICES["redis"]["command"][1:]))
        own = urlsplit(postgres.url)
        chosen = {
            "DATABASE_URL": SAID["DATABASE_URL"].replace(
                "gateway:PASSWORD@postgres:5432/gateway", f"{own.netloc}{own.path}"
            ),
            "REDIS_URL": SAID["REDIS_URL"].replace("redis:6379", f"127.0.0.1:{redis.port}"),
            "MCP_WORKERS": SAID["MCP_WORKERS"],
        }
        assert [SAID[name] for name in chosen] != list(chosen.values()), "each has an address of this machine"
        demo = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}
        running = stack.enter_context(gateway.running({"demo": demo}, worker=True, **chosen))
        yield running, postgres, redis


def test_four_workers_serve_on_one_redis_and_one_postgresql(cluster: Any) -> None:
    running, _, _ = cluster
    client = Client(urlsplit(running.url).port or 0, running.key)
    add = {"name": "demo__add", "arguments": {"a": 1, "b": 2}}
    document = until(lambda: healthy(running), "all is well", within_s=PATIENCE_S)
    session = client.session()
    for _ in range(12):
        assert session.call("tools/call", add).result["content"]
    assert document["dependencies"] | {"worker": "ok"} == {"db": "ok", "redis": "ok", "worker": "ok"}
    commands = [" ".join(one.cmdline()) for one in psutil.Process(running.process.pid).children()]
    assert sum("mcpgateway" in command for command in commands) == int(SAID["MCP_WORKERS"])


def healthy(running: gateway.Gateway) -> Any:
    document = running.command("mcpstatus")
    return document if document["server"]["status"] == "healthy" else None


def test_both_are_found_well_by_their_own_checks_and_not_once_they_are_gone(cluster: Any) -> None:
    _, postgres, redis = cluster
    checks = {name: SERVICES[name]["healthcheck"]["test"] for name in ("postgres", "redis")}
    assert {check[0] for check in checks.values()} == {"CMD"}
    is_ready, ping = (check[1:] for check in checks.values())
    ask = [servers.program(is_ready[0]), *is_ready[1:], "--host", "127.0.0.1", "--port"]
    pong = [ping[0], "-p", str(redis.port), *ping[1:]]
    assert subprocess.run([*ask, str(postgres.port)], check=False).returncode == 0
    assert subprocess.run(pong, check=False, capture_output=True).stdout == b"PONG\n"
    assert subprocess.run([*ask, "1"], check=False).returncode != 0


def test_nothing_of_the_cluster_is_started_without_its_profile() -> None:
    assert {name: one.get("profiles") for name, one in SERVICES.items()} == {
        "prepare": None, "gateway": None, "redis": ["redis", "cluster"], "postgres": ["cluster"],
    }  # fmt: skip
    for name in ("prepare", "gateway"):
        needed = SERVICES[name]["depends_on"]
        assert needed["postgres"] == needed["redis"] == {"condition": "service_healthy", "required": False}
    assert SAID["POSTGRES_PASSWORD"] in SAID["DATABASE_URL"]
    environment = SERVICES["postgres"]["environment"]
    assert f"//{environment['POSTGRES_USER']}:" in SAID["DATABASE_URL"]
    assert SAID["DATABASE_URL"].endswith(f"@postgres:5432/{environment['POSTGRES_DB']}")
