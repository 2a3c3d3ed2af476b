"""Where tokens are kept, under keys that change, and what probes make of them."""

import asyncio
from dataclasses import replace

import pytest
from cryptography.fernet import Fernet

from mcpserver.lib.errors import GatewayError
from remotes import probes, tasks
from remotes.models import RemoteEvent, StoredToken
from remotes.tokens import credentials, store
from remotes.upstream.outcome import Answer, Fault
from tests.component.token_world import KEY, around, assert_untold, credential_of, gateway, guarded, refreshing
from tests.component.upstreams import call, modern, served
from tests.peers.authorization import authorization_server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.edge(4)]


@pytest.fixture(scope="module")
def server():
    with authorization_server() as desk:
        yield desk


@pytest.fixture
def desk(server, settings):
    settings.MCP_ENCRYPTION_KEYS = [KEY]
    server.__dict__.update(type(server)(url=server.url).__dict__)
    return server


async def test_a_new_first_key_takes_over_and_the_old_one_can_go(desk):
    new = Fernet.generate_key().decode()
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        async with gateway(spec) as one:
            await call(one)
        async with gateway(spec, around(new, KEY)) as one:
            assert isinstance(await call(one), Answer)
            credential_of(one).tend(1)
            await credential_of(one)._saving.begin()
        async with gateway(spec, around(new)) as one:
            assert isinstance(await call(one), Answer)
        assert desk.count("refresh_token") == 1


async def test_a_wrong_key_is_said_clearly_and_loses_nothing(desk):
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        async with gateway(spec) as one:
            await call(one)
        async with gateway(spec, around(Fernet.generate_key().decode())) as one:
            outcome = await call(one)
            assert outcome.fault is Fault.UNAUTHORIZED
            assert outcome.message == (
                "remote: no key in MCP_ENCRYPTION_KEYS opens the stored token: "
                "put the key that it was stored with back into MCP_ENCRYPTION_KEYS, or log in again"
            )
        assert desk.count("refresh_token") == 1, "the configured one may be used up: it is not tried"
        async with gateway(spec) as with_the_right_key_again:
            assert isinstance(await call(with_the_right_key_again), Answer)


async def test_without_any_key_tokens_are_used_and_reported_as_unsaved(desk):
    async with served(guarded(desk, modern())) as remote:
        async with gateway(refreshing(desk, remote), around("")) as one:
            assert isinstance(await call(one), Answer)
            assert credential_of(one).unsaved == "no_encryption_key"
        with pytest.raises(GatewayError, match="is no key"):
            around("nonsense").vault.check()


async def test_a_probe_uses_and_renews_the_same_token(desk):
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        report = await tasks._asked(spec)
        assert (report.ok, report.tools) == (True, 1)
        async with gateway(spec) as one:
            assert isinstance(await call(one), Answer)
            assert desk.count("refresh_token") == 1
            await age_stored()
            desk.revoke_access()
            assert (await tasks._asked(spec)).ok
            assert desk.count("refresh_token") == 2
            credential_of(one).tend((await asyncio.to_thread(store.versions))["remote"])
            assert isinstance(await call(one), Answer)
            assert desk.count("refresh_token") == 2


async def test_a_probe_of_an_ended_credential_says_so_and_one_that_is_let_in_lifts_it(desk):
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        async with gateway(spec) as one:
            await call(one)
            await age_stored()
            await credential_of(one)._load()
            kept, desk.access = dict(desk.access), {}
            desk.refresh.clear()
            assert (await call(one)).fault is Fault.UNAUTHORIZED
            report = await probes.probe(spec, credential=credentials.for_probe(spec))
            assert (report.status, report.error, report.phase) == ("auth_expired", "auth_expired", "auth")
            assert "mcp remote login remote" in report.hint
            assert_untold(desk, report.document())
            assert await RemoteEvent.objects.acount() == 1, "what has ended ends once"
            desk.access.update(kept)  # the remote knows the token again
            assert (await probes.probe(spec, credential=credentials.for_probe(spec))).ok
            await credential_of(one)._load()
            assert isinstance(await call(one), Answer)


async def test_a_database_that_is_away_keeps_a_probe_from_renewing_apart_from_the_gateway(desk, monkeypatch):
    def away(*_):
        raise GatewayError("database", "the database cannot be used")

    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        monkeypatch.setattr(store, "claim", away)
        report = await tasks._asked(spec)
        assert (report.ok, desk.asked) == (False, [])
        async with gateway(spec) as one:
            assert isinstance(await call(one), Answer)


async def test_what_was_stored_for_another_entry_is_not_used(desk):
    async with served(guarded(desk, modern())) as remote:
        spec = refreshing(desk, remote)
        async with gateway(spec) as one:
            await call(one)
        assert spec.auth is not None
        other = replace(spec, auth=replace(spec.auth, scope="more"))
        async with gateway(other) as one:
            await call(one)
        assert desk.asked[-1].get("scope") == "more"


async def age_stored():
    """The stored token was issued an hour ago."""
    row = await StoredToken.objects.aget()
    vault = around().vault
    holding, _ = vault.open(row.sealed)
    assert holding.token is not None
    older = replace(holding, token=replace(holding.token, obtained_at=holding.token.obtained_at - 1000))
    await asyncio.to_thread(store.save, row.name, row.version, vault.seal(older), older.token)
