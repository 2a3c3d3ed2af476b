"""Who is told of a change, and what the remotes are asked for: counted, bounded, and let go."""

import asyncio
import json
from typing import Any

import pytest

from gateway.sessions import subscriptions as module
from gateway.sessions.subscriptions import URIS_MAX, Subscriber, Subscriptions, TooMany
from remotes.config.snapshot import RemoteSpec, Snapshot
from remotes.upstream.budget import Budget
from remotes.upstream.pool import Pool


class Client:
    """A subscriber that writes down what it is told, while it reads."""

    def __init__(self, key_id: str = "k") -> None:
        self.told: list[Any] = []
        self.reads = True
        self.subscriber = Subscriber(key_id, self.put, lambda: self.reads)

    def put(self, message: bytes) -> bool:
        if self.reads:
            self.told.append(json.loads(message)["params"])
        return self.reads


class Gateway:
    """Subscriptions over a pool of remotes that nobody has connected to."""

    def __init__(self) -> None:
        self.pool = Pool(budget=Budget(8 * (1000), read_max_bytes=1000))
        self.configure("one", "two")
        self.subscriptions = Subscriptions(self.pool)

    def configure(self, *names: str, url: str = "http://127.0.0.1:9/mcp") -> None:
        self.pool.follow(Snapshot(1, "", {name: RemoteSpec(name, "http", url=url) for name in names}), {})

    def add(self, client: Client, places: dict[str, tuple[str, str]]) -> Any:
        return asyncio.run(self.subscriptions.add(client.subscriber, places))

    def wanted(self, name: str) -> set[str]:
        upstream = self.pool.get(name)
        assert upstream is not None
        return set(upstream.watch._wanted)


def test_a_remote_is_asked_while_somebody_listens() -> None:
    gateway, first, second = Gateway(), Client(), Client()
    for client in (first, second):
        assert gateway.add(client, {"one+a://1": ("one", "a://1")}) == {}
    assert (gateway.wanted("one"), gateway.wanted("two")) == ({"a://1"}, set())
    gateway.subscriptions.remove(first.subscriber, "one+a://1")
    gateway.subscriptions.remove(first.subscriber, "one+a://1")
    assert gateway.wanted("one") == {"a://1"}
    gateway.subscriptions.close(second.subscriber)
    assert gateway.wanted("one") == set()


def test_each_is_told_under_the_uri_that_it_asked_for() -> None:
    gateway, first, second = Gateway(), Client(), Client()
    second.subscriber.meta = {"mark": 7}
    gateway.add(first, {"a://1": ("one", "a://1")})
    gateway.add(second, {"two+a://1": ("two", "a://1")})
    gateway.subscriptions.updated("one", "a://1")
    gateway.subscriptions.updated("two", "a://1")
    gateway.subscriptions.updated("two", "a://2")
    gateway.subscriptions.updated("three", "a://1")
    assert first.told == [{"uri": "a://1"}]
    assert second.told == [{"_meta": {"mark": 7}, "uri": "two+a://1"}]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("a://x/y", "one+a://x/y"),
        ("a://x/y/z", "one+a://x/y/z"),
        ("a://x/y#part", "one+a://x/y#part"),
        ("a://x/yz", None),
        ("a://x", None),
        ("a://x/y" + "/z" * 500, None),
    ],
)
def test_what_changed_may_lie_below_what_is_watched(changed: str, told: str | None) -> None:
    gateway, client = Gateway(), Client()
    gateway.add(client, {"one+a://x/y": ("one", "a://x/y")})
    gateway.subscriptions.updated("one", changed)
    assert client.told == ([] if told is None else [{"uri": told}])


def test_a_folder_may_be_watched_by_its_name_with_the_slash() -> None:
    gateway, client = Gateway(), Client()
    gateway.add(client, {"a://x/": ("one", "a://x/")})
    gateway.subscriptions.updated("one", "a://x/y")
    assert client.told == [{"uri": "a://x/y"}]


def test_what_changes_while_nobody_reads_is_told_once_later() -> None:
    gateway, client = Gateway(), Client()
    gateway.add(client, {"a://1": ("one", "a://1"), "a://2": ("one", "a://2")})
    client.reads = False
    for uri in ("a://1", "a://1", "a://2"):
        gateway.subscriptions.updated("one", uri)
    gateway.subscriptions.remove(client.subscriber, "a://2")
    client.reads = True
    client.subscriber.catch_up()
    client.subscriber.catch_up()
    assert client.told == [{"uri": "a://1"}]


def test_a_slow_reader_gets_the_rest_when_it_has_caught_up() -> None:
    gateway, client = Gateway(), Client()
    gateway.add(client, {"a://1": ("one", "a://1")})
    client.reads = False
    gateway.subscriptions.updated("one", "a://1")
    gateway.subscriptions.sweep(0.0)
    assert client.told == []
    client.reads = True
    gateway.subscriptions.sweep(1.0)
    assert client.told == [{"uri": "a://1"}]


def test_bounds_of_one_subscriber_and_of_one_key() -> None:
    gateway = Gateway()
    client = Client()
    gateway.add(client, {f"a://{n}": ("one", f"a://{n}") for n in range(URIS_MAX)})
    assert gateway.add(client, {"a://0": ("one", "a://0")}) == {}  # it has that already
    with pytest.raises(TooMany):
        gateway.add(client, {"a://more": ("one", "a://more")})
    for _ in range(15):
        gateway.add(Client(), {f"a://{n}": ("one", f"a://{n}") for n in range(URIS_MAX)})
    with pytest.raises(TooMany):
        gateway.add(Client(), {"a://more": ("one", "a://more")})
    assert gateway.add(Client("another key"), {"a://more": ("one", "a://more")}) == {}


def test_another_configuration_is_asked_for_the_same() -> None:
    gateway, client = Gateway(), Client()
    gateway.add(client, {"a://1": ("one", "a://1")})
    before = gateway.pool.get("one")
    gateway.configure("one", url="http://127.0.0.1:10/mcp")
    gateway.subscriptions.follow()
    assert gateway.pool.get("one") is not before
    assert gateway.wanted("one") == {"a://1"}


def test_what_nobody_has_read_for_an_hour_is_let_go() -> None:
    gateway, away, back = Gateway(), Client(), Client()
    for client in (away, back):
        gateway.add(client, {"a://1": ("one", "a://1")})
        client.reads = False
    gateway.subscriptions.sweep(0.0)
    back.reads = True
    gateway.subscriptions.sweep(3000.0)
    back.reads = False
    gateway.subscriptions.sweep(3601.0)
    assert (bool(away.subscriber.places), bool(back.subscriber.places)) == (False, True)
    gateway.subscriptions.sweep(9000.0)
    assert gateway.wanted("one") == set()


class TestHints:
    """What another worker was told."""

    @pytest.fixture
    def heard(self, monkeypatch: pytest.MonkeyPatch) -> tuple[Gateway, Client]:
        monkeypatch.setattr(module, "_AFTER_S", 0.0)
        gateway, client = Gateway(), Client()
        gateway.add(client, {"a": ("one", "a")})
        return gateway, client

    async def test_are_told_where_the_remote_told_nobody_here(self, heard: tuple[Gateway, Client]) -> None:
        gateway, client = heard
        gateway.subscriptions.hinted("one", "a")
        gateway.subscriptions.hinted("one", "unwatched")
        gateway.subscriptions.hinted("two", "a")
        await asyncio.sleep(0.01)
        assert client.told == [{"uri": "a"}]

    @pytest.mark.parametrize("order", ["told first", "hinted first"])
    async def test_add_nothing_where_it_told_all(self, heard: tuple[Gateway, Client], order: str) -> None:
        gateway, client = heard
        told, hinted = gateway.subscriptions.updated, gateway.subscriptions.hinted
        for tell in (told, hinted) if order == "told first" else (hinted, told):
            tell("one", "a")
        await asyncio.sleep(0.01)
        assert client.told == [{"uri": "a"}]
