"""Tokens from a refresh token: obtained, renewed ahead of time and after a 401, once for everybody, against a real server."""

import asyncio
import logging
import time
from dataclasses import replace

import pytest

from remotes.config.snapshot import AuthSpec
from remotes.models import RemoteEvent, StoredToken
from remotes.tokens import store
from remotes.upstream.outcome import Answer, Failure, Fault
from tests.component.token_world import (
    around,
    assert_untold,
    credential_of,
    gateway,
    guarded,
    lines,
    refreshing,
)
from tests.component.upstreams import SSE_HEAD, EventStream, call, http, legacy, modern, served
from tests.peers.authorization import authorization_server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.edge(4)]


@pytest.fixture(scope="module")
def server():
    with authorization_server() as desk:
        yield desk


@pytest.fixture
def desk(server):
    """The same server for all, each test with its own clients, tokens and knobs."""
    fresh = type(server)(url=server.url)
    server.__dict__.update(fresh.__dict__)
    return server


@pytest.fixture(autouse=True)
def everything_logged(caplog, desk):
    """Whatever a test does, no secret is in any log line."""
    caplog.set_level(logging.DEBUG)
    yield
    assert_untold(desk, lines(caplog.records))


async def echo(one, **changed):
    return await call(one, seconds=5, **changed)


async def test_the_first_call_brings_a_token_and_the_rotated_refresh_token_is_stored_encrypted(desk):
    async with served(guarded(desk, modern())) as remote, gateway(refreshing(desk, remote)) as one:
        assert isinstance(await echo(one), Answer)
        assert desk.count("refresh_token") == 1
        row = await StoredToken.objects.aget()
        assert_untold(desk, *vars(row).values())
        held, _ = around().vault.open(row.sealed)
        assert {held.grant.refresh_token} == set(desk.refresh)
        assert remote.last("tools/call").headers["authorization"] == f"Bearer {held.token.access}"


async def test_twenty_calls_that_get_401_at_once_cost_one_renewal_and_are_each_repeated_once(desk):
    async with served(guarded(desk, modern())) as remote, gateway(refreshing(desk, remote)) as one:
        await echo(one)
        make_stale(one)
        desk.revoke_access()
        before = remote.count("tools/call")
        outcomes = await asyncio.gather(*(echo(one) for _ in range(20)))
        assert all(isinstance(outcome, Answer) for outcome in outcomes)
        assert desk.count("refresh_token") == 2
        assert remote.count("tools/call") - before == 40


async def test_a_token_is_renewed_before_its_end_while_calls_go_on(desk):
    desk.lifetime_s = 2
    async with served(guarded(desk, modern())) as remote, gateway(refreshing(desk, remote)) as one:
        await echo(one)
        until = time.monotonic() + 10
        while desk.count("refresh_token") < 2 and time.monotonic() < until:
            credential_of(one).tend((await asyncio.to_thread(store.versions))["remote"])
            assert isinstance(await echo(one), Answer)
            await asyncio.sleep(0.05)
        assert desk.count("refresh_token") == 2
        assert not [answer for answer in remote.arrived if not answer.headers.get("authorization")]


async def test_a_restart_goes_on_with_the_rotated_refresh_token(desk):
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        for _ in range(3):
            async with gateway(spec) as one:
                assert isinstance(await echo(one), Answer)
                make_stale(one)
                desk.revoke_access()
                assert isinstance(await echo(one), Answer)
        assert not desk.ended
        assert desk.count("refresh_token") == 4  # the first token, and one after each loss


async def test_two_gateways_renew_once_and_share_the_token(desk):
    desk.pause_s = 0.3
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        async with gateway(spec) as one, gateway(spec) as two:
            assert all(isinstance(done, Answer) for done in await asyncio.gather(echo(one), echo(two)))
            make_stale(one)
            make_stale(two)
            desk.revoke_access()
            assert all(isinstance(done, Answer) for done in await asyncio.gather(*(echo(x) for x in (one, two) * 5)))
        assert desk.count("refresh_token") == 2
        assert not desk.ended


async def test_a_refused_refresh_ends_it_and_calls_fail_at_once_saying_what_to_do(desk):
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        desk.ended |= {family for _, family in desk.refresh.values()}
        async with gateway(spec) as one:
            outcome = await echo(one)
            assert (outcome.fault, outcome.status) == (Fault.UNAUTHORIZED, 401)
            assert outcome.message == (
                "the credential of remote has ended (its authorization server said invalid_grant): mcp remote login remote"
            )
            asked, arrived = len(desk.asked), len(remote.arrived)
            assert (await echo(one)).message == outcome.message
            assert (len(desk.asked), len(remote.arrived)) == (asked, arrived), "nothing is sent any more"
        event = await RemoteEvent.objects.aget()
        assert (event.event, event.remote, event.actor) == ("credential_refused", "remote", "gateway")
        async with gateway(spec) as after_a_restart:
            assert (await echo(after_a_restart)).fault is Fault.UNAUTHORIZED
            assert len(desk.asked) == asked
        async with gateway(refreshing(desk, remote)) as with_another_refresh_token:
            assert isinstance(await echo(with_another_refresh_token), Answer)


async def test_a_rotated_token_that_somebody_uses_again_ends_the_login(desk):
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        async with gateway(spec) as one:
            await echo(one)
            async with gateway(replace(spec, name="thief")) as thief:
                assert (await echo(thief)).fault is Fault.UNAUTHORIZED
            make_stale(one)
            outcome = await echo(one)
            assert (outcome.fault, desk.ended != set()) == (Fault.UNAUTHORIZED, True)
            assert "mcp remote login remote" in outcome.message


async def test_an_authorization_server_that_is_down_ends_nothing(desk):
    async with served(guarded(desk, modern())) as remote, gateway(refreshing(desk, remote)) as one:
        await echo(one)
        make_stale(one)
        desk.revoke_access()
        desk.outage = True
        outcome = await echo(one)
        assert (outcome.fault, outcome.phase) == (Fault.NOT_SENT, "auth")
        assert outcome.message == "no token for remote: its authorization server: it answered HTTP 503"
        asked = len(desk.asked)
        assert asked <= 4, "asked three times, within bounds"
        assert isinstance(await echo(one), Failure)
        assert len(desk.asked) == asked, "and left alone for a moment"
        desk.outage = False
        credential_of(one)._renew_from = 0.0
        assert isinstance(await echo(one), Answer)


async def test_a_403_is_not_expiry(desk):
    async def forbidden(request, wire):
        challenge = 'WWW-Authenticate: Bearer error="insufficient_scope", scope="files:write"\r\n'
        await wire.answer(b"", status=403, headers=challenge)

    script = guarded(desk, modern({"tools/call": forbidden}))
    async with served(script) as remote, gateway(refreshing(desk, remote)) as one:
        outcome = await echo(one)
        assert (outcome.fault, outcome.status) == (Fault.HTTP_STATUS, 403)
        assert outcome.message == (
            "the credential of remote does not reach so far (HTTP 403), which needs the scope files:write: "
            "mcp remote login remote --scope 'files:write'"
        )
        assert desk.count("refresh_token") == 1
        assert credential_of(one).blocked is None


async def test_a_remote_that_refuses_every_token_does_not_have_them_renewed_for_ever(desk):
    async with served(guarded(type(desk)(), modern())) as remote, gateway(refreshing(desk, remote)) as one:
        for _ in range(5):
            outcome = await echo(one)
            assert outcome.fault is Fault.UNAUTHORIZED
        assert "refuses a token that was issued just now" in outcome.message
        assert desk.count("refresh_token") == 1


async def test_client_credentials_and_a_secret_that_is_wanted_in_the_form(desk):
    desk.client(token_endpoint_auth_method="client_secret_post")
    async with served(guarded(desk, modern())) as remote:
        spec = http(remote, auth=AuthSpec(f"{desk.url}/token", "known", "its-secret", scope="tools"))
        async with gateway(spec) as one:
            assert isinstance(await echo(one), Answer)
            make_stale(one)
            desk.revoke_access()
            assert isinstance(await echo(one), Answer)
        assert desk.count("client_credentials") == 3, "the second way to show a secret is found once and remembered"
        assert desk.asked[-1]["scope"] == "tools"


@pytest.mark.parametrize("era", ["2025-11-25", "2024-11-05"])
async def test_sessions_and_event_streams_go_on_with_the_new_token(desk, era):
    script = guarded(desk, legacy() if era == "2025-11-25" else EventStream())
    async with served(script) as remote:
        spec = refreshing(desk, remote, transport="sse" if era == "2024-11-05" else "http", era=era)
        async with gateway(spec) as one:
            assert isinstance(await echo(one), Answer)
            make_stale(one)
            desk.revoke_access()
            assert isinstance(await echo(one), Answer)
            assert isinstance(await echo(one), Answer)
        assert desk.count("refresh_token") == 2


async def test_a_get_stream_that_gets_401_is_opened_again_with_the_new_token(desk):
    opened: list[str] = []
    over = asyncio.Event()

    async def stream(request, wire):
        opened.append(request.headers["authorization"])
        await wire.send(SSE_HEAD)
        if len(opened) == 1:
            await over.wait()
            wire.close()
        await wire.until_gone()

    async with served(guarded(desk, legacy({"GET": stream}))) as remote:
        async with gateway(refreshing(desk, remote, era="2025-11-25")) as one:
            await echo(one)
            make_stale(one)
            desk.revoke_access()
            over.set()
            await remote.until(lambda remote: len(opened) == 2)
        assert remote.count("GET") == 3, "the stream, the 401, and at once the stream again"
        assert desk.accepts(opened[1])


async def test_a_token_goes_to_no_other_origin(desk):
    async with served(guarded(desk, modern())) as elsewhere:

        async def redirects(request, wire):
            await wire.answer(b"", status=307, headers=f"Location: {elsewhere.url}\r\n")

        script = guarded(desk, modern({"tools/call": redirects}))
        async with served(script) as remote, gateway(refreshing(desk, remote)) as one:
            assert (await echo(one)).status == 307
        assert not elsewhere.arrived


async def test_a_remote_under_the_same_name_at_another_address_never_gets_the_token(desk):
    async with served(guarded(desk, modern())) as remote, served(guarded(desk, modern())) as moved:
        async with gateway(refreshing(desk, remote)) as one:
            await echo(one)
        async with gateway(http(moved)) as without_auth:
            outcome = await echo(without_auth)
            assert outcome.message == "remote wants a login: mcp remote login remote"
        assert all("authorization" not in request.headers for request in moved.arrived)


def make_stale(one):
    """As if the token had been in use for a while: one that was issued just now would not be renewed."""
    credential_of(one)._obtained -= 3600
