"""Where a session is served once the worker that opened it is gone, found out by workers that have not all heard of the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pytest

from gateway.cluster.homes import Homes
from gateway.cluster.neighbours import Neighbours
from gateway.cluster.shared import Cluster

OWNER, THIRD, FOURTH = "abcdef12345678", "ghijkl12345678", "mnopqr12345678"
URL = "http://10.0.0.2:3000"


class Redis:
    """What the script says, without Redis: one answer for all, for as long as that worker is registered."""

    def __init__(self, *registered: str) -> None:
        self.registered = set(registered)
        self.homes: dict[str, str] = {}
        self.is_away = False
        self.hears: Neighbours | None = None
        self.moves = self

    async def home(self, id: str, owner: str, gone: str, proposed: str) -> str | None:
        if self.is_away:
            return None
        found = self.homes.get(id, owner)
        if found == "" or (found != gone and found in self.registered):
            return found
        self.homes[id] = proposed
        return proposed

    async def tick(self) -> None:
        if self.hears is not None:
            self.hears.heard(dict.fromkeys(self.registered, URL))

    def end(self, id: str) -> None:
        self.homes[id] = ""


def made(folder: Path, redis: Redis | None, heard: Iterable[str] = ()) -> tuple[Neighbours, Homes]:
    neighbours = Neighbours(folder)
    neighbours.heard(dict.fromkeys(heard, URL))
    return neighbours, Homes(neighbours, cast("Cluster | None", redis))


async def test_whoever_opened_a_session_has_it_while_it_serves(tmp_path: Path):
    redis = Redis(OWNER)
    _, homes = made(tmp_path, redis, [OWNER])
    assert await homes.of("s", OWNER) == OWNER
    assert redis.homes == {}, "and nobody was asked"


async def test_two_that_know_different_ones_agree_on_one_heir(tmp_path: Path):
    redis = Redis(THIRD, FOURTH)
    redis.hears, first = made(tmp_path / "one", redis, [THIRD])
    taken = await first.of("s", OWNER)
    redis.hears, second = made(tmp_path / "two", redis, [FOURTH])
    redis.registered.add(taken)
    assert await second.of("s", OWNER) == taken


async def test_an_heir_that_lives_keeps_what_it_has_when_somebody_comes(tmp_path: Path):
    redis = Redis(THIRD)
    neighbours, homes = made(tmp_path, redis, [THIRD])
    taken = {name: await homes.of(name, OWNER) for name in map(str, range(20))}
    neighbours.heard({THIRD: URL, FOURTH: URL})
    assert {name: await homes.of(name, OWNER) for name in taken} == taken


async def test_an_heir_that_dies_is_followed_by_another_though_redis_still_names_it(tmp_path: Path):
    redis = Redis(THIRD)
    redis.homes["s"] = THIRD
    neighbours, homes = made(tmp_path, redis, [THIRD])
    assert await homes.of("s", OWNER) == THIRD
    place = neighbours.find(THIRD)
    assert place is not None
    neighbours.forget(place)
    redis.hears = neighbours
    assert await homes.of("s", OWNER) == neighbours.own
    assert redis.homes["s"] == neighbours.own


async def test_what_redis_names_is_believed_once_it_was_heard_of(tmp_path: Path):
    redis = Redis(THIRD)
    redis.homes["s"] = THIRD
    redis.hears, homes = made(tmp_path, redis)
    assert await homes.of("s", OWNER) == THIRD


async def test_a_session_that_was_ended_is_nowhere(tmp_path: Path):
    redis = Redis()
    _, homes = made(tmp_path, redis)
    homes.ended("s")
    assert await homes.of("s", OWNER) == ""


@pytest.mark.parametrize("has_redis", [True, False])
async def test_without_redis_those_who_know_the_same_ones_compute_the_same(tmp_path: Path, has_redis: bool):
    redis = Redis()
    redis.is_away = True
    neighbours, homes = made(tmp_path, redis if has_redis else None, [THIRD])
    assert {name: await homes.of(name, OWNER) for name in "abcdefgh"} == {
        name: neighbours.heir(OWNER, name) for name in "abcdefgh"
    }
