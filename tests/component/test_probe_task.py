"""The regular look at remotes: what is written down, how often, and that a gateway is asked about processes."""

import asyncio
import logging
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from mcpserver import celery
from mcpserver.lib import control
from mcpserver.lib.errors import GatewayError
from remotes import circuits, selectors, services, tasks
from remotes.circuits import SharedCircuit
from remotes.flapping import CHANGES_MAX, Damper
from remotes.models import ConfigRevision, RemoteHealth, RevisionHead
from remotes.probes import Report
from remotes.status import Status
from tests import peers

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def folder(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "_damper", Damper())
    settings.MCP_RUN_DIR = tmp_path / "run"
    settings.MCP_CONFIG = tmp_path / "mcp-config.yaml"
    tasks._configured.cache_clear()
    return tmp_path


@pytest.fixture
def configure():
    def configure(entries):
        number = ConfigRevision.objects.count() + 1
        text = "version: 1\nmcpServers:\n" + "".join(f"  {name}: {entry}\n" for name, entry in entries.items())
        ConfigRevision.objects.create(number=number, sha256=f"{number:064}", text=text, actor="test")
        RevisionHead.objects.update_or_create(pk=1, defaults={"number": number})

    return configure


@pytest.fixture
def gateway(folder):
    """What answers pings where a gateway would: the real socket protocol, the given answers."""
    asked: list[dict[str, Any]] = []
    answers: dict[str, Any] = {}
    ready, done = threading.Event(), threading.Event()

    async def handle(request):
        asked.append(request)
        answer = answers[request["remote"]]
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    async def serve():
        server = await control.listen(folder / "run" / "gateway-0.sock", handle)
        ready.set()
        await asyncio.to_thread(done.wait)
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield asked, answers
    done.set()
    thread.join(10)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "mcp.probes")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "mcp.probes"]


def age(name, seconds):
    RemoteHealth.objects.filter(name=name).update(checked_at=timezone.now() - timedelta(seconds=seconds))


def refusing_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_it_is_on_the_schedule_and_what_is_late_is_dropped():
    entry = celery.configuration("", in_worker=True)["beat_schedule"]["remotes.probe"]
    assert (entry["task"], entry["schedule"].seconds, entry["options"]) == ("remotes.probe", 5.0, {"expires": 5.0})
    assert tasks.probe_remotes.name == "remotes.probe"


def test_a_server_is_probed_and_what_was_found_is_written_down(configure):
    with peers.sdk_server("http") as peer:
        configure({"peer": f"{{url: '{peer.url}'}}"})
        tasks.probe_remotes()
    row = selectors.health()["peer"]
    assert (row["status"], row["transport"], row["era"], row["phase"], row["error"]) == (
        "healthy", "http", "2026-07-28", "", "",
    )  # fmt: skip
    assert row["tools"] > 5
    assert row["latency_ms"] > 0
    assert row["last_ok_at"] == row["checked_at"]


@pytest.mark.edge(1)
def test_one_that_went_keeps_what_was_known_and_is_logged_once(configure, said):
    with peers.sdk_server("http") as peer:
        configure({"peer": f"{{url: '{peer.url}'}}"})
        tasks.probe_remotes()
        well = selectors.health()["peer"]
    for _ in range(3):
        age("peer", 120)
        tasks.probe_remotes()
    row = selectors.health()["peer"]
    assert (row["status"], row["phase"]) == ("unhealthy", "tcp")
    assert (row["tools"], row["era"], row["last_ok_at"]) == (well["tools"], well["era"], well["last_ok_at"])
    assert [line.split(":")[0] for line in said()] == ["peer is healthy", "peer is unhealthy"]


def test_nothing_is_asked_before_it_is_due(configure, monkeypatch):
    configure({"shop": f"{{url: 'http://127.0.0.1:{refusing_port()}/mcp', probe_interval: 30}}"})
    tasks.probe_remotes()
    first = selectors.health()["shop"]["checked_at"]
    tasks.probe_remotes()
    assert selectors.health()["shop"]["checked_at"] == first
    age("shop", 40)
    tasks.probe_remotes()
    assert selectors.health()["shop"]["checked_at"] > first


def test_of_machines_that_find_a_remote_due_in_the_same_moment_one_probes_it():
    def claims(seen: Any) -> int:
        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(lambda _: services.claim_probe("shop", seen), range(4)))

    assert claims(None) == 1, "nobody has looked at it yet"
    seen = selectors.health()["shop"]["checked_at"]
    assert claims(seen) == 1
    assert claims(seen) == 0, "who knows an older look comes too late"


@pytest.mark.edge(9)
def test_disabled_and_misconfigured_ones_are_written_down_and_looked_at_as_soon_as_they_can_be(configure, monkeypatch):
    port = refusing_port()
    configure({
        "off": f"{{url: 'http://127.0.0.1:{port}/mcp', enabled: false}}",
        "needs": f"{{url: 'http://127.0.0.1:{port}/mcp', headers: {{X-Key: '${{NO_SUCH_VARIABLE_HERE}}'}}}}",
    })  # fmt: skip
    tasks.probe_remotes()
    assert {name: row["status"] for name, row in selectors.health().items()} == {
        "off": "disabled",
        "needs": "misconfigured",
    }
    assert "NO_SUCH_VARIABLE_HERE" in selectors.health()["needs"]["error"]
    configure({"off": f"{{url: 'http://127.0.0.1:{port}/mcp'}}"})
    tasks.probe_remotes()
    assert selectors.health()["off"]["status"] == "unhealthy"


def test_a_process_is_pinged_through_the_gateway_and_never_started(configure, gateway):
    asked, answers = gateway
    answers["local"] = {"ok": True, "latency_ms": 2.5, "era": "2026-07-28", "transport": "stdio"}
    configure({"local": "{command: would-be-started-if-anybody-did}"})
    services.record_health("local", status="unhealthy", tools=7, checked_at=timezone.now() - timedelta(hours=1))
    tasks.probe_remotes()
    row = selectors.health()["local"]
    assert asked == [{"op": "ping", "remote": "local"}]
    assert (row["status"], row["latency_ms"], row["era"], row["tools"]) == ("healthy", 2.5, "2026-07-28", 7)


def test_a_process_that_does_not_answer_its_gateway_is_unhealthy(configure, gateway):
    _, answers = gateway
    answers["local"] = {"ok": False, "error": "timeout", "phase": "answer", "message": "no answer", "latency_ms": 1.0}
    configure({"local": "{command: local}"})
    tasks.probe_remotes()
    row = selectors.health()["local"]
    assert (row["status"], row["phase"], row["error"]) == ("unhealthy", "answer", "no answer")


def test_without_a_gateway_nothing_is_known_of_a_process(configure):
    configure({"local": f"{{command: {sys.executable}}}"})
    tasks.probe_remotes()
    assert selectors.health() == {}


def test_a_gateway_that_does_not_know_the_remote_yet_says_nothing_about_it(configure, gateway):
    _, answers = gateway
    answers["local"] = GatewayError("not_found", "there is no remote local to ask")
    configure({"local": "{command: local}"})
    tasks.probe_remotes()
    assert selectors.health() == {}


@pytest.mark.edge(1)
def test_one_that_hangs_delays_no_other_and_rounds_do_not_pile_up(configure):
    with socket.create_server(("127.0.0.1", 0)) as silent, peers.sdk_server("http") as peer:
        port = silent.getsockname()[1]
        configure({
            "hung": f"{{url: 'http://127.0.0.1:{port}/mcp', list_timeout: 3}}",
            "peer": f"{{url: '{peer.url}'}}",
        })  # fmt: skip
        round_ = threading.Thread(target=tasks.probe_remotes)
        round_.start()
        held, _ = silent.accept()
        tasks.probe_remotes()  # left out: it ends while the first one is under way
        assert round_.is_alive()
        round_.join(20)
        held.close()
    assert {name: row["status"] for name, row in selectors.health().items()} == {"hung": "unhealthy", "peer": "healthy"}


def test_while_one_is_asked_the_others_are_asked_again_on_their_own_time(configure):
    with socket.create_server(("127.0.0.1", 0)) as silent, peers.sdk_server("http") as peer:
        configure({
            "hung": f"{{url: 'http://127.0.0.1:{silent.getsockname()[1]}/mcp', list_timeout: 1}}",
            "peer": f"{{url: '{peer.url}'}}",
        })  # fmt: skip
        services.record_health("peer", status="healthy")
        round_ = threading.Thread(target=tasks.probe_remotes)
        round_.start()
        held, _ = silent.accept()
        age("peer", 600)
        first = selectors.health()["peer"]["checked_at"]
        tasks.probe_remotes()
        assert selectors.health()["peer"]["checked_at"] > first
        assert round_.is_alive(), "the other is waited for all the while"
        round_.join(20)
        held.close()


def test_one_that_flips_is_said_to_flip_and_then_nothing_more(configure, said, gateway):
    _, answers = gateway
    configure({"local": "{command: local}"})
    for number in range(3 * CHANGES_MAX):
        answers["local"] = {"ok": True} if number % 2 else {"ok": False, "error": "timeout", "message": "no answer"}
        age("local", 600)
        tasks.probe_remotes()
    assert len(said()) == CHANGES_MAX + 1
    assert "keeps changing" in said()[-1]


def test_any_worker_that_answers_is_asked_about_a_process(configure, folder, gateway):
    asked, answers = gateway
    answers["local"] = {"ok": True, "latency_ms": 1.0}
    configure({"local": "{command: local}"})
    (folder / "run" / "gateway-0.sock").rename(folder / "run" / "gateway-1.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "run" / "gateway-0.sock"))  # a worker that crashed leaves its file
    tasks.probe_remotes()
    assert (len(asked), selectors.health()["local"]["status"]) == (1, "healthy")


def test_before_the_first_revision_and_with_one_that_cannot_be_used_nothing_happens(configure, said):
    tasks.probe_remotes()
    configure({"bad name!": "{command: x}"})
    tasks.probe_remotes()
    tasks.probe_remotes()
    assert selectors.health() == {}
    assert len(said()) == 1


def test_a_database_that_is_away_is_a_line_in_the_log_and_the_next_round_works(configure, said, monkeypatch):
    def away():
        raise OperationalError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(selectors, "head", away)
        tasks.probe_remotes()
    assert said() == ["remotes are not probed: the database cannot be used: gone"]
    configure({"shop": f"{{url: 'http://127.0.0.1:{refusing_port()}/mcp'}}"})
    tasks.probe_remotes()
    assert selectors.health()["shop"]["status"] == "unhealthy"


@pytest.mark.edge(1)
@pytest.mark.parametrize(("before", "is_closed"), [("unhealthy", True), ("healthy", False), ("unknown", False)])
def test_a_probe_that_succeeds_after_one_that_failed_closes_the_circuit(before, is_closed):
    """One that lists and fails its calls stays degraded: a probe that succeeds again says nothing new of it."""
    opened = SharedCircuit("peer", "d", "open", timezone.now(), 300.0, 300.0, 5, "it broke", contact_closes=False)
    circuits.swap("peer", expected=circuits.NO_MARK, new=opened)
    tasks._record(Report("peer", Status.HEALTHY, latency_ms=1.0), {"status": before})
    assert (circuits.everyone() == {}) is is_closed
