"""URIs that remotes name without listing them, and the results that name them."""

import json
from typing import Any

import pytest

from gateway.catalog import links
from gateway.catalog.links import Links

LISTED = {"a://listed": "one"}


def exposed(named: Links, remote: str, uri: str) -> str:
    return named.exposed(remote, uri, LISTED.get)


def prefixed(uri: str) -> str:
    return f"two+{uri}"


def test_what_one_remote_alone_names_keeps_its_form_and_leads_there() -> None:
    named = Links()
    assert named.find("a://1") is None
    assert exposed(named, "two", "a://1") == "a://1"
    assert exposed(named, "two", "a://1") == "a://1"
    assert named.find("a://1") == ("two", "a://1")


def test_what_leads_to_another_remote_takes_the_form_that_tells_them_apart() -> None:
    named = Links()
    assert exposed(named, "one", "a://listed") == "a://listed"
    assert exposed(named, "two", "a://listed") == "two+a://listed"
    assert named.find("two+a://listed") == ("two", "a://listed")
    assert named.find("a://listed") is None
    assert exposed(named, "one", "a://1") == "a://1"
    assert exposed(named, "two", "a://1") == "two+a://1"
    assert named.find("a://1") == ("one", "a://1")


def test_an_address_in_the_web_is_never_changed() -> None:
    named = Links()
    assert exposed(named, "one", "https://example.com") == "https://example.com"
    assert exposed(named, "two", "https://example.com") == "https://example.com"
    assert named.find("https://example.com") == ("one", "https://example.com")


def test_a_remote_that_names_without_end_forgets_its_own_and_nobody_elses() -> None:
    named = Links()
    exposed(named, "one", "a://kept")
    for number in range(1100):
        exposed(named, "two", f"a://{number}")
    assert named.find("a://0") is None
    assert named.find("a://1099") == ("two", "a://1099")
    assert named.find("a://kept") == ("one", "a://kept")
    long = "a://" + "x" * 3000
    assert exposed(named, "one", long) == long
    assert named.find(long) is None


LINK = {"type": "resource_link", "uri": "a://1", "name": "n", "extra": [1.10]}
EMBEDDED = {"type": "resource", "resource": {"uri": "a://2", "text": "t"}, "annotations": {"priority": 1}}


@pytest.mark.parametrize(
    ("result", "changed"),
    [
        ({"content": [LINK]}, {"content": [LINK | {"uri": "two+a://1"}]}),
        ({"content": [EMBEDDED]}, {"content": [EMBEDDED | {"resource": {"uri": "two+a://2", "text": "t"}}]}),
        (
            {"messages": [{"role": "user", "content": LINK}], "description": "d"},
            {"messages": [{"role": "user", "content": LINK | {"uri": "two+a://1"}}], "description": "d"},
        ),
    ],
)
def test_links_and_embedded_resources_get_the_uri_that_clients_see(result: Any, changed: Any) -> None:
    raw = json.dumps(result).encode()
    assert links.names_resources(raw)
    assert json.loads(links.result(raw, prefixed)) == changed
    assert links.result(raw, lambda uri: uri) is raw


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"content": "resource_link"},
        {"content": [1, None, "x", {"type": "resource"}, {"type": "resource", "resource": []}]},
        {"content": [{"type": "resource_link"}, {"type": "resource_link", "uri": 1}, {"type": "text", "uri": "a://1"}]},
        {"messages": [1, {"content": [LINK]}, {"role": "user"}]},
        {"messages": {}},
    ],
)
def test_what_is_no_link_stays_as_it_is(result: Any) -> None:
    raw = json.dumps(result).encode()
    assert links.result(raw, prefixed) is raw


def test_words_about_resources_are_not_looked_into() -> None:
    assert not links.names_resources(json.dumps({"content": [{"type": "text", "text": '"resource"'}]}).encode())


def test_a_read_result_says_the_uri_that_clients_see() -> None:
    raw = b'{"contents":[{"uri":"a://1","text":"x"},{"text":"no uri"},7],"ttlMs":5}'
    assert json.loads(links.contents(raw, prefixed)) == {
        "contents": [{"uri": "two+a://1", "text": "x"}, {"text": "no uri"}, 7],
        "ttlMs": 5,
    }
    assert links.contents(b'{"other":1}', prefixed) == b'{"other":1}'


@pytest.mark.parametrize(
    ("meta", "changed"),
    [
        ({"ui": {"resourceUri": "ui://1", "x": 1}, "y": 2}, {"ui": {"resourceUri": "two+ui://1", "x": 1}, "y": 2}),
        ({"ui/resourceUri": "ui://1"}, {"ui/resourceUri": "two+ui://1"}),
        (
            {"ui/resourceUri": "ui://1", "ui": {"resourceUri": "ui://2"}},
            {"ui/resourceUri": "two+ui://1", "ui": {"resourceUri": "two+ui://2"}},
        ),
        ({"ui": "resourceUri"}, None),
        ({"ui": {"resourceUri": 1}}, None),
        (None, None),
    ],
)
def test_the_page_of_a_tool_gets_the_uri_that_clients_see(meta: Any, changed: Any) -> None:
    raw = json.dumps({"name": "t", "_meta": meta}).encode()
    if changed is None:
        assert links.page(raw, prefixed) is raw
    else:
        assert json.loads(links.page(raw, prefixed)) == {"name": "t", "_meta": changed}


def test_what_another_worker_settled_holds_here_too() -> None:
    named = Links()
    assert named.names("two", "a://1", LISTED.get) == [("a://1", "a://1"), ("two+a://1", "a://1")]
    assert named.names("two", "a://listed", LISTED.get) == [("two+a://listed", "a://listed")]
    assert named.names("two", "https://example.com", LISTED.get) == [], "is never changed"
    named.learn("one", "a://1", "a://1")
    named.learn("two", "two+a://1", "a://1")
    assert exposed(named, "two", "a://1") == "two+a://1"
    assert exposed(named, "one", "a://1") == "a://1"
    assert named.names("two", "a://1", LISTED.get) == [], "and need not be asked again"


def test_all_uris_of_a_result_are_found_once() -> None:
    blocks = [
        {"type": "resource_link", "uri": "a://1", "name": "x"},
        {"type": "resource", "resource": {"uri": "a://2", "text": "x"}},
        {"type": "resource_link", "uri": "a://1", "name": "y"},
        {"type": "text", "text": "a://3"},
    ]
    assert links.named(json.dumps({"content": blocks}).encode()) == ["a://1", "a://2"]
