"""The authenticator with a real database, real argon2 and its real threads; only the clock is ours."""

import asyncio
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from keys import authenticate, format, hashing, selectors, services, usage
from keys.authenticate import QUEUE_MAX, QUEUE_MAX_AFTER_REFUSAL, REMEMBERED_MAX, REMEMBERED_S, Authenticator, Busy
from keys.models import ApiKey, KeyEvent
from keys.principal import Principal
from keys.standing import LEEWAY
from mcpserver.lib.errors import GatewayError

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)


class StoppedClock:
    def __init__(self):
        self.time = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
        self.seconds = 1000.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.seconds


@pytest.fixture
def clock():
    return StoppedClock()


@pytest.fixture
async def authenticator(clock):
    authenticator = Authenticator(clock)
    await authenticator.start()
    yield authenticator
    await authenticator.close()


@pytest.fixture
def runs(monkeypatch):
    """The hashes that argon2 was run against, in order; the runs are real."""
    seen: list[str] = []
    real = hashing.matches

    def counted(key_hash, key):
        seen.append(key_hash)
        return real(key_hash, key)

    monkeypatch.setattr(hashing, "matches", counted)
    return seen


@pytest.fixture
def held_up(monkeypatch):
    """argon2 that waits before each run until the test lets it go."""
    go = threading.Event()
    real = hashing.matches
    monkeypatch.setattr(hashing, "matches", lambda key_hash, key: go.wait(30) and real(key_hash, key))
    yield go
    go.set()


@pytest.fixture
def generate(clock):
    @sync_to_async
    def generate(name="main", **options):
        return services.generate(name=name, actor="cli:test", clock=clock, **options)

    return generate


@pytest.fixture
def revoke(clock):
    @sync_to_async
    def revoke(name="main"):
        return services.revoke(name=name, actor="cli:test", clock=clock)

    return revoke


@pytest.fixture
def database_away():
    """While entered, every new connection fails: the database threads open one per call."""

    @contextmanager
    def away():
        current = connections["default"].settings_dict
        name, current["NAME"] = current["NAME"], "/nowhere/at/all.sqlite3"
        try:
            yield
        finally:
            current["NAME"] = name

    return away


def unknown_key(number=0):
    return format.compose(f"{number:010}", "x" * format.SECRET_LENGTH)


async def test_a_good_key_is_verified_once_and_then_known(authenticator, generate, runs):
    made = await generate()
    await authenticator.refresh()
    principal = Principal(made["id"], "main")
    assert authenticator.known(made["key"]) is None
    assert await authenticator.verify(made["key"], "source") == principal
    assert [authenticator.known(made["key"]) for _ in range(100)] == [principal] * 100
    assert len(runs) == 1


@pytest.mark.edge(6)
async def test_every_refusal_costs_one_argon2_run_of_equal_strength_and_is_not_remembered(
    authenticator, generate, revoke, clock, runs
):
    good = await generate("good")
    expired = await generate("expired", expires_in=HOUR)
    revoked = await generate("revoked")
    await revoke("revoked")
    await authenticator.refresh()
    clock.time += HOUR + LEEWAY
    parsed = format.parse(good["key"])
    refused = {
        "unknown id": unknown_key(),
        "wrong secret": format.compose(parsed.key_id, parsed.secret[::-1]),
        "near miss": good["key"][:-1] + ("a" if good["key"][-1] != "a" else "b"),
        "garbage": "garbage",
        "empty": "",
        "huge": "x" * 60_000,
        "not text": "\udc80",
        "ambiguous": authenticate.AMBIGUOUS,
        "revoked": revoked["key"],
        "expired": expired["key"],
    }
    for reason, key in refused.items():
        for _ in range(2):
            assert (reason, await authenticator.verify(key, "source"), authenticator.known(key)) == (reason, None, None)
    assert len(runs) == 2 * len(refused)
    assert {key_hash.split("$")[3] for key_hash in runs} == {"m=8192,t=1,p=1"}


@pytest.mark.edge(5)
async def test_a_revoked_key_is_refused_after_the_next_refresh_and_its_streams_are_told(
    authenticator, generate, revoke
):
    made = await generate()
    told: list[str] = []
    authenticator.on_revoked.append(told.append)
    await authenticator.refresh()
    await authenticator.verify(made["key"], "source")
    await revoke()
    await authenticator.refresh()
    assert (authenticator.known(made["key"]), await authenticator.verify(made["key"], "source")) == (None, None)
    await authenticator.refresh()
    assert told == [made["id"]]


@pytest.mark.edge(5)
async def test_a_key_that_ends_by_its_date_is_refused_and_told_like_a_revoked_one(authenticator, generate, clock):
    old = await generate()
    new = await generate()
    told: list[str] = []
    authenticator.on_revoked.append(told.append)
    await authenticator.refresh()
    for made in (old, new):
        assert await authenticator.verify(made["key"], "source")
    clock.time += 24 * HOUR + LEEWAY
    assert authenticator.known(old["key"]) is None
    await authenticator.refresh()
    assert (told, authenticator.known(new["key"])) == ([old["id"]], Principal(new["id"], "main"))


async def test_a_key_revoked_while_it_waited_for_argon2_is_refused(authenticator, generate, revoke, held_up):
    made = await generate()
    await authenticator.refresh()
    verifying = asyncio.create_task(authenticator.verify(made["key"], "source"))
    await asyncio.sleep(0)
    await revoke()
    await authenticator.refresh()
    held_up.set()
    assert await verifying is None


@pytest.mark.edge(6)
async def test_the_queue_before_argon2_is_bounded_and_the_next_is_told_busy(authenticator, held_up):
    waiting = [asyncio.create_task(authenticator.verify(unknown_key(n), f"source {n}")) for n in range(QUEUE_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Busy) as busy:
        await authenticator.verify("one more", "another source")
    assert busy.value.document() == {
        "ok": False,
        "error": "busy",
        "message": "too many keys are being verified",
        "hint": "try again in a second",
    }
    held_up.set()
    assert await asyncio.gather(*waiting) == [None] * QUEUE_MAX
    assert await authenticator.verify("one more", "another source") is None


@pytest.mark.edge(6)
async def test_a_source_that_was_refused_cannot_fill_the_queue_for_the_others(
    authenticator, generate, clock, monkeypatch
):
    made = await generate()
    await authenticator.refresh()
    await authenticator.verify("wrong", "bad source")
    go = threading.Event()
    real = hashing.matches
    monkeypatch.setattr(hashing, "matches", lambda key_hash, key: go.wait(30) and real(key_hash, key))
    flood = [asyncio.create_task(authenticator.verify(unknown_key(n), "bad source")) for n in range(40)]
    await asyncio.sleep(0)
    good = asyncio.create_task(authenticator.verify(made["key"], "good source"))
    await asyncio.sleep(0)
    go.set()
    outcomes = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(isinstance(outcome, Busy) for outcome in outcomes) == 40 - QUEUE_MAX_AFTER_REFUSAL
    assert await good == Principal(made["id"], "main")


async def test_equal_keys_at_one_moment_share_one_run_and_one_of_them_may_leave(authenticator, generate, held_up, runs):
    made = await generate()
    await authenticator.refresh()
    calls = [asyncio.create_task(authenticator.verify(made["key"], "source")) for _ in range(50)]
    await asyncio.sleep(0)
    calls[0].cancel()
    held_up.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [Principal(made["id"], "main")] * 49
    assert len(runs) == 1


async def test_a_known_key_is_verified_again_after_its_hour(authenticator, generate, clock, runs):
    made = await generate()
    await authenticator.refresh()
    await authenticator.verify(made["key"], "source")
    clock.seconds += REMEMBERED_S
    assert authenticator.known(made["key"]) is None
    assert await authenticator.verify(made["key"], "source")
    assert authenticator.known(made["key"])
    assert len(runs) == 2


async def test_remembered_keys_are_bounded(authenticator, generate, monkeypatch):
    monkeypatch.setattr(authenticate, "REMEMBERED_MAX", 2)
    made = [await generate(f"key-{n}") for n in range(3)]
    await authenticator.refresh()
    for key in made:
        await authenticator.verify(key["key"], "source")
    assert [authenticator.known(key["key"]) is not None for key in made] == [False, True, True]
    assert REMEMBERED_MAX == 4096


@pytest.mark.edge(19)
async def test_while_the_database_is_away_the_last_known_rows_stand(authenticator, generate, revoke, database_away):
    made = await generate("seen")
    await authenticator.refresh()
    with database_away():
        await authenticator.refresh()
        assert authenticator.stale
        assert await authenticator.verify(made["key"], "source") == Principal(made["id"], "seen")
        assert authenticator.known(made["key"])
    unseen = await generate("unseen")
    await revoke("seen")
    await authenticator.refresh()
    assert not authenticator.stale
    assert authenticator.known(made["key"]) is None
    assert await authenticator.verify(unseen["key"], "source") == Principal(unseen["id"], "unseen")


@pytest.mark.edge(5)
async def test_a_key_ends_by_its_date_although_the_database_is_away(authenticator, generate, clock, database_away):
    made = await generate(expires_in=HOUR)
    told: list[str] = []
    authenticator.on_revoked.append(told.append)
    await authenticator.refresh()
    clock.time += HOUR + LEEWAY
    with database_away():
        await authenticator.refresh()
    assert told == [made["id"]]


async def test_without_a_database_it_does_not_start(clock, database_away):
    with database_away(), pytest.raises(GatewayError) as refused:
        await Authenticator(clock).start()
    assert refused.value.code == "database"


async def test_one_listener_that_fails_keeps_the_news_from_no_other(authenticator, generate, revoke, caplog):
    made = await generate()
    told: list[str] = []
    authenticator.on_revoked += [lambda key_id: 1 / 0, told.append]
    await authenticator.refresh()
    await revoke()
    await authenticator.refresh()
    assert told == [made["id"]]
    assert "ZeroDivisionError" in caplog.text


async def test_an_unmoved_generation_reads_no_rows(authenticator, generate, clock):
    made = await generate()
    await authenticator.refresh()
    current = await sync_to_async(selectors.generation)()
    assert await sync_to_async(selectors.holding_unless)(current, clock.now()) is None
    holding = await sync_to_async(selectors.holding_unless)(None, clock.now())
    assert holding is not None
    assert set(holding.keys) == {made["id"]}


async def test_use_is_written_at_the_next_flush_and_not_before(authenticator, generate, clock):
    made = await generate()
    await authenticator.refresh()
    await authenticator.verify(made["key"], "source")
    for _ in range(1000):
        authenticator.known(made["key"])
    assert not await KeyEvent.objects.filter(event="used").aexists()
    await authenticator.usage.flush()
    assert [event.at async for event in KeyEvent.objects.filter(event="used")] == [clock.now()]
    assert (await ApiKey.objects.aget()).last_used_at == clock.now()


@pytest.mark.edge(12)
async def test_use_that_cannot_be_written_waits_and_what_does_not_fit_is_counted(
    authenticator, generate, clock, database_away, monkeypatch
):
    monkeypatch.setattr(usage, "PENDING_MAX", 2)
    key_id = (await generate())["id"]
    with database_away():
        for _ in range(3):
            authenticator.usage.note(key_id, clock.now())
            await authenticator.usage.flush()
            clock.time += timedelta(minutes=1)
    assert authenticator.usage.dropped == 1
    await authenticator.usage.flush()
    minutes = [event.at.minute async for event in KeyEvent.objects.filter(event="used").order_by("at")]
    assert minutes == [0, 1]


async def test_closing_writes_the_last_use(clock, generate):
    made = await generate()
    authenticator = Authenticator(clock)
    await authenticator.start()
    assert await authenticator.verify(made["key"], "source")
    await authenticator.close()
    assert (await ApiKey.objects.aget()).last_used_at == clock.now()
