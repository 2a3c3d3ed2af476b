"""The pages beside MCP, through Django's own stack and a real database."""

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import prometheus_client
import pytest
from django.test import AsyncClient, Client
from prometheus_client.parser import text_string_to_metric_families

from monitoring import facts, services

SERVING: dict[str, Any] = {
    "ok": True,
    "uptime_s": 5.0,
    "draining": False,
    "connections": {"active": 2, "max": 100, "per_key": []},
    "in_flight": 1,
    "process": {"rss_mb": 128.0, "cpu_percent": 3.0, "open_files": 40},
    "mcps": {"secret-name": {"status": "healthy"}},
    "config": {"revision": 1, "sha256": "ab"},
    "errors": {"rate": 0.0},
    "latency": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def serving() -> Iterator[None]:
    facts.provide(lambda: SERVING)
    facts._recent.forget()
    yield
    facts.provide(None)
    facts._recent.forget()


def says(**changes: Any) -> None:
    facts.provide(lambda: SERVING | changes)


@pytest.mark.edge(18)
async def test_health_answers_through_the_asynchronous_stack_with_every_section() -> None:
    response = await AsyncClient().get("/health")
    document = response.json()
    assert response.status_code == 200
    assert list(document) == [
        "status", "uptime", "connections", "mcps_health", "memory", "cpu", "disk", "errors", "latency", "time",
        "dependencies", "config", "warnings",
    ]  # fmt: skip
    assert document["status"] == "healthy"
    assert document["dependencies"] == {"database": "ok", "worker": "unknown", "redis": "not_configured"}
    assert document["mcps_health"]["mcps"] == {"secret-name": "healthy"}
    assert document["memory"] == {"rss_mb": 128.0, "limit_mb": 512, "percent": 25.0}
    assert response["Cache-Control"] == "no-store"


@pytest.mark.edge(18)
@pytest.mark.parametrize(
    ("changes", "health", "ready"),
    [
        ({}, 200, 200),
        ({"mcps": {"a": {"status": "degraded"}}}, 200, 200),
        ({"draining": True}, 503, 503),
        ({"authenticates": False}, 503, 200),
    ],
)
def test_health_and_readiness_have_the_status_a_load_balancer_needs(
    changes: dict[str, Any], health: int, ready: int
) -> None:
    says(**changes)
    client = Client()
    assert client.get("/health").status_code == health
    assert client.get("/health/ready").status_code == ready
    assert client.get("/health/live").status_code == 200


@pytest.mark.edge(18)
def test_until_the_gateway_serves_it_is_live_and_not_ready() -> None:
    facts.provide(None)
    client = Client()
    assert (client.get("/health/live").status_code, client.get("/health/live").json()) == (200, {"status": "live"})
    assert (client.get("/health/ready").status_code, client.get("/health/ready").json()) == (
        503,
        {"status": "starting"},
    )
    assert client.get("/health").status_code == 503


@pytest.mark.edge(18)
@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"REMOTE_ADDR": "127.0.0.1"}, True),
        ({"REMOTE_ADDR": "127.9.9.9"}, True),
        ({"REMOTE_ADDR": "::1"}, True),
        ({"REMOTE_ADDR": "::ffff:127.0.0.1"}, True),
        ({"REMOTE_ADDR": "10.0.0.1"}, False),
        ({"REMOTE_ADDR": "::ffff:10.0.0.1"}, False),
        ({"REMOTE_ADDR": ""}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "127.0.0.1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_FORWARDED": "for=127.0.0.1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_REAL_IP": "127.0.0.1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "rebound.example"}, False),
    ],
)
def test_only_who_asks_from_this_machine_learns_what_remotes_are_called(environ: dict[str, Any], named: bool) -> None:
    labelled = prometheus_client.Counter("mcp_test_calls", "calls", ["remote"], registry=None)
    labelled.labels("secret-name").inc()
    prometheus_client.REGISTRY.register(labelled)
    says(mcps={"secret-name": {"status": "unhealthy"}}, config={"pending_error": [{"message": "secret-name"}]})
    client = Client(HTTP_HOST="127.0.0.1")
    try:
        answers = [client.get(path, **environ) for path in ("/health", "/metrics")]
    finally:
        prometheus_client.REGISTRY.unregister(labelled)
    assert [response.status_code for response in answers] == [200, 200]
    assert [b"secret-name" in response.content for response in answers] == [named, named]


@pytest.mark.edge(18)
def test_metrics_are_valid_prometheus_text_for_everybody() -> None:
    for address in ("127.0.0.1", "10.0.0.1"):
        response = Client().get("/metrics", REMOTE_ADDR=address)
        assert response["Content-Type"].startswith("text/plain")
        assert len(list(text_string_to_metric_families(response.content.decode()))) > 5


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-authorization-server/mcp",
        "/mcp/.well-known/openid-configuration",
        "/register",
        "/a\nb/\u202e",
    ],
)
@pytest.mark.parametrize("method", ["get", "post"])
def test_what_is_not_there_is_a_json_404(path: str, method: str) -> None:
    response = getattr(Client(), method)(path)
    assert response.status_code == 404
    assert json.loads(response.content) == {
        "ok": False,
        "error": "not_found",
        "message": "there is nothing here",
        "hint": "MCP is served at /mcp and /sse",
    }


def test_a_probe_gets_json_whatever_it_says_it_accepts_and_a_refusal_is_json_too() -> None:
    client = Client()
    assert client.get("/health/live", HTTP_ACCEPT="text/html;q=1").status_code == 200
    assert client.head("/health/live").status_code == 200
    refused = client.post("/health")
    assert refused.status_code == 405
    assert refused.json() == {"ok": False, "error": "method_not_allowed", "message": 'Method "POST" not allowed.'}
    assert client.options("/health").status_code == 405


@pytest.mark.edge(19)
def test_a_worker_that_went_silent_shows_and_one_that_works_does_not() -> None:
    services.record_beat("worker", at=datetime.now(UTC) - timedelta(seconds=61))
    first = Client().get("/health").json()
    assert (first["status"], first["dependencies"]["worker"]) == ("degraded", "late")
    services.record_beat("worker", at=datetime.now(UTC))
    facts._recent.forget()
    second = Client().get("/health").json()
    assert (second["status"], second["dependencies"]["worker"]) == ("healthy", "ok")


@pytest.mark.edge(19)
def test_without_redis_where_one_is_configured_the_gateway_is_degraded(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    document = Client().get("/health").json()
    assert (document["status"], document["dependencies"]["redis"]) == ("degraded", "down")
    assert [warning["code"] for warning in document["warnings"] if warning["code"] == "redis_down"] == ["redis_down"]


def test_many_who_ask_at_once_cost_one_question_and_none_waits_for_a_slow_one() -> None:
    asked, release = threading.Semaphore(0), threading.Event()

    def slow() -> facts.Stored:
        asked.release()
        assert release.wait(10)
        return facts.Stored(dependencies={"database": "ok"})

    recent = facts._Recent(slow)
    recent._answer = facts.Stored(dependencies={"database": "down"})
    first = threading.Thread(target=recent.read)
    first.start()
    assert asked.acquire(timeout=10)
    assert [recent.read().dependencies["database"] for _ in range(20)] == ["down"] * 20
    release.set()
    first.join(10)
    assert recent.read().dependencies["database"] == "ok"
    assert not asked.acquire(blocking=False)


def test_once_an_answer_was_long_in_coming_nobody_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "SLOW_S", 0.0)
    hung, answered = threading.Event(), facts.Stored(dependencies={"database": "ok"})

    def ask() -> facts.Stored:
        if recent._answer is None:
            return facts.without_database()
        return answered if hung.wait(10) else facts.Stored()

    recent = facts._Recent(ask)
    assert recent.read().dependencies["database"] == "down"
    recent._fresh_until = 0.0
    assert [recent.read().dependencies["database"] for _ in range(5)] == ["down"] * 5, "asked, and not waited for"
    hung.set()
    assert recent._lock.acquire(timeout=10)
    recent._lock.release()
    assert recent.read() == answered


def test_while_the_database_is_away_what_was_last_known_stands() -> None:
    known = facts.Stored({"database": "ok"}, {"demo": {"status": "healthy"}}, beat_age_s=1.0)
    answers = iter([known, facts.without_database()])
    recent = facts._Recent(lambda: next(answers))
    recent.read()
    recent._fresh_until = 0.0
    assert recent.read() == facts.Stored({"database": "down", "worker": "unknown"}, known.remotes, known.config, 1.0)


def test_unready_probes_and_strangers_paths_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    says(draining=True)
    Client().get("/health")
    Client().get("/nothing")
    assert not [record for record in caplog.records if re.search("Unavailable|Not Found", record.getMessage())]
