"""`mcp remote login` and `logout` against a real authorization server, with a real HTTP client for the person's browser."""

import asyncio
import concurrent.futures
import re
import socket
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from mcpserver.lib.errors import Exit, GatewayError
from remotes.config.snapshot import AuthSpec
from remotes.models import RemoteEvent, StoredToken
from remotes.tokens.login import services
from remotes.upstream.outcome import Answer
from tests.component.token_world import KEY, assert_untold, credential_of, gateway, guarded
from tests.component.upstreams import Request, Wire, call, http, modern, served
from tests.peers.authorization import authorization_server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.edge(4)]

ANYWHERE = "http://127.0.0.1:0/callback"
ISS = "authorization_response_iss_parameter_supported"


@pytest.fixture(scope="module")
def server():
    with authorization_server() as desk:
        yield desk


@pytest.fixture
def desk(server, settings):
    settings.MCP_ENCRYPTION_KEYS = [KEY]
    server.__dict__.update(type(server)(url=server.url).__dict__)
    return server


def protected(desk, *, about=None, scope='scope="tools"', script=None):
    """A remote that says where to log in, as the specification wants it."""
    inner = guarded(desk, script or modern())

    async def answer(request: Request, wire: Wire) -> None:
        host = request.headers["host"]
        where = f"http://{host}/.well-known/oauth-protected-resource/mcp"
        if request.target.startswith("/.well-known/oauth-protected-resource"):
            facts = {"resource": f"http://{host}/mcp", "authorization_servers": [desk.url]}
            await wire.answer(facts | (about or {}))
        elif not desk.accepts(request.headers.get("authorization", "")):
            challenge = f'WWW-Authenticate: Bearer resource_metadata="{where}", {scope}\r\n'
            await wire.answer(b"", status=401, headers=challenge)
        else:
            await inner(request, wire)

    return answer


class Person:
    """Opens what is shown, as a browser does: follows redirects, and leaves the last page as it is."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.pages: list[str] = []

    def __call__(self, address: str) -> None:
        self.shown.append(address)
        asyncio.get_running_loop().run_in_executor(None, self._open, address)

    def _open(self, address: str) -> None:
        with urllib.request.urlopen(address, timeout=5) as page:
            self.pages.append(page.read().decode())


async def login(spec, person=None, **how):
    chosen = services.How(how.pop("redirect_uri", ANYWHERE), timeout_s=how.pop("timeout_s", 10.0), **how)
    return await services.login(spec, chosen, show=person or Person(), actor="cli:tester")


async def test_a_code_with_pkce_comes_back_over_loopback_and_the_running_gateway_uses_the_token(desk):
    async with served(protected(desk)) as remote, gateway(http(remote)) as one:
        assert (await call(one)).message == "remote wants a login: mcp remote login remote"
        person = Person()
        done = await login(http(remote), person)
        assert done.keys() == {"name", "status", "expires_at", "scope"}
        assert (done["status"], done["scope"]) == ("logged_in", "tools")
        asked = parse_qs(urlsplit(person.shown[0]).query)
        assert asked["code_challenge_method"] == ["S256"]
        assert asked["resource"] == [remote.url]
        assert desk.asked[-1]["resource"] == remote.url
        await credential_of(one)._loading.begin()
        assert isinstance(await call(one), Answer)
        assert_untold(desk, done, *vars(await StoredToken.objects.aget()).values())
        event = await RemoteEvent.objects.aget()
        assert (event.event, event.remote, event.actor) == ("logged_in", "remote", "cli:tester")
        assert "close this page" in person.pages[0]


async def test_a_registered_client_is_used_and_nothing_is_registered(desk):
    async with served(protected(desk)) as remote:
        uri = f"http://127.0.0.1:{free_port()}/callback"
        desk.client(redirect_uris=[uri], scope="tools", token_endpoint_auth_method="client_secret_basic")
        spec = http(remote, auth=AuthSpec(client_id="known", client_secret="its-secret"))
        assert (await login(spec, redirect_uri=uri))["status"] == "logged_in"
        assert list(desk.clients) == ["known"]


async def test_a_client_metadata_document_is_our_id_where_the_server_takes_them(desk):
    url, uri = "https://gateway.example/client.json", f"http://127.0.0.1:{free_port()}/callback"
    document = {"client_id": url, "client_name": "MCP-Server", "redirect_uris": [uri], "scope": "tools"}
    desk.documents[url] = document | {"token_endpoint_auth_method": "none"}
    async with served(protected(desk)) as remote:
        spec = http(remote, auth=AuthSpec(client_metadata_url=url))
        assert (await login(spec, redirect_uri=uri))["status"] == "logged_in"
        assert (desk.asked[-1]["client_id"], desk.clients) == (url, {})
        async with gateway(spec) as one:
            desk.revoke_access()
            credential_of(one)._obtained -= 3600
            await call(one)
            credential_of(one)._obtained -= 3600
            assert isinstance(await call(one), Answer)


async def test_the_device_flow_waits_for_the_person_and_is_told_to_have_patience(desk):
    shown: list[str] = []
    desk.patience = 1
    async with served(protected(desk)) as remote:
        done = await login(http(remote), shown.append, by_device=True)
        assert done["status"] == "logged_in"
        assert shown == [f"{desk.url}/agree\nand enter the code WDJB-MJHT"]
        assert [form["grant_type"].rpartition(":")[2] for form in desk.asked] == ["device_code", "device_code"]
        async with gateway(http(remote)) as one:
            assert isinstance(await call(one), Answer)


async def test_an_address_that_is_pasted_does_as_well(desk, monkeypatch):
    shown: asyncio.Queue[str] = asyncio.Queue()
    pasted = Pasted()
    monkeypatch.setattr("sys.stdin", pasted)
    async with served(protected(desk)) as remote:
        going = asyncio.create_task(login(http(remote), shown.put_nowait, listens=False, pastes=True))
        address = await asyncio.wait_for(shown.get(), 5)
        assert ":0/" not in parse_qs(urlsplit(address).query)["redirect_uri"][0]
        pasted.line.set_result(await asyncio.to_thread(where_it_ends, address))
        assert (await going)["status"] == "logged_in"


async def test_standard_input_that_ends_without_an_address_ends_the_login(desk, monkeypatch):
    monkeypatch.setattr("sys.stdin", iter(["what?\n"]))
    async with served(protected(desk)) as remote:
        with pytest.raises(GatewayError, match="no address was pasted"):
            await login(http(remote), lambda address: None, listens=False, pastes=True)


async def test_nothing_is_asked_for_where_the_remote_asks_for_nothing(desk):
    person = Person()
    async with served(protected(desk, scope='realm="x"')) as remote:
        await login(http(remote), person)
        assert "scope" not in parse_qs(urlsplit(person.shown[0]).query)


class Pasted:
    """Standard input with one line, once it is there."""

    def __init__(self) -> None:
        self.line: concurrent.futures.Future[str] = concurrent.futures.Future()

    def __iter__(self):
        yield "http://127.0.0.1/callback?code=forged&state=wrong\n"
        yield self.line.result(10) + "\n"


def where_it_ends(address: str) -> str:
    """The address in the bar of a browser that cannot load it."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    try:
        urllib.request.build_opener(Stay()).open(address, timeout=5)
    except urllib.error.HTTPError as ended:
        return ended.headers["Location"]
    raise AssertionError("no redirect")


async def test_a_step_up_asks_for_what_was_granted_before_as_well(desk):
    async with served(protected(desk)) as remote:
        await login(http(remote))
        person = Person()
        assert (await login(http(remote), person, scope="files:write"))["scope"] == "tools files:write"
        assert parse_qs(urlsplit(person.shown[0]).query)["scope"] == ["tools files:write"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"approves": False, "lacks": (ISS,)}, "the consent was not given (access_denied)"),
        ({"approves": False}, "not from the authorization server that was asked"),  # its error names no issuer
        ({"wrong_iss": True}, "not from the authorization server that was asked"),
        ({"lacks": ("code_challenge_methods_supported",)}, "does not say that it knows PKCE"),
        ({"lacks": ("registration_endpoint",)}, "registers no clients by itself"),
        ({"answer": (400, b'{"error":"invalid_grant"}')}, "gave no token (invalid_grant)"),
        ({"answer": (200, b'{"access_token":"line\\nend"}')}, "gave no token: its token holds characters"),
        ({"answer": (200, b"x" * 300_000)}, "gave no token: it sent more than"),
    ],
)
async def test_what_goes_wrong_is_said_and_nothing_is_stored(desk, change, why):
    vars(desk).update(change)
    async with served(protected(desk)) as remote:
        with pytest.raises(GatewayError, match=re.escape(why)) as failed:
            await login(http(remote), timeout_s=5)
        assert (failed.value.code, failed.value.exit_code) == ("login_failed", Exit.KEY)
        assert_untold(desk, failed.value.document())
        assert not await StoredToken.objects.aexists()


async def test_metadata_about_another_resource_or_issuer_is_not_used(desk):
    async with served(protected(desk, about={"resource": "https://elsewhere.example/mcp"})) as remote:
        with pytest.raises(GatewayError, match="about another resource"):
            await login(http(remote))
    async with served(protected(desk, about={"authorization_servers": [f"{desk.url}/tenant"]})) as remote:
        with pytest.raises(GatewayError, match="no authorization server can be found"):
            await login(http(remote))
    for forbidden in ("http://169.254.169.254", "http://auth.example.com"):
        async with served(protected(desk, about={"authorization_servers": [forbidden]})) as remote:
            with pytest.raises(GatewayError, match="no authorization server can be found"):
                await login(http(remote))


async def test_a_browser_that_was_sent_by_somebody_else_is_not_believed(desk):
    shown: asyncio.Queue[str] = asyncio.Queue()
    async with served(protected(desk)) as remote:
        going = asyncio.create_task(login(http(remote), shown.put_nowait))
        address = await asyncio.wait_for(shown.get(), 5)
        back = parse_qs(urlsplit(address).query)["redirect_uri"][0]
        forged = f"{back}?{urlencode({'code': 'forged', 'state': 'guessed'})}"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            await asyncio.to_thread(urllib.request.urlopen, forged, timeout=5)
        assert not going.done()
        await asyncio.to_thread(urllib.request.urlopen, address, timeout=5)
        assert (await going)["status"] == "logged_in"


async def test_nobody_agrees_in_time(desk):
    async with served(protected(desk)) as remote:
        with pytest.raises(GatewayError, match="nobody agreed within 1 s"):
            await login(http(remote), lambda address: None, timeout_s=1.0)


async def test_a_logout_ends_the_token_there_and_here(desk):
    async with served(protected(desk)) as remote:
        await login(http(remote))
        done = await services.logout("remote", http(remote), actor="cli:tester")
        assert done == {"name": "remote", "status": "logged_out", "was_logged_in": True, "revoked": True}
        assert len(desk.ended) == 1
        assert (await StoredToken.objects.aget()).sealed == ""
        async with gateway(http(remote)) as one:
            assert "wants a login" in (await call(one)).message
        again = await services.logout("remote", http(remote), actor="cli:tester")
        assert (again["was_logged_in"], again["revoked"]) == (False, False)


async def test_no_key_no_login_and_nobody_is_bothered(desk, settings):
    settings.MCP_ENCRYPTION_KEYS = []
    async with served(protected(desk)) as remote:
        with pytest.raises(GatewayError, match="MCP_ENCRYPTION_KEYS is not set"):
            await login(http(remote))
        assert not remote.arrived


async def test_a_remote_whose_header_speaks_for_itself_is_not_logged_in_to(desk):
    async with served(protected(desk)) as remote:
        with pytest.raises(GatewayError, match="has an Authorization header") as failed:
            await login(http(remote, headers={"authorization": "Bearer x"}))
        assert failed.value.exit_code == Exit.USAGE


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
