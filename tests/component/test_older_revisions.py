"""What a client of an older revision sees of newer things, over both transports: the negotiated revision decides."""

from typing import Any

import pytest

from tests.component.real_gateway import Gateway

OLDER, NEWER = ["2024-11-05", "2025-03-26"], ["2025-06-18", "2025-11-25"]


def both(gateway: Gateway, revision: str, method: str, params: Any = None) -> list[Any]:
    """The same request over Streamable HTTP and HTTP+SSE."""
    over_http = gateway.client().session(revision).call(method, params).result
    with gateway.client().relay() as relay:
        return [over_http, relay.opened(revision).call(method, params)["result"]]


@pytest.mark.parametrize("remote", ["new", "old", "sse"])
@pytest.mark.parametrize("revision", [*OLDER, *NEWER])
def test_a_link_is_one_where_the_revision_has_links_and_text_before(
    gateway: Gateway, remote: str, revision: str
) -> None:
    for result in both(gateway, revision, "tools/call", {"name": f"{remote}__link", "arguments": {}}):
        link, resource = result["content"]
        assert resource["resource"]["uri"].endswith("peer://city/Paris")
        if revision in NEWER:
            assert (link["type"], link["name"]) == ("resource_link", "motd")
            assert link["uri"].endswith("peer://motd")
        else:
            assert link["type"] == "text"
            assert link["text"].startswith("motd: ")
            assert link["text"].endswith("peer://motd")
            # The URI in words is one that can be read here.
            read = gateway.client().session(revision).call("resources/read", {"uri": link["text"].split()[-1]})
            assert read.result["contents"][0]["text"] == "Real peers, real sockets."


@pytest.mark.parametrize("revision", [*OLDER, *NEWER])
def test_structured_content_and_its_schema_come_and_go_together(gateway: Gateway, revision: str) -> None:
    for result in both(gateway, revision, "tools/call", {"name": "new__structured", "arguments": {}}):
        assert ("structuredContent" in result) is (revision in NEWER)
        assert '"celsius"' in result["content"][0]["text"]
    for result in both(gateway, revision, "tools/list"):
        (tool,) = [one for one in result["tools"] if one["name"] == "new__structured"]
        assert ("outputSchema" in tool) is (revision in NEWER)
        assert tool["inputSchema"]["type"] == "object"
