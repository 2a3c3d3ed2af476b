"""`mcp doctor` against real faults, and its bundle, which holds no secret."""

import http.server
import json
import os
import socket
import sys
import tarfile
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from monitoring import doctor
from tests import peers

pytestmark = pytest.mark.django_db(transaction=True)

SECRETS = ("tok-pasted-1", "tok-pasted-2", "tok-pasted-3", "pw-in-url-4", "env-secret-5", "key-in-log-6A")
CONFIG = """
version: 1
mcpServers:
  shop: {url: "https://user:pw-in-url-4@shop.example.com/mcp", headers: {X-Whatever: tok-pasted-1}}
  local: {command: prog, args: ["--t", tok-pasted-2], env: {WHATEVER: tok-pasted-3}}
"""


@pytest.fixture
def home(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATA", "LOG", "RUN", "BACKUP"):
        folder = tmp_path / name.lower()
        folder.mkdir(mode=0o700)
        setattr(settings, f"MCP_{name}_DIR", folder)
    settings.MCP_CONFIG = tmp_path / "mcp-config.yaml"
    settings.MCP_CONFIG.write_text(CONFIG)
    monkeypatch.setenv("SHOP_TOKEN", "env-secret-5")
    line = {"message": "sent Authorization: Bearer key-in-log-6A", "note": "env-secret-5 came back"}
    (tmp_path / "log" / "combined.log").write_text(json.dumps(line) + "\n")
    return tmp_path


def run(*words: str) -> tuple[int, dict[str, Any]]:
    out, code = StringIO(), 0
    try:
        call_command("mcp", "doctor", *words, stdout=out)
    except SystemExit as end:
        code = int(end.code or 0)
    return code, json.loads(out.getvalue())


def of(document: dict[str, Any], name: str) -> list[dict[str, str]]:
    return [check for check in document["checks"] if check["name"] == name]


def test_no_secret_is_in_the_bundle(home: Path) -> None:
    code, document = run("--bundle", str(home / "report.tgz"))
    assert code in (0, 1)
    with tarfile.open(home / "report.tgz") as archive:
        texts = {one.name: archive.extractfile(one).read().decode() for one in archive.getmembers()}
    assert sorted(texts) == [
        f"mcp-doctor/{name}" for name in ("checks.json", "config.json", "log.json", "settings.json", "status.json")
    ]
    whole = "".join(texts.values()) + json.dumps(document)
    assert [secret for secret in SECRETS if secret in whole] == []
    assert "shop.example.com" in texts["mcp-doctor/config.json"]
    assert (home / "report.tgz").stat().st_mode & 0o077 == 0
    assert run("--bundle", str(home / "report.tgz"))[1]["error"] == "exists"


def test_each_fault_has_a_finding_that_says_what_to_do(home: Path) -> None:
    (home / "backup").rmdir()
    (home / "run").chmod(0o755)
    (home / "mcp-config.yaml").write_text("version: 1\nmcpServers: {a: {ulr: http://x}}\n")
    code, document = run()
    assert code == 1
    assert [check["fix"] for check in of(document, "folders") if check["status"] == "warning"] == ["mcp doctor --fix"]
    assert of(document, "file_modes")[0]["fix"] == "mcp doctor --fix"
    assert {check["status"] for check in of(document, "config")} == {"failed"}
    assert of(document, "gateway") == [
        {"name": "gateway", "status": "warning", "detail": "it is stopped", "fix": "mcpserver start"}
    ]
    assert all(check["fix"] for check in document["checks"] if check["status"] != "ok")
    assert len(run("--fix")[1]["fixed"]) >= 2
    assert (home / "backup").is_dir()
    assert (home / "run").stat().st_mode & 0o077 == 0


def test_a_variable_that_nothing_reads_is_found_with_the_one_that_was_meant(
    home: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {check["status"] for check in of(run()[1], "variables")} == {"ok"}
    monkeypatch.setenv("MCP_MAX_REQEST_SIZE", "5")
    settings.MCP_WORKERS, settings.REDIS_URL = 2, ""
    misspelt, workers = of(run()[1], "variables")
    assert (misspelt["status"], misspelt["fix"]) == ("warning", "did you mean MCP_MAX_REQUEST_SIZE?")
    assert (workers["status"], workers["fix"]) == ("failed", "set REDIS_URL, or MCP_WORKERS=1")


def test_a_port_that_another_program_has_is_found_with_its_pid(home: Path, settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings.HOST, settings.PORT = "127.0.0.1", other.getsockname()[1]
        (taken,) = of(run()[1], "address")
        assert (taken["status"], f"pid {os.getpid()}" in taken["detail"]) == ("failed", True)
    assert [check["status"] for check in of(run()[1], "address")] == ["ok"]
    settings.HOST, settings.ALLOWED_HOSTS = "203.0.113.1", ["localhost", "127.0.0.1"]
    foreign, closed = of(run()[1], "address")
    assert (foreign["status"], foreign["fix"]) == ("failed", "check HOST and PORT")
    assert "ALLOWED_HOSTS" in closed["fix"]


def test_a_key_that_is_none_and_a_redis_that_is_not_there_are_found(home: Path, settings: Any) -> None:
    settings.MCP_ENCRYPTION_KEYS = ["no-key"]
    settings.REDIS_URL = f"redis://127.0.0.1:{peers.free_port()}/0"
    document = run()[1]
    assert of(document, "encryption")[0]["status"] == "failed"
    assert of(document, "redis") == [
        {"name": "redis", "status": "failed", "detail": "down", "fix": "check REDIS_URL and the server"}
    ]


def test_packages_that_are_not_those_of_the_lock_are_found(home: Path, settings: Any) -> None:
    settings.BASE_DIR = home
    (home / "requirements.txt").write_text("django==1.0 \\\n    --hash=sha256:00\nno-such-package==1 \\\n")
    (found,) = of(run()[1], "versions")
    assert (found["status"], "django 5." in found["detail"], "./start" in found["fix"]) == ("warning", True, True)


class HoldsBack(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if self.path == "/sse":
            self.server.released.wait(5)  # type: ignore[attr-defined]

    def log_message(self, *_words: Any) -> None:
        """Quiet."""


@pytest.fixture
def proxy() -> Iterator[str]:
    """Passes what is short on, and holds streams back."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HoldsBack)
    server.released = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.released.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def test_a_proxy_that_holds_streams_back_is_found(home: Path, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_DOCTOR_KEY", "whatever")
    monkeypatch.setattr(doctor, "PROBE_S", 0.3)
    _, document = run("--url", f"{proxy}/mcp")
    assert of(document, "proxy")[0]["status"] == "ok"
    assert "holds streams back" in of(document, "proxy_streams")[0]["detail"]
    assert "proxy_buffering off" in of(document, "proxy_streams")[0]["fix"]


def test_traces_that_cannot_be_are_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(run()[1], "traces") == []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        assert [check["status"] for check in of(run()[1], "traces")] == ["ok"]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        assert "4318" in of(run()[1], "traces")[0]["fix"]
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL")
    assert "cannot be reached" in of(run()[1], "traces")[0]["detail"]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
    assert [check["status"] for check in of(run()[1], "traces")] == ["failed"]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert "deploy/otel/requirements.txt" in of(run()[1], "traces")[0]["fix"]


def test_a_code_is_explained_and_a_mistyped_one_guessed() -> None:
    assert run("explain", "locked")[1]["do"].startswith("Wait")
    assert run("explain", "lockd")[1]["hint"] == "did you mean locked?"
    assert run("explain", "locked")[1]["exits"] == [6]
    assert run("explain", "-32020")[1]["statuses"] == [400]
    assert "Retry-After" in run("explain", "429")[1]["do"]
    assert len(run("explain")[1]["codes"]) > 80
