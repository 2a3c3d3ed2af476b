"""A catalogue that is made anew lists what it listed before, whatever became of its remotes; nothing is let through by that."""

import asyncio
import contextlib
import dataclasses
import os
import time

import pytest

from gateway.catalog.catalog import Catalog
from gateway.catalog.pins import KnownPins
from gateway.catalog.remembered import Remembered
from remotes.config.snapshot import Snapshot
from remotes.pinning import Pin
from remotes.upstream.budget import Budget
from remotes.upstream.pool import Pool
from tests.component.upstreams import TOOL, Request, Wire, http, modern, served, silence

BIG = 9 * 1024 * 1024


@contextlib.asynccontextmanager
async def started(folder, *specs, pins=None, tried=True):
    """A gateway's catalogue from its start to its end."""
    known, remembered = KnownPins(), Remembered(folder)
    known._pins = pins or {}
    pool = Pool(budget=Budget(64 * 1024 * 1024, read_max_bytes=32 * 1024 * 1024))
    catalog = Catalog(lambda kinds: None, lambda kept: None, known, remembered)
    snapshot = Snapshot(1, "", {spec.name: spec for spec in specs})
    pool.follow(snapshot, {})
    catalog.follow(snapshot, {spec.name: one for spec in specs if (one := pool.get(spec.name)) is not None})
    try:
        for spec in specs if tried else ():
            await catalog.tried(spec.name)
        yield catalog
    finally:
        await catalog.close()
        await remembered.close()
        await pool.close()


def shown(catalog):
    return [entry.exposed for entry in catalog.joined.entries("tools/list")]


@contextlib.asynccontextmanager
async def listed_once(folder, *, answers=None, **changed):
    """The specification of a remote that was listed by a gateway which has ended, and that is down now."""
    async with served(modern(answers)) as server:
        spec = http(server, **changed)
        async with started(folder, spec) as catalog:
            assert catalog.kept(spec.name).remembered_at is None
    yield spec


@pytest.mark.edge(1)
async def test_what_was_listed_before_a_restart_is_listed_while_the_remote_is_down_and_until_it_is_back(tmp_path):
    async with served(modern()) as server:
        spec = http(server)
        async with started(tmp_path, spec) as catalog:
            before = catalog.joined.tool("remote__echo")
    async with started(tmp_path, spec) as catalog:
        assert catalog.joined.tool("remote__echo") == before
        kept = catalog.kept("remote")
        assert (str(kept.status), kept.is_reached) == ("unhealthy", False)
        assert abs(kept.remembered_at.timestamp() - time.time()) < 60
        async with served(modern(), port=server.port):
            await catalog.refresh("remote")
            assert (str(kept.status), kept.remembered_at) == ("healthy", None)


@pytest.mark.edge(1)
async def test_a_cold_start_with_every_remote_hanging_lists_them_all(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.catalog.catalog.FIRST_LOAD_PATIENCE_S", 0.2)
    async with served(modern()) as one, served(modern()) as other:
        specs = http(one), dataclasses.replace(http(other), name="other")
        async with started(tmp_path, *specs):
            pass
    async with (
        served(silence, port=one.port),
        served(silence, port=other.port),
        started(tmp_path, *specs, tried=False) as catalog,
    ):
        await catalog.ready()
        assert shown(catalog) == ["remote__echo", "other__echo"]


async def test_it_is_listed_as_it_is_configured_now(tmp_path):
    async with listed_once(tmp_path) as spec:
        for changed, expected in (
            ({"aliases": {"echo": "say"}}, ["remote__say"]),
            ({"tools_disabled": ("echo",)}, []),
            ({"headers": {"x": "another connection"}}, []),
        ):
            async with started(tmp_path, dataclasses.replace(spec, **changed)) as catalog:
                assert shown(catalog) == expected


@pytest.mark.parametrize(
    ("pins", "expected"),
    [
        (None, []),
        ({}, []),
        ({"echo": Pin("another", "another")}, []),
    ],
    ids=["nobody met it", "nothing approved", "another approved"],
)
async def test_what_is_held_back_is_held_back_of_memories_too(tmp_path, pins, expected):
    async with (
        listed_once(tmp_path, pin="hold") as spec,
        started(tmp_path, spec, pins=None if pins is None else {"remote": pins}) as catalog,
    ):
        assert shown(catalog) == expected
        assert catalog._pins._latest == {}, "a memory is no sighting"


async def test_what_is_approved_as_it_was_is_listed(tmp_path):
    async with listed_once(tmp_path, pin="hold") as spec:
        async with started(tmp_path, dataclasses.replace(spec, pin="warn")) as catalog:
            digest = catalog.kept("remote").listing.sighting.digests["echo"]
        async with started(tmp_path, spec, pins={"remote": {"echo": Pin(digest, digest)}}) as catalog:
            assert shown(catalog) == ["remote__echo"]


@pytest.mark.parametrize("damage", ["cut", "other", "gone", "folder"])
async def test_a_damaged_memory_is_none(tmp_path, damage):
    async with listed_once(tmp_path) as spec:
        (file,) = tmp_path.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        content = file.read_bytes()
        file.unlink()
        if damage == "folder":
            file.mkdir()
        elif damage != "gone":
            file.write_bytes(content[:-1] if damage == "cut" else b"x" * len(content))
        async with started(tmp_path, spec) as catalog:
            assert shown(catalog) == []


async def test_more_than_eight_mib_is_not_kept_and_what_was_kept_before_goes(tmp_path):
    large = False

    async def tools(request: Request, wire: Wire) -> None:
        more = {"_meta": {"x": "y" * 900_000}} if large else {}
        many = [TOOL | {"name": f"t{number}"} | more for number in range(10)]
        await wire.result(request, {"tools": many, "resultType": "complete"})

    async with served(modern({"tools/list": tools})) as server:
        spec = http(server)
        async with started(tmp_path, spec):
            pass
        assert len(list(tmp_path.iterdir())) == 1
        large = True
        async with started(tmp_path, spec) as catalog:
            assert len(shown(catalog)) == 10
        assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_takes_nothing_costs_the_memory_alone(tmp_path):
    (tmp_path / "file").write_text("")
    async with served(modern()) as server, started(tmp_path / "file" / "folder", http(server)) as catalog:
        assert shown(catalog) == ["remote__echo"]


async def test_what_went_is_forgotten_and_what_a_crash_left_too(tmp_path):
    async with listed_once(tmp_path) as spec:
        left, young = tmp_path / ".remote.json.0.tmp", tmp_path / ".remote.json.1.tmp"
        for file in (left, young):
            file.write_text("")
        os.utime(left, (0, 0))
        async with started(tmp_path, dataclasses.replace(spec, name="other")) as catalog:
            while catalog._remembered._writer is None or not catalog._remembered._writer.done():
                await asyncio.sleep(0.01)
        assert [file.name for file in tmp_path.iterdir()] == [young.name]


async def test_what_has_not_changed_is_not_written_again(tmp_path):
    async with served(modern()) as server, started(tmp_path, http(server)) as catalog:
        inodes = set()
        for _ in range(3):
            await catalog.refresh("remote")
            await catalog._remembered.close()
            inodes |= {file.stat().st_ino for file in tmp_path.iterdir()}
        assert len(inodes) == 1
