"""The warm connections of one remote over real sockets, on both event loops: reuse, age, names, TLS, and what was sent or not."""

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from remotes.config.addresses import Reach
from remotes.upstream import origin as origins
from remotes.upstream.http1 import Broken, NotHttp, Response, Unreachable
from remotes.upstream.origin import Address, Origin
from tests.component.upstreams import Request, Wire, served

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def origin_of(url: str, **options) -> AsyncIterator[Origin]:
    one = Origin(url, options.pop("reach", Reach()), **options)
    try:
        yield one
    finally:
        one.close()


async def post(one: Origin, body: bytes = b"{}") -> Response:
    return await one.send(one.head("POST", {"Content-Type": "application/json"}), {}, body)


async def text(one: Origin) -> bytes:
    response = await post(one)
    try:
        return await response.read(1000)
    finally:
        response.close()


def saying(*parts: bytes, close: bool = False):
    async def script(request: Request, wire: Wire) -> None:
        await wire.send(*parts)
        if close:
            wire.close()

    return script


async def test_requests_one_after_another_share_a_connection_and_those_beside_each_other_do_not():
    gate = asyncio.Event()

    async def script(request: Request, wire: Wire) -> None:
        if request.body == b"wait":
            await gate.wait()
        await wire.send(OK)

    async with served(script) as server, origin_of(server.url) as one:
        assert [await text(one) for _ in range(5)] == [b"ok"] * 5
        assert server.accepted == 1
        held = [asyncio.ensure_future(post(one, b"wait")) for _ in range(5)]
        await server.until(lambda state: len(state.arrived) == 10)
        gate.set()
        await asyncio.gather(*held)
        assert server.accepted == 5
        assert await text(one) == b"ok"
        assert server.accepted == 5


async def test_an_idle_connection_is_not_kept_beyond_its_age(monkeypatch):
    monkeypatch.setattr(origins, "_KEEPALIVE_S", 0.1)
    async with served(saying(OK)) as server, origin_of(server.url) as one:
        await text(one)
        await server.until(lambda state: state.open == 0, 3)
        assert await text(one) == b"ok"
        assert server.accepted == 2


async def test_a_connection_that_the_remote_has_closed_meanwhile_is_not_used(monkeypatch):
    """The loop has not seen the end yet: a POST on that connection would be lost, and nobody could repeat it."""
    monkeypatch.setattr(origins, "_LOOK_AFTER_S", 0.0)
    async with served(saying(OK, close=True)) as server, origin_of(server.url) as one:
        for number in range(1, 20):
            assert await text(one) == b"ok"
            assert server.accepted == number


async def test_a_request_that_dies_on_a_warm_connection_is_broken_and_not_repeated():
    async def script(request: Request, wire: Wire) -> None:
        if len(server.arrived) == 1:
            await wire.send(OK)
        else:
            wire.reset()

    async with served(script) as server, origin_of(server.url) as one:
        await text(one)
        with pytest.raises(Broken):
            await text(one)
        assert len(server.arrived) == 2
        assert server.accepted == 1


async def test_answers_never_reach_another_request():
    """Many at once, some cancelled, some with a second answer glued to the first: each gets its own or none."""

    async def script(request: Request, wire: Wire) -> None:
        await asyncio.sleep(0.001 * (request.body[-1] % 5))
        glued = OK.replace(b"ok", b"no") if request.body[-1] % 7 == 0 else b""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body)
        await wire.send(head[:20])
        await wire.send(head[20:] + request.body + glued)

    async def ask(one: Origin, number: int) -> None:
        body = b"%d" % number
        asked = asyncio.ensure_future(post(one, body))
        if number % 3 == 0:
            await asyncio.sleep(0.001 * (number % 4))
            asked.cancel()
            await asyncio.wait({asked})
            return
        response = await asked
        assert await response.read(100) == body
        response.close()

    async with served(script) as server, origin_of(server.url) as one:
        for round in range(5):
            await asyncio.gather(*(ask(one, 40 * round + number) for number in range(40)))


async def test_a_banner_before_any_request_is_no_http_and_nothing_was_sent():
    arrived = b""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        writer.write(b"220 mail.example ESMTP\r\n")
        arrived = await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server, origin_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as one:
        with pytest.raises((NotHttp, Unreachable)):
            await text(one)


async def test_a_stream_that_nobody_reads_stops_at_a_bound():
    sent = 0

    async def script(request: Request, wire: Wire) -> None:
        nonlocal sent
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while sent < 100_000_000:
            await wire.send(b"a" * 65536)
            sent += 65536

    async with served(script) as server, origin_of(server.url) as one:
        response = await post(one)
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 30_000_000  # the bound, and what the kernel buffers on both sides
        response.close()
        await server.until(lambda state: state.open == 0)


# Names.


@pytest.fixture
def resolving(monkeypatch):
    """Names resolve to these addresses; the lookups that were made."""
    lookups: list[str] = []

    def resolve(*addresses: str) -> list[str]:
        def lookup(host, port, *args, **options):
            lookups.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        # uvloop has a resolver of its own, and connects through it too.
        own = uvloop.Loop.getaddrinfo

        async def lookup_of_uvloop(loop, host, port, **options):
            is_name = str(host).endswith(".example")
            return lookup(host, port) if is_name else await own(loop, host, port, **options)

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        monkeypatch.setattr(uvloop.Loop, "getaddrinfo", lookup_of_uvloop)
        return lookups

    return resolve


@pytest.mark.parametrize("address", ["10.1.2.3", "169.254.169.254", "192.168.0.1", "0.0.0.0"])
async def test_a_name_that_leads_into_a_forbidden_network_is_not_connected_to(resolving, address):
    resolving(address)
    async with origin_of("http://innocent.example/mcp") as one:
        with pytest.raises(Unreachable, match="allow_private_networks") as caught:
            await text(one)
        assert caught.value.phase == "dns"


async def test_of_several_addresses_only_those_that_are_allowed_are_tried(resolving):
    async with served(saying(OK)) as server:
        resolving("10.1.2.3", "127.0.0.1")
        async with origin_of(f"http://mixed.example:{server.port}/mcp") as one:
            assert await text(one) == b"ok"


async def test_a_burst_of_new_connections_looks_a_name_up_once(resolving):
    async with served(saying(OK)) as server:
        lookups = resolving("127.0.0.1")
        async with origin_of(f"http://busy.example:{server.port}/mcp") as one:
            await asyncio.gather(*(text(one) for _ in range(20)))
            assert lookups == ["busy.example"]


async def test_an_address_that_refuses_is_passed_over_for_the_next(resolving):
    async with served(saying(OK)) as server:
        resolving("127.0.0.2", "127.0.0.1")
        async with origin_of(f"http://half.example:{server.port}/mcp") as one:
            assert await text(one) == b"ok"


async def test_an_address_in_the_url_is_judged_as_well():
    async with origin_of("http://10.1.2.3/mcp") as one:
        with pytest.raises(Unreachable, match="allow_private_networks"):
            await text(one)


async def test_a_refused_connection_says_why_and_names_no_address():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        async with origin_of(f"http://127.0.0.1:{port}/mcp?key=secret") as one:
            with pytest.raises(Unreachable) as caught:
                await text(one)
    assert (caught.value.phase, str(caught.value)) == ("tcp", "Connection refused")


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    plain = serialization.NoEncryption()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(key.private_bytes(*form) + made.public_bytes(serialization.Encoding.PEM))
    return path


@contextlib.asynccontextmanager
async def served_by_tls(certificate) -> AsyncIterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                writer.write(OK)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"


async def test_a_certificate_that_nobody_vouches_for_is_refused_before_anything_is_sent(certificate):
    async with served_by_tls(certificate) as url, origin_of(url) as one:
        with pytest.raises(Unreachable) as caught:
            await text(one)
        assert caught.value.phase == "tls"
        assert "self-signed" in str(caught.value)


async def test_requests_over_tls_are_answered_on_one_connection(certificate, monkeypatch):
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(origins, "_tls", lambda: trusting)
    monkeypatch.setattr(origins, "_LOOK_AFTER_S", 0.0)
    steps: list[str] = []
    async with served_by_tls(certificate) as url, origin_of(url, watch=steps.append) as one:
        assert [await text(one) for _ in range(3)] == [b"ok"] * 3
        assert steps == ["tcp", "tls", "http", "handshake", "handshake", "handshake"]


async def test_a_tls_handshake_that_hangs_leaves_no_socket_behind_when_it_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with origin_of(f"https://127.0.0.1:{silent.getsockname()[1]}/") as one:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await text(one)
        peer, _ = silent.accept()
        reader, writer = await asyncio.open_connection(sock=peer)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 5)  # what was sent of the handshake, then the end
        writer.close()


# Addresses.


@pytest.mark.parametrize(
    ("url", "address", "host"),
    [
        ("http://a.example", ("http", "a.example", 80, "/"), "a.example"),
        ("https://A.example:8443/x?y=1#z", ("https", "a.example", 8443, "/x?y=1"), "a.example:8443"),
        ("http://[::1]:80/a b", ("http", "::1", 80, "/a%20b"), "[::1]"),
        (
            "http://b\u00fccher.example/\u00fc",
            ("http", "xn--bcher-kva.example", 80, "/%C3%BC"),
            "xn--bcher-kva.example",
        ),
        ("http://h/a%2Fb?q=%20", ("http", "h", 80, "/a%2Fb?q=%20"), "h"),
    ],
)
def test_a_url_is_read_once_for_everything(url, address, host):
    found = Address.of(url)
    assert found == address
    assert found.host_header == host


@pytest.mark.parametrize("reference", ["/post?id=1", "http://h:81/post?id=1", "post?id=1", "?id=1"])
def test_a_reference_on_the_same_origin_is_followed(reference):
    assert Address.of("http://h:81/sse").joined("http://h:81/sse", reference).target in ("/post?id=1", "/sse?id=1")


@pytest.mark.parametrize(
    "reference",
    ["http://h/", "http://user@h:81/", "https://h:81/", "//evil/", "http://h:81@evil/", "ftp://h:81/", "http://h:x/", "http://["],
)  # fmt: skip
def test_a_reference_to_another_origin_is_refused(reference):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        Address.of("http://h:81/sse").joined("http://h:81/sse", reference)


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "\0", "\x7f", "\ud800"])
def test_a_header_that_would_be_two_is_not_sent(value):
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeEncodeError is one
        origins.lines_of({"X-Name": value})
    with pytest.raises(ValueError):  # noqa: PT011
        origins.lines_of({value: "x"})
