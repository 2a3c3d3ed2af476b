"""A probe against real remotes and real faults: which step it names, how long it takes, and what it leaves behind."""

import asyncio
import contextlib
import socket
import ssl
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from remotes import probes
from remotes.config.snapshot import Missing, RemoteSpec
from tests import peers

ROOT = Path(__file__).resolve().parents[2]
DEMO = RemoteSpec("demo", "stdio", command=sys.executable, args=("-m", "remotes.demo"), cwd=str(ROOT))
TIMEOUT_S = 1.0
SLACK_S = 6.0  # for busy machines; without a timeout each of these would take ten seconds or more


def tried(spec, timeout_s=None):
    return probes.run(probes.probe(spec, timeout_s=timeout_s)).document()


def at(port, *, scheme="http", transport="http", **more):
    return RemoteSpec("shop", transport, url=f"{scheme}://127.0.0.1:{port}/mcp", **more)


def python(code, **more):
    return RemoteSpec("local", "stdio", command=sys.executable, args=("-c", code), **more)


@pytest.fixture
def silent():
    """Accepts connections (the kernel does) and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def refusing():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def full():
    """A backlog that is full: connecting hangs."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture
def saying():
    """Answers every connection with the given bytes, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words: list[bytes] = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        peer.recv(65536)
                        peer.sendall(words[0])

        threading.Thread(target=serve, daemon=True).start()

        def say(raw):
            words[:] = [raw]
            return listener.getsockname()[1]

        yield say
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(autouse=True)
def others():
    """Processes that other tests of this run keep: what is counted here is what a probe leaves behind."""
    _others.clear()
    _others.update(psutil.Process().children(recursive=True))


_others: set[psutil.Process] = set()


def new_children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child not in _others]


# An MCP server of 2025-11-25 that never answers the method SILENT.
LISTENER = """
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if 'id' not in m or m['method'] == 'SILENT': continue
    r = {'protocolVersion': '2025-11-25', 'capabilities': {'tools': {}}, 'serverInfo': {}}
    if m['method'] == 'tools/list': r = {'tools': []}
    print(json.dumps({'jsonrpc': '2.0', 'id': m['id'], 'result': r}), flush=True)
"""


@pytest.fixture
def hanging():
    """Answers with the head of an answer, and half of what it promises."""
    held = []

    def serve(listener):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                held.append(peer)
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for peer in held:
            peer.close()


@pytest.fixture
def encrypted(tmp_path):
    """TLS with a certificate that it signed itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(tmp_path / "both.pem"))

    def serve(listener):
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(peer, server_side=True) as secured:
                secured.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _self_signed(path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = (
        builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1)).sign(key, SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(pem))
    return path


def answer(status, body=b"", kind="text/html"):
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


def test_a_process_that_is_well_tells_its_era_its_transport_and_its_tools():
    document = tried(DEMO)
    assert document.pop("latency_ms") > 0
    assert document == {
        "ok": True, "name": "demo", "status": "healthy", "error": None, "phase": None, "message": None, "hint": None,
        "transport": "stdio", "era": "2026-07-28", "tools": 6,
    }  # fmt: skip
    assert not new_children()


@pytest.mark.parametrize(
    ("transport", "options", "era"),
    [("http", (), "2026-07-28"), ("http", ("--era", "legacy"), "2025-11-25"), ("sse", (), "2025-11-25")],
)
def test_a_server_that_is_well_is_found_out_whatever_it_speaks(transport, options, era):
    with peers.sdk_server(transport, *options) as peer:
        document = tried(RemoteSpec("peer", "sse" if transport == "sse" else "http", url=peer.url))
        assert (document["ok"], document["transport"], document["era"]) == (True, transport, era)
        assert document["tools"] > 5


def test_only_tools_that_are_switched_on_are_counted():
    assert tried(RemoteSpec(**_fields(DEMO), tools_disabled=("fail", "big")))["tools"] == 4
    assert tried(RemoteSpec(**_fields(DEMO), tools_enabled=("echo",)))["tools"] == 1


def _fields(spec):
    return {"name": spec.name, "transport": spec.transport, "command": spec.command, "args": spec.args, "cwd": spec.cwd}


@pytest.mark.edge(1)
@pytest.mark.parametrize(
    ("scheme", "transport", "phase"), [("http", "http", "http"), ("http", "sse", "http"), ("https", "http", "tls")]
)
def test_one_that_accepts_and_says_nothing_is_a_timeout_in_the_step_it_hangs_in(silent, scheme, transport, phase):
    began = time.monotonic()
    document = tried(at(silent, scheme=scheme, transport=transport), TIMEOUT_S)
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert (document["ok"], document["error"], document["phase"]) == (False, "timeout", phase)
    assert 1000 <= document["latency_ms"] < 1000 * (TIMEOUT_S + SLACK_S)
    assert f"127.0.0.1:{silent}" in document["hint"]


@pytest.mark.edge(1)
def test_a_full_backlog_is_a_timeout_while_connecting(full):
    document = tried(at(full), TIMEOUT_S)
    assert (document["error"], document["phase"]) == ("timeout", "tcp")


@pytest.mark.edge(1)
def test_its_own_limits_hold_where_the_caller_names_none(silent):
    began = time.monotonic()
    assert tried(at(silent, list_timeout_s=1.0))["error"] == "timeout"
    assert tried(at(silent, connect_timeout_s=1.0), 60)["error"] == "timeout"
    assert time.monotonic() - began < 9, "not the ten seconds of one of them"


@pytest.mark.edge(1)
def test_a_refused_port_and_a_name_that_does_not_resolve_are_told_apart(refusing):
    refused = tried(at(refusing))
    unresolved = tried(RemoteSpec("shop", "http", url="http://nowhere.invalid/mcp"))
    assert (refused["error"], refused["phase"]) == ("unreachable", "tcp")
    assert (unresolved["error"], unresolved["phase"]) == ("unreachable", "dns")
    assert str(refusing) in refused["hint"]
    assert "nowhere.invalid" in unresolved["hint"]


@pytest.mark.edge(1)
def test_a_name_server_that_hangs_costs_no_more_than_the_timeout(monkeypatch):
    gone = threading.Event()
    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: gone.wait(60) and lookup(*a, **k))
    began = time.monotonic()
    document = tried(RemoteSpec("shop", "http", url="http://nowhere.invalid/mcp"), TIMEOUT_S)
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    gone.set()
    assert (document["error"], document["phase"]) == ("timeout", "dns")


def test_plain_http_behind_https_is_a_fault_of_tls(saying):
    document = tried(at(saying(answer("200 OK")), scheme="https"))
    assert (document["error"], document["phase"]) == ("unreachable", "tls")


@pytest.mark.parametrize(
    ("said", "error", "phase", "status"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "invalid", "http", "unhealthy"),
        (b"", "connection_lost", "http", "unhealthy"),
        (answer("404 Not Found", b"<h1>no</h1>"), "http_status", "http", "unhealthy"),
        (answer("302 Found"), "http_status", "http", "unhealthy"),
        (answer("503 Busy"), "http_status", "http", "unhealthy"),
        (answer("401 Unauthorized"), "auth_expired", "auth", "auth_expired"),
        (answer("403 Forbidden"), "http_status", "auth", "unhealthy"),
        (answer("200 OK", b"<h1>Welcome to nginx</h1>"), "invalid", "handshake", "unhealthy"),
        (answer("200 OK", b'{"jsonrpc":"2.0","id":1,"result":[]}', "application/json"), "invalid", "handshake", "unhealthy"),
    ],
)  # fmt: skip
def test_what_a_server_says_instead_of_mcp_names_the_step(saying, said, error, phase, status):
    document = tried(at(saying(said)), 5)
    assert (document["error"], document["phase"], document["status"]) == (error, phase, status), document
    assert document["hint"]


@pytest.mark.edge(4)
def test_a_server_that_refuses_the_key_fails_in_auth_and_the_key_is_not_repeated():
    with peers.sdk_server("http", "--key", "right") as peer:
        wrong = tried(RemoteSpec("peer", "http", url=peer.url, headers={"Authorization": "Bearer wr0ng-s3cret"}))
        right = tried(RemoteSpec("peer", "http", url=peer.url, headers={"Authorization": "Bearer right"}))
    assert (wrong["status"], wrong["error"], wrong["phase"]) == ("auth_expired", "auth_expired", "auth")
    assert "wr0ng-s3cret" not in str(wrong)
    assert right["ok"]


def test_a_header_that_cannot_be_sent_is_reported_like_any_other_fault(silent):
    document = tried(at(silent, headers={"X-Token": "two\nlines"}), TIMEOUT_S)
    assert (document["ok"], document["error"]) == (False, "unreachable")
    assert "two" not in str(document["message"])


def test_a_program_that_is_not_there_and_one_that_dies_fail_to_spawn():
    missing = tried(RemoteSpec("local", "stdio", command="no-such-program-here"))
    dying = tried(python("raise SystemExit('the licence has ended')"))
    assert (missing["error"], missing["phase"]) == ("not_started", "spawn")
    assert (dying["error"], dying["phase"]) == ("not_started", "spawn")
    assert "no-such-program-here" in missing["hint"]
    assert "the licence has ended" in dying["message"]


def test_a_process_that_answers_and_then_dies_fails_while_listing():
    code = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    m = json.loads(line)\n"
        "    if m['method'] == 'initialize':\n"
        "        r = {'protocolVersion': '2025-11-25', 'capabilities': {'tools': {}}, 'serverInfo': {}}\n"
        "        print(json.dumps({'jsonrpc': '2.0', 'id': m['id'], 'result': r}), flush=True)\n"
        "    elif m['method'] == 'tools/list':\n"
        "        sys.exit('out of luck')\n"
    )
    document = tried(python(code, era="2025-11-25"))
    assert (document["error"], document["phase"]) == ("connection_lost", "list")
    assert "out of luck" in document["message"]


def test_a_list_without_an_end_ends():
    code = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    m = json.loads(line)\n"
        "    if 'id' not in m: continue\n"
        "    r = {'protocolVersion': '2025-11-25', 'capabilities': {'tools': {}}, 'serverInfo': {}}\n"
        "    if m['method'] == 'tools/list': r = {'tools': [], 'nextCursor': 'again'}\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': m['id'], 'result': r}), flush=True)\n"
    )
    document = tried(python(code, era="2025-11-25"))
    assert (document["error"], document["phase"]) == ("invalid", "list")


@pytest.mark.edge(1)
@pytest.mark.parametrize("era", ["auto", "2025-11-25"])
def test_a_process_that_is_silent_and_ignores_every_request_to_leave_is_gone_when_the_probe_ends(era):
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    began = time.monotonic()
    document = tried(python(code, era=era), TIMEOUT_S)
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert (document["error"], document["phase"]) == ("timeout", "handshake")
    assert not new_children()


@pytest.mark.edge(1)
@pytest.mark.parametrize("silent_in", ["initialize", "tools/list"])
def test_a_process_that_stops_answering_is_a_timeout_in_that_step(silent_in):
    document = tried(python(LISTENER.replace("SILENT", silent_in), era="2025-11-25"), TIMEOUT_S)
    phase = "handshake" if silent_in == "initialize" else "list"
    assert (document["error"], document["phase"]) == ("timeout", phase), document


@pytest.mark.edge(1)
def test_a_server_that_hangs_within_its_first_answer_hangs_in_the_handshake(hanging):
    document = tried(at(hanging), TIMEOUT_S)
    assert (document["error"], document["phase"]) == ("timeout", "handshake"), document


def test_a_list_that_always_has_another_page_ends(monkeypatch):
    monkeypatch.setattr(probes, "_PAGES_MAX", 20)
    code = LISTENER.replace("SILENT", "nothing").replace("'tools': []", "'tools': [], 'nextCursor': str(m['id'])")
    document = tried(python(code, era="2025-11-25"))
    assert (document["error"], document["phase"]) == ("invalid", "list")
    assert "more than 20 pages" in document["message"]


def test_a_certificate_that_nobody_vouches_for_is_a_fault_of_tls(encrypted):
    report = probes.run(probes.probe(at(encrypted, scheme="https"), timeout_s=5))
    assert (report.error, report.phase) == ("unreachable", "tls"), report
    assert "certificate" in report.message
    assert [(step["name"], step["ok"]) for step in report.steps] == [("dns", True), ("tcp", True), ("tls", False)]


def test_a_program_that_may_not_run_fails_to_spawn(tmp_path):
    (tmp_path / "server").write_text("no script")
    document = tried(RemoteSpec("local", "stdio", command=str(tmp_path / "server")))
    assert (document["error"], document["phase"]) == ("not_started", "spawn")
    assert "Permission denied" in document["message"]
    assert "executable" in document["hint"]


def test_a_process_that_prints_garbage_is_told_where_its_log_belongs():
    document = tried(python("import time; print('Listening on port 80\\n' * 3, flush=True); time.sleep(60)"), TIMEOUT_S)
    assert (document["error"], document["phase"]) == ("timeout", "handshake")
    assert "it wrote 3 lines to stdout that are no MCP" in document["message"]
    assert "stderr" in document["hint"]


def test_a_trace_names_the_steps_in_their_order_up_to_the_one_that_failed(refusing, saying):
    def steps(spec):
        report = probes.run(probes.probe(spec))
        assert all(step["ms"] >= 0 for step in report.steps)
        return [step["name"] + ("" if step["ok"] else "!") for step in report.steps]

    assert steps(at(refusing)) == ["dns", "tcp!"]
    assert steps(at(saying(answer("401 Unauthorized")))) == ["dns", "tcp", "http", "auth!"]
    assert steps(at(saying(answer("404 Not Found")))) == ["dns", "tcp", "http!"]
    assert steps(at(saying(answer("200 OK", b"<h1>")))) == ["dns", "tcp", "http", "handshake!"]
    assert steps(RemoteSpec("local", "stdio", command="no-such-program-here")) == ["spawn!"]
    working = python(LISTENER.replace("SILENT", "nothing"), era="2025-11-25")
    assert steps(working) == ["spawn", "handshake", "list"]
    assert steps(python(LISTENER.replace("SILENT", "tools/list"), era="2025-11-25", list_timeout_s=0.5)) == [
        "spawn", "handshake", "list!",
    ]  # fmt: skip


def test_a_report_knows_the_tools_by_name():
    code = LISTENER.replace("SILENT", "nothing").replace("'tools': []", "'tools': [{'name': 'a'}, {'name': 'b'}, {}]")
    report = probes.run(probes.probe(python(code, era="2025-11-25", tools_disabled=("b",))))
    assert (report.tools, report.tool_names) == (1, ("a",))


def test_one_that_cannot_be_called_is_not_contacted(monkeypatch):
    monkeypatch.setattr(probes, "connect", None)  # whoever tries to fails
    needs = RemoteSpec("needs", "http", url="http://127.0.0.1:1/", missing=(Missing("TOKEN", "headers.Authorization"),))
    assert tried(needs) == {
        "ok": False, "name": "needs", "status": "misconfigured", "error": "misconfigured", "latency_ms": None, "phase": None,
        "message": "needs is misconfigured: ${TOKEN} (in headers.Authorization) is not set in the gateway's environment",
        "hint": "set TOKEN in .env or the environment, and restart",
        "transport": "http", "era": None, "tools": None,
    }  # fmt: skip
    off = tried(RemoteSpec("off", "http", enabled=False, url="http://127.0.0.1:1/"))
    assert (off["status"], off["error"], off["latency_ms"]) == ("disabled", "disabled", None)


def test_many_are_tried_side_by_side_and_reported_in_their_order(refusing):
    with socket.create_server(("127.0.0.1", 0)) as meeting:

        def wait_for_both():
            first, second = meeting.accept()[0], meeting.accept()[0]
            meeting.close()
            first.close()
            second.close()

        waiting = threading.Thread(target=wait_for_both, daemon=True)
        waiting.start()
        port = meeting.getsockname()[1]
        reports = probes.run(probes.probe_all([at(port), at(refusing), DEMO, at(port)], timeout_s=20))
        waiting.join(20)
    first, *middle, last = [report.error for report in reports]
    assert middle == ["unreachable", ""]
    assert "timeout" not in (first, last), "neither is answered before both have come"


def test_thirty_that_hang_take_no_longer_than_one(silent):
    began = time.monotonic()
    reports = probes.run(probes.probe_all([at(silent)] * 30, timeout_s=TIMEOUT_S))
    assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    assert {report.error for report in reports} == {"timeout"}


async def test_a_probe_that_is_cancelled_leaves_nothing_running(tmp_path):
    sign = tmp_path / "running"
    code = f"import pathlib, time; pathlib.Path({str(sign)!r}).touch(); time.sleep(600)"
    task = asyncio.ensure_future(probes.probe(python(code), timeout_s=30))
    async with asyncio.timeout(20):
        while not sign.exists():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not new_children()
