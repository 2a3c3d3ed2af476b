"""Pins in the database: what a look at a remote writes, what is told of it, and what an operator's word changes."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest

from gateway.catalog.pins import KnownPins
from mcpserver.lib.errors import GatewayError
from mcpserver.protocol import jsonrpc
from remotes import pinning, pins, selectors
from remotes.config.snapshot import RemoteSpec
from remotes.models import RemoteEvent, ToolPin
from remotes.pinning import Pin, Sighting

pytestmark = pytest.mark.django_db(transaction=True)


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2026, 7, 28, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


def sighting(**tools: str) -> Sighting:
    """Tools by name with their descriptions, every definition unknown."""
    definitions = {
        name: pinning.definition(jsonrpc.fields(json.dumps({"name": name, "description": said}).encode()))
        for name, said in tools.items()
    }
    return Sighting(
        {name: pinning.fingerprint(one) for name, one in definitions.items()},
        {name: pinning.packed(one) for name, one in definitions.items()},
    )


@pytest.fixture
def look():
    """A look at the remote `r`; what was told of it."""
    clock = Clock()

    def look(mode="warn", *, after=timedelta(seconds=1), **tools):
        clock.at += after
        return [
            (change.event.removeprefix("tool_"), *change.named)
            for change in pins.observe("r", mode, sighting(**tools), clock)
        ]

    return look


def known():
    return selectors.tool_pins().get("r")


def standing(**tools):
    return {tool: str(how) for tool, how in pinning.compare(known(), sighting(**tools).digests).items()}


@pytest.mark.edge(13)
@pytest.mark.parametrize("mode", ["warn", "hold"])
def test_the_first_contact_pins_everything_and_is_one_event(look, mode):
    assert look(mode, a="1", b="2") == [("pinned", "a", "b")]
    assert standing(a="1", b="2") == {}
    assert look(mode, a="1", b="2") == []


def test_many_tools_at_once_are_one_event_that_counts_them(look):
    many = {f"t{number}": "1" for number in range(500)}
    (told,) = look(**many)
    assert told[:2] == ("pinned", "t0")
    assert RemoteEvent.objects.get().detail["tools"] == 500
    assert ToolPin.objects.count() == 500


def test_a_change_is_told_once_however_often_it_comes_and_goes(look):
    look(a="1")
    assert look(a="2") == [("changed", "a")]
    assert standing(a="2") == {"a": "changed"}
    for _ in range(5):
        assert look(a="1") == []
        assert standing(a="1") == {}
        assert look(a="2") == []
    assert look() == [("removed", "a")]
    assert look(a="2") == look() == []
    assert standing() == {"a": "removed"}


def test_a_remote_that_changes_for_ever_is_told_of_ever_less(look):
    look(a="1")
    told = [look(a=f"changed {number}") for number in range(100)]
    assert sum(map(len, told)) == 8
    assert look(after=timedelta(hours=1), a="later") == [("changed", "a")]


def test_a_remote_that_renames_all_its_tools_for_ever_fills_neither_trail_nor_table(look, monkeypatch):
    monkeypatch.setattr(pins, "PINS_MAX", 30)
    monkeypatch.setattr(pins, "EVENTS_PER_HOUR_MAX", 12)
    for number in range(20):
        look(**{f"t{number}-{one}": "1" for one in range(5)})
    assert RemoteEvent.objects.count() == 12
    assert ToolPin.objects.count() <= 30
    assert ToolPin.objects.filter(tool="t19-0").exists()


def test_a_new_tool_is_pinned_under_warn_and_waits_under_hold(look):
    look(a="1")
    assert look(a="1", b="2") == [("added", "b")]
    assert standing(a="1", b="2") == {}
    assert look("hold", a="1", b="2", c="3") == [("added", "c")]
    assert standing(a="1", b="2", c="3") == {"c": "new"}
    assert look("hold", a="1", b="2", c="3") == []
    look("warn", a="1", b="2", c="3")
    assert standing(a="1", b="2", c="3") == {}, "hold was given up"


def test_a_new_tool_that_goes_before_anybody_approved_it_leaves_nothing(look):
    look("hold", a="1")
    look("hold", a="1", b="2")
    look("hold", a="1")
    assert known() == {"a": Pin(*[sighting(a="1").digests["a"]] * 2)}


def test_a_tool_that_goes_and_comes_back_changed_has_not_become_a_new_one(look):
    look(a="1", b="1")
    look(b="1")
    look(a="2", b="1")
    assert standing(a="2", b="1") == {"a": "changed"}


def test_a_remote_whose_tools_all_went_is_no_stranger_when_it_comes_back(look):
    look("hold", a="1")
    look("hold")
    pins.approve("r", None, actor="ann")
    assert known() == {}
    assert look("hold", b="1") == [("added", "b")]
    assert standing(b="1") == {"b": "new"}


def test_approving_takes_what_was_seen_and_is_in_the_trail(look):
    look("hold", a="1", b="1", c="1")
    look("hold", a="2", c="1", d="1")
    seen = sighting(a="2", d="1").digests
    approved = pins.approve("r", None, actor="ann@host")
    assert sorted((one["upstream_name"], one["sha256"]) for one in approved) == [
        ("a", seen["a"]), ("b", None), ("d", seen["d"]),
    ]  # fmt: skip
    assert standing(a="2", c="1", d="1") == {}
    assert set(known()) == {"a", "c", "d"}
    row = ToolPin.objects.get(tool="a")
    assert pinning.members(pinning.unpacked(row.definition)) == {"name": "a", "description": "2"}
    assert (row.seen_definition, row.reported, row.approved_by) == (None, [], "ann@host")
    events = list(RemoteEvent.objects.filter(event="tool_approved").values_list("tool", "actor"))
    assert sorted(events) == [("a", "ann@host"), ("b", "ann@host"), ("d", "ann@host")]
    assert pins.approve("r", None, actor="ann@host") == []


def test_what_changed_again_since_it_was_looked_at_is_not_approved(look):
    look(a="1", b="1")
    look(a="2", b="1")
    looked_at = sighting(a="2").digests["a"]
    look(a="3", b="1")
    with pytest.raises(GatewayError) as refused:
        pins.approve("r", ["a"], actor="ann", sha256=looked_at[:12])
    assert (refused.value.code, refused.value.exit_code) == ("conflict", 6)
    assert standing(a="3", b="1") == {"a": "changed"}
    pins.approve("r", ["a"], actor="ann", sha256=sighting(a="3").digests["a"][:12].upper())
    assert standing(a="3", b="1") == {}


def test_an_approved_tool_that_changes_back_is_a_change(look):
    look(a="1")
    look(a="2")
    pins.approve("r", ["a"], actor="ann")
    assert look(a="1") == [("changed", "a")]


def test_the_trail_is_written_once(look):
    look(a="1")
    event = RemoteEvent.objects.get()
    for attempt in (event.save, event.delete, RemoteEvent.objects.all().delete, RemoteEvent.objects.update):
        with pytest.raises(TypeError):
            attempt()


# What a worker knows.


def patient() -> KnownPins:
    """A worker between whose looks there is always time enough."""
    minutes = itertools.count()
    return KnownPins(lambda: next(minutes) * 30.0)


def spec(mode):
    return RemoteSpec("r", "stdio", pin=mode)


async def test_two_workers_that_see_the_same_tell_it_once_and_follow_an_approval():
    one, other = patient(), patient()
    for worker in (one, other):
        await worker.start()
        worker.saw(spec("hold"), sighting(a="1"))
    assert [await one.follow(), await other.follow()] == [True, True]
    for worker in (one, other):
        worker.saw(spec("hold"), sighting(a="2"))
        await worker.follow()
        assert pinning.compare(worker.of("r"), sighting(a="2").digests) == {"a": "changed"}
    assert await _in_thread(RemoteEvent.objects.count) == 2
    await _in_thread(lambda: pins.approve("r", None, actor="ann"))
    assert [await one.follow(), await other.follow()] == [True, True]
    assert pinning.compare(other.of("r"), sighting(a="2").digests) == {}
    assert not await one.follow()


async def test_what_is_seen_while_the_database_is_away_is_judged_by_the_last_known_pins_and_written_later(monkeypatch):
    worker = patient()
    await worker.start()
    worker.saw(spec("hold"), sighting(a="1"))
    with monkeypatch.context() as away:
        away.setattr(pins, "observe", _unreachable)
        for _ in range(2):
            with pytest.raises(GatewayError):
                await worker.follow()
        worker.saw(spec("hold"), sighting(a="2"))
        assert pinning.compare(worker.of("r"), sighting(a="2").digests) == {"a": "changed"}, "the first is trusted"
        worker.saw(spec("hold"), sighting(a="3"))
    assert await worker.follow()
    assert pinning.compare(worker.of("r"), sighting(a="3").digests) == {"a": "changed"}
    assert pinning.compare(worker.of("r"), sighting(a="1").digests) == {}


def _unreachable(*_: object):
    from django.db import OperationalError

    raise OperationalError("unable to open database file")


async def _in_thread(work):
    from mcpserver.lib.database import in_database

    return await in_database(work)
