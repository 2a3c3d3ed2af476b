"""Making and ending keys, and what the audit tells of it, on a real database."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connections, transaction

from keys import format, hashing, saved, selectors, services
from keys.grant import EVERYTHING, Grant
from keys.models import ApiKey, AppendOnlyError, KeyEvent
from mcpserver.lib.errors import GatewayError

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class StoppedClock:
    def __init__(self, now=NOON):
        self.time = now

    def now(self):
        return self.time

    def monotonic(self):
        return self.time.timestamp()


@pytest.fixture
def clock():
    return StoppedClock()


@pytest.fixture
def generate(clock):
    def generate(name="main", **options):
        return services.generate(name=name, actor="cli:test", clock=clock, **options)

    return generate


def events():
    return [(e.event, e.key_id, e.name, e.actor, e.detail) for e in KeyEvent.objects.order_by("pk")]


def test_a_new_key_is_shown_once_and_stored_as_a_hash(generate):
    made = generate()
    key, key_id = made["key"], made["id"]
    assert made == {
        "key": key,
        "id": key_id,
        "name": "main",
        "prefix": f"mcp_{key_id}",
        "created_at": NOON,
        "expires_at": None,
        **EVERYTHING.document(),
        "deprecated": [],
    }
    assert format.parse(key).key_id == key_id
    row = ApiKey.objects.get()
    assert hashing.matches(row.hash, key)
    assert format.parse(key).secret not in " ".join(str(value) for value in vars(row).values())


def test_every_change_moves_the_generation_and_leaves_its_audit_row(generate, clock):
    generations = [selectors.generation()]
    first = generate()
    generations.append(selectors.generation())
    second = generate()
    generations.append(selectors.generation())
    services.revoke(name="main", actor="cli:other", clock=clock)
    generations.append(selectors.generation())
    assert generations == [0, 1, 2, 3]
    assert events() == [
        ("generated", first["id"], "main", "cli:test", {}),
        ("deprecated", first["id"], "main", "cli:test", {"until": "2026-11-23T12:00:00+00:00"}),
        ("generated", second["id"], "main", "cli:test", {}),
        ("revoked", first["id"], "main", "cli:other", {}),
        ("revoked", second["id"], "main", "cli:other", {}),
    ]


@pytest.mark.edge(5)
def test_an_older_key_of_the_name_works_24_hours_more_and_a_third_key_does_not_extend_it(generate, clock):
    first = generate()
    clock.time += HOUR
    second = generate()
    assert second["deprecated"] == [{"id": first["id"], "until": NOON + 25 * HOUR}]
    clock.time += HOUR
    assert generate()["deprecated"] == [
        {"id": first["id"], "until": NOON + 25 * HOUR},
        {"id": second["id"], "until": NOON + 26 * HOUR},
    ]


@pytest.mark.edge(5)
def test_a_new_name_touches_no_other_key(generate, clock):
    generate("main")
    generate("main-v2")
    assert [(key["name"], key["status"]) for key in selectors.list_keys(clock.now())] == [
        ("main", "active"),
        ("main-v2", "active"),
    ]


@pytest.mark.edge(5)
def test_grace_zero_ends_older_keys_now(generate, clock):
    first = generate()
    second = generate(grace=timedelta())
    assert second["deprecated"] == [{"id": first["id"], "until": NOON}]
    assert [key["id"] for key in selectors.list_keys(clock.now())] == [second["id"]]


def test_grace_never_outlives_an_expiry(generate):
    first = generate(expires_in=HOUR)
    assert first["expires_at"] == NOON + HOUR
    assert generate()["deprecated"] == [{"id": first["id"], "until": NOON + HOUR}]


def test_keys_that_have_ended_are_not_deprecated_again(generate, clock):
    generate(expires_in=HOUR)
    services.revoke(key_id=generate()["id"], actor="cli:test", clock=clock)
    clock.time += HOUR
    assert generate()["deprecated"] == []


@pytest.mark.edge(5)
def test_revoking_a_name_ends_every_key_of_it_at_once(generate, clock):
    made = [generate(), generate()]
    other = generate("other")
    ended = [{"id": key["id"], "name": "main"} for key in made]
    assert services.revoke(name="main", actor="a", clock=clock) == {"revoked": ended, "already_revoked": []}
    assert services.revoke(name="main", actor="a", clock=clock) == {"revoked": [], "already_revoked": ended}
    assert [key["id"] for key in selectors.list_keys(clock.now())] == [other["id"]]


@pytest.mark.parametrize("named_by", ["id", "prefix", "key"])
def test_revoking_an_id_a_prefix_or_a_pasted_key_ends_that_one(generate, clock, named_by):
    first, second = generate(), generate()
    answer = services.revoke(key_id=first[named_by], actor="a", clock=clock)
    assert answer == {"revoked": [{"id": first["id"], "name": "main"}], "already_revoked": []}
    assert [key["id"] for key in selectors.list_keys(clock.now())] == [second["id"]]


def test_an_id_where_a_name_was_asked_ends_that_one(generate, clock):
    first = generate()
    assert services.revoke(name=first["id"], actor="a", clock=clock)["revoked"] == [{"id": first["id"], "name": "main"}]


def test_an_unknown_name_is_answered_with_the_known_ones_and_changes_nothing(generate, clock):
    generate("main")
    generate("backup")
    with pytest.raises(GatewayError) as refused:
        services.revoke(name="mian", actor="a", clock=clock)
    assert refused.value.exit_code == 5
    assert refused.value.document() == {
        "ok": False,
        "error": "not_found",
        "message": "no key has the name or id 'mian'",
        "hint": "names in use: backup, main",
        "names": ["backup", "main"],
    }
    assert selectors.generation() == 2


def test_the_error_for_an_unknown_pasted_key_does_not_repeat_its_secret():
    key = format.compose("A" * 10, "b" * 43)
    with pytest.raises(GatewayError) as refused:
        services.revoke(key_id=key, actor="a")
    assert "b" * 43 not in str(refused.value.document())


@pytest.mark.parametrize("name", ["", " ", "-x", "x-", "a b", "ü", "a/b", "a\nb", "x" * 65, "main\n"])
def test_a_bad_name_is_refused_with_what_is_allowed(name):
    with pytest.raises(GatewayError) as refused:
        services.generate(name=name, actor="a")
    assert (refused.value.code, refused.value.exit_code) == ("usage", 2)
    assert "letters, digits" in refused.value.hint
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("name", ["a", "main-v2", "alice@laptop", "team.alpha_1", "x" * 64])
def test_good_names_are_taken(name):
    assert services.generate(name=name, actor="a")["name"] == name


def test_a_key_pasted_as_a_name_is_refused_and_not_repeated():
    key = format.compose("A" * 10, "b" * 43)
    with pytest.raises(GatewayError) as refused:
        services.generate(name=key, actor="a")
    assert "b" * 43 not in str(refused.value.document())


def test_a_key_must_live_for_some_time():
    with pytest.raises(GatewayError, match="must live"):
        services.generate(name="main", actor="a", expires_in=timedelta())


def test_a_change_whose_audit_row_fails_has_not_happened(generate, clock, monkeypatch):
    made = generate()
    monkeypatch.setattr(KeyEvent, "save", lambda *_, **__: (_ for _ in ()).throw(IntegrityError("full")))
    with pytest.raises(IntegrityError), transaction.atomic():
        services.revoke(name="main", actor="a", clock=clock)
    assert selectors.generation() == 1
    assert [key["id"] for key in selectors.list_keys(clock.now())] == [made["id"]]


def test_the_audit_is_append_only(generate):
    generate()
    event = KeyEvent.objects.get()
    event.actor = "somebody else"
    for change in (
        event.save,
        event.delete,
        KeyEvent.objects.all().delete,
        lambda: KeyEvent.objects.update(actor="somebody else"),
        lambda: KeyEvent.objects.bulk_update([event], ["actor"]),
    ):
        with pytest.raises(AppendOnlyError), transaction.atomic():
            change()
    assert events()[0][3] == "cli:test"


def test_the_list_tells_each_key_whole_and_those_that_ended_when_asked(generate, clock):
    revoked = generate("old")
    services.revoke(name="old", actor="a", clock=clock)
    made = generate("main", expires_in=HOUR)
    described = {
        "id": made["id"],
        "name": "main",
        "prefix": made["prefix"],
        "status": "active",
        "created_at": NOON,
        "last_used_at": None,
        "expires_at": NOON + HOUR,
        "retires_at": None,
        "revoked_at": None,
        **EVERYTHING.document(),
    }
    assert selectors.list_keys(clock.now()) == [described]
    assert [(k["id"], k["status"]) for k in selectors.list_keys(clock.now(), ended=True)] == [
        (revoked["id"], "revoked"),
        (made["id"], "active"),
    ]


def test_whether_anybody_could_come_in(generate, clock):
    assert not selectors.any_opens(clock.now())
    generate(expires_in=HOUR)
    assert selectors.any_opens(clock.now())
    assert not selectors.any_opens(clock.now() + HOUR)


@pytest.mark.edge(5)
def test_use_is_one_audit_row_per_key_and_minute_however_many_workers_tell_it(generate, clock):
    key_id = generate()["id"]
    minute = NOON + timedelta(minutes=1)
    services.record_use({(key_id, NOON): (NOON + timedelta(seconds=9), "::1"), (key_id, minute): (minute, "")})
    services.record_use({(key_id, NOON): (NOON + timedelta(seconds=30), "10.0.0.7")})
    used = KeyEvent.objects.filter(event="used").order_by("at").values_list("key_id", "name", "actor", "at", "detail")
    assert list(used) == [(key_id, "main", "gateway", NOON, {"from": "::1"}), (key_id, "main", "gateway", minute, {})]
    assert selectors.list_keys(clock.now())[0]["last_used_at"] == minute
    assert selectors.generation() == 1


@pytest.mark.edge(5)
@pytest.mark.django_db(transaction=True)
def test_keys_of_one_name_made_at_once_do_not_miss_each_other():
    with ThreadPoolExecutor(4) as threads:
        made = [threads.submit(_generate_and_leave) for _ in range(8)]
        assert len({future.result()["id"] for future in made}) == 8
    statuses = Counter(key["status"] for key in selectors.list_keys(datetime.now(UTC)))
    assert statuses == {"active": 1, "retiring": 7}
    assert selectors.generation() == 8


def _generate_and_leave():
    try:
        return services.generate(name="main", actor="cli:test")
    finally:
        connections.close_all()


def test_use_of_a_key_that_has_no_row_is_passed_over():
    services.record_use({("gone", NOON): (NOON, "")})
    assert not KeyEvent.objects.exists()


class TestGrants:
    def test_a_younger_key_of_the_name_may_use_what_the_older_could(self, generate, clock):
        generate(changes={"mcps": ("docs",), "rate": 60})
        services.revoke(name="main", actor="cli:test", clock=clock)
        made = generate(changes={"rate": 30})
        assert (made["mcps"], made["rate"]) == (["docs"], 30)

    def test_a_key_that_replaces_another_retires_it_and_may_use_what_it_could(self, generate):
        old = generate("main", changes={"deny": ("*__delete_*",)})
        new = generate("main-v2", replaces="main")
        assert new["deprecated"] == [{"id": old["id"], "until": NOON + 24 * HOUR}]
        assert new["deny"] == ["*__delete_*"]

    def test_what_is_to_be_replaced_must_exist(self, generate):
        with pytest.raises(GatewayError) as refused:
            generate("main-v2", replaces="mian")
        assert (refused.value.code, selectors.list_keys(NOON), selectors.generation()) == ("not_found", [], 0)

    def test_a_change_replaces_what_it_names_and_is_audited(self, generate, clock):
        made = generate(changes={"mcps": ("docs",)})
        changed = services.change(name="main", changes={"rate": 5}, expires_in=HOUR, actor="cli:other", clock=clock)
        may = Grant(mcps=("docs",), rate=5).document()
        assert changed == {"changed": [{"id": made["id"], "name": "main", "expires_at": NOON + HOUR, **may}]}
        until = (NOON + HOUR).isoformat()
        detail = {"mcps": ["docs"], "rate": 5, "expires_at": until}
        assert events()[-1] == ("changed", made["id"], "main", "cli:other", detail)
        assert selectors.generation() == 2

    def test_a_change_by_name_does_not_bring_back_what_has_ended(self, generate, clock):
        expired = generate(expires_in=HOUR)
        clock.time += 2 * HOUR
        with pytest.raises(GatewayError) as refused:
            services.change(name="main", expires_in=HOUR, actor="cli:test", clock=clock)
        assert (refused.value.code, int(refused.value.exit_code)) == ("ended", 4)
        services.change(key_id=expired["id"], expires_in=HOUR, actor="cli:test", clock=clock)
        services.revoke(name="main", actor="cli:test", clock=clock)
        with pytest.raises(GatewayError):
            services.change(key_id=expired["id"], expires_in=HOUR, actor="cli:test", clock=clock)

    def test_a_grant_that_cannot_be_read_opens_nothing(self, generate, clock):
        generate("broken")
        generate("good")
        ApiKey.objects.filter(name="broken").update(grant={"from_the_future": True})
        holding = selectors.holding_unless(None, clock.now())
        assert [held.principal.name for held in holding.keys.values()] == ["good"]


class TestJudged:
    def test_only_who_holds_the_whole_key_learns_whose_it_is(self, generate, clock):
        key = generate(expires_in=HOUR)["key"]
        near = format.compose(format.parse(key).key_id, "x" * format.SECRET_LENGTH)
        assert selectors.judged(key, clock.now()) == ("main", "active", True)
        assert selectors.judged(near, clock.now()) == ("", "unknown", False)
        assert selectors.judged(key[:-1], clock.now()) == ("", "malformed", False)
        assert selectors.judged(key, clock.now() + HOUR) == ("main", "expired", True)  # within the leeway
        assert selectors.judged(key, clock.now() + 2 * HOUR) == ("main", "expired", False)
        services.revoke(name="main", actor="cli:test", clock=clock)
        assert selectors.judged(key, clock.now()) == ("main", "revoked", False)


class TestRestore:
    def test_lost_keys_come_back_as_they_were_and_it_is_audited(self, generate, clock):
        made = generate(changes={"rate": 9})
        kept = saved.read(list(selectors.exported()))
        ApiKey.objects.all().delete()
        plan = services.restore(kept, revoked={}, actor="cli:test", backup="b.json", clock=clock)
        assert saved.read(list(selectors.exported())) == kept == list(plan.added)
        assert selectors.judged(made["key"], clock.now()) == ("main", "active", True)
        assert events()[-1] == ("restored", made["id"], "main", "cli:test", {"backup": "b.json", "rate": 9})

    @pytest.mark.edge(20)
    def test_no_restore_brings_a_revoked_key_back(self, generate, clock):
        made = generate()
        before = saved.read(list(selectors.exported()))
        services.revoke(name="main", actor="cli:test", clock=clock)
        after = saved.read(list(selectors.exported()))
        services.restore(before, revoked={}, actor="cli:test", backup="b", clock=clock)
        assert selectors.judged(made["key"], clock.now())[1] == "revoked"
        ApiKey.objects.all().delete()
        services.restore(before, revoked={made["id"]: NOON}, actor="cli:test", backup="b", clock=clock)
        assert selectors.judged(made["key"], clock.now())[1] == "revoked"
        ApiKey.objects.all().delete()
        services.restore(before, revoked={}, actor="cli:test", backup="b", clock=clock)
        assert selectors.judged(made["key"], clock.now())[1] == "active"
        services.restore(after, revoked={}, actor="cli:test", backup="b", clock=clock)
        assert selectors.judged(made["key"], clock.now())[1] == "revoked"


class TestAudit:
    def test_it_can_be_read_by_name_id_kind_and_age_newest_last(self, generate, clock):
        first = generate("a")
        clock.time += HOUR
        generate("b")
        services.revoke(name="a", actor="cli:test", clock=clock)

        def told(**wanted):
            return [(event["event"], event["name"]) for event in selectors.audit(**wanted)]

        assert told() == [("generated", "a"), ("generated", "b"), ("revoked", "a")]
        assert told(name="a") == told(name=first["prefix"]) == [("generated", "a"), ("revoked", "a")]
        assert told(event="revoked") == told(limit=1) == [("revoked", "a")]
        assert told(since=NOON + HOUR) == [("generated", "b"), ("revoked", "a")]
        assert told(after=selectors.audit()[1]["number"]) == [("revoked", "a")]
