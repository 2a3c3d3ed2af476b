"""nginx and Caddy with the files of deploy/, in front of a real gateway: what comes through, when, and from whom.

The files run as they are shipped, but for addresses, names and certificates.
"""

import contextlib
import datetime
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcpserver.lib.limits import MIB, Limits
from tests import peers
from tests.system.gateway import ROOT, Gateway, eventually, running
from tests.system.tools import require

DEPLOY = ROOT / "deploy"
NAME = "mcp.example.com"
MODERN = "2026-07-28"
# A client of another address than the proxy has towards the gateway, and what it pretends to be.
CLIENT, PRETENDED = "127.0.0.9", "203.0.113.7"
PATIENCE_S = 15.0


@dataclass(frozen=True)
class Proxy:
    gateway: Gateway
    port: int
    certificate: Path | None
    key: str

    def connect(self, timeout_s: float = PATIENCE_S) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(NAME, timeout=timeout_s)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout_s, source_address=(CLIENT, 0))
        secure = ssl.create_default_context(cafile=str(self.certificate)) if self.certificate else None
        connection.sock = secure.wrap_socket(plain, server_hostname=NAME) if secure else plain
        return connection

    @contextlib.contextmanager
    def asked(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> Iterator[http.client.HTTPResponse]:
        chosen = {"Authorization": f"Bearer {self.key}", "X-Forwarded-For": PRETENDED}
        if body is not None:
            chosen["Content-Type"] = "application/json"
        with contextlib.closing(self.connect()) as connection:
            connection.request(
                method, path, body, chosen | {name.replace("_", "-"): value for name, value in headers.items()}
            )
            yield connection.getresponse()


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    demo = {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(ROOT)}
    with running({"demo": demo}, ALLOWED_HOSTS=f"{NAME},127.0.0.1", MCP_TRUSTED_PROXIES="127.0.0.1") as gateway:
        eventually(
            gateway.remotes,
            lambda found: found["demo"]["status"] == "healthy",
            within_s=PATIENCE_S,
            what="demo is healthy",
        )
        yield gateway


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(
    request: pytest.FixtureRequest, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    require(request.param)
    start = {"nginx": nginx, "caddy": caddy}[request.param]
    with start(gateway, tmp_path_factory.mktemp(request.param)) as proxy:
        yield proxy


@contextlib.contextmanager
def nginx(gateway: Gateway, folder: Path, change: Callable[[str], str] = str) -> Iterator[Proxy]:
    certificate, key = a_certificate(folder)
    port = peers.free_port()
    site = (DEPLOY / "nginx" / "mcp-server.conf").read_text()
    for shipped, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("server 127.0.0.1:3000;", f"server {gateway.url.removeprefix('http://')};"),
        (f"/etc/ssl/certs/{NAME}.pem", str(certificate)),
        (f"/etc/ssl/private/{NAME}.key", str(key)),
    ):
        assert site.count(shipped) == 1
        site = site.replace(shipped, here)
    (folder / "site.conf").write_text(change(site))
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; user root; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder}/site.conf; }}\n"
    )
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=20, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr, checked.stderr
    with a_process(command, port, folder):
        yield Proxy(gateway, port, certificate, gateway.keys[0])


@contextlib.contextmanager
def caddy(gateway: Gateway, folder: Path) -> Iterator[Proxy]:
    """Over plain HTTP: the certificate would come from the network."""
    port = peers.free_port()
    site = (DEPLOY / "caddy" / "Caddyfile").read_text()
    for shipped, here in (
        (f"\n{NAME} {{", f"\nhttp://{NAME}:{port} {{"),
        ("127.0.0.1:3000", gateway.url.removeprefix("http://")),
    ):
        assert site.count(shipped) == 1
        site = site.replace(shipped, here)
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + site)
    environment = {
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "PATH": "/usr/bin",
    }
    command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with a_process(command, port, folder, environment):
        yield Proxy(gateway, port, None, gateway.keys[1])


@contextlib.contextmanager
def a_process(command: list[str], port: int, folder: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    try:
        eventually(lambda: listens(port), bool, within_s=PATIENCE_S, what=f"{command[0]} listens")
        yield
    finally:
        peers.end_group(process, signal.SIGTERM)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def a_certificate(folder: Path) -> tuple[Path, Path]:
    """For NAME, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
        now + datetime.timedelta(days=1)
    )
    certificate = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False).sign(
        key, hashes.SHA256()
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, encoding, plain))
    return folder / "cert.pem", folder / "key.pem"


def message(method: str, params: dict[str, Any], id: int = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def call(proxy: Proxy, name: str, **arguments: Any) -> Any:
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    meta |= {"progressToken": "p"}
    named = {"MCP_Protocol_Version": MODERN, "Mcp_Method": "tools/call", "Mcp_Name": name}
    body = message("tools/call", {"name": name, "arguments": arguments, "_meta": meta})
    return proxy.asked("POST", "/mcp", body, Accept="application/json, text/event-stream", **named)


def event(response: http.client.HTTPResponse) -> str:
    """The `data` of the next event; comments keep a stream alive and say nothing."""
    while line := response.readline():
        if line.startswith(b"data:"):
            return line[5:].decode().strip()
    raise AssertionError("the stream ended")


def test_a_call_and_its_answer_come_through(proxy: Proxy) -> None:
    with call(proxy, "demo__echo", text="hello") as response:
        assert response.status == 200
        assert json.load(response)["result"]["content"][0]["text"] == "hello"


def test_events_of_a_call_come_while_it_runs(proxy: Proxy) -> None:
    """The call takes longer than anybody here waits: what is read was not held back until its end."""
    with call(proxy, "demo__slow", seconds=100, steps=200) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert [json.loads(event(response))["params"]["progress"] for _ in range(3)] == [1, 2, 3]


def test_events_of_the_first_transport_come_one_by_one(proxy: Proxy) -> None:
    with proxy.asked("GET", "/sse", Accept="text/event-stream") as stream:
        address = event(stream)
        hello = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        for id, (method, params) in enumerate((("initialize", hello), ("ping", {}), ("ping", {}))):
            with proxy.asked("POST", address, message(method, params, id)) as accepted:
                assert accepted.status == 202
            assert json.loads(event(stream))["id"] == id


def test_a_body_that_is_too_large_gets_413_as_the_gateway_says_it(proxy: Proxy) -> None:
    with proxy.asked("POST", "/mcp", b" " * (MIB + 1)) as response:
        assert response.status == 413
        assert json.load(response)["error"]


def test_the_client_is_whom_the_proxy_was_asked_by_not_whom_it_claims_to_be(proxy: Proxy) -> None:
    with call(proxy, "demo__echo", text="x") as response:
        response.read()

    def sources() -> set[str]:
        name = {proxy.gateway.keys[0]: "first", proxy.gateway.keys[1]: "second"}[proxy.key]
        uses = proxy.gateway.command("mcpkey", "audit", "--event", "used", "--name", name)["events"]
        return {one["detail"]["from"] for one in uses}

    found = eventually(sources, lambda found: CLIENT in found, within_s=PATIENCE_S, what="the audit names the client")
    assert PRETENDED not in found


def test_through_a_proxy_only_who_has_a_key_learns_what_the_remotes_are_called(proxy: Proxy) -> None:
    for key, is_told in (("mcp_wrong", False), (proxy.key, True)):
        with proxy.asked("GET", "/health", Authorization=f"Bearer {key}") as response:
            assert response.status == 200
            assert ("demo" in response.read().decode()) == is_told
    for path in ("/metrics", "/metrics/"):
        with proxy.asked("GET", path) as response:
            assert response.status == 404


def test_nginx_waits_longer_for_a_quiet_stream_than_the_gateway_lets_one_live(gateway: Gateway, tmp_path: Path) -> None:
    """With less, it cuts the stream: the same file with one second in it shows that this is the line that counts."""
    require("nginx")
    line = "proxy_read_timeout 3700s;"
    assert int(line.split()[1].rstrip("s;")) > Limits().connection_timeout_s
    with (
        nginx(gateway, tmp_path, lambda site: site.replace(line, "proxy_read_timeout 1s;")) as hasty,
        hasty.asked("GET", "/sse", Accept="text/event-stream") as stream,
    ):
        event(stream)
        assert ends(stream)


def test_a_quiet_stream_stays_open(proxy: Proxy) -> None:
    with contextlib.closing(proxy.connect(timeout_s=2.5)) as connection:
        connection.request("GET", "/sse", headers={"Authorization": f"Bearer {proxy.key}"})
        stream = connection.getresponse()
        event(stream)
        stream.readline()
        with pytest.raises(TimeoutError):
            stream.readline()


def ends(stream: http.client.HTTPResponse) -> bool:
    with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
        return b"data:" not in stream.read()
    return True
