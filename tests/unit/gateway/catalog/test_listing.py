"""The joined catalogue: collisions named, malformed entries dropped without their siblings, remotes that never stop cut off."""

import json
import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from gateway.catalog.joined import Joined
from gateway.catalog.listing import Listing, load
from keys.grant import Grant
from keys.principal import Principal
from mcpserver.protocol import jsonrpc
from remotes.config.snapshot import RemoteSpec
from remotes.upstream.connection import Greeting
from remotes.upstream.envelope import Exchange
from remotes.upstream.outcome import Answer, Failed, Fault, Outcome, Refusal

ANY = {"type": "object"}
FIELD = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
ALL = Principal("k", "k")


class Scripted:
    """An upstream whose answers are written down: what `load` needs of one, no more."""

    def __init__(
        self, spec: RemoteSpec, answer: Callable[[Exchange], bytes | Outcome], capabilities: str, revision: str
    ) -> None:
        self.spec = spec
        self.asked: list[tuple[str, str | None]] = []
        self.greeting = Greeting("stdio", revision, jsonrpc.fields(capabilities.encode()))
        self._answer = answer

    async def connected(self, deadline: float) -> "Scripted":
        return self

    async def exchange(self, exchange: Exchange) -> Outcome:
        self.asked.append((exchange.method, jsonrpc.text(exchange.params.get("cursor"))))
        said = self._answer(exchange)
        return Answer(said, self.greeting.modern) if isinstance(said, bytes) else said


async def listing(
    name: str = "ev",
    *,
    revision: str = "2025-11-25",
    hints: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    **lists: Any,
) -> Listing:
    """What is loaded from a remote that offers these entries (dicts, or raw JSON as bytes)."""
    offered = {
        "tools/list": lists.get("tools", []),
        "prompts/list": lists.get("prompts", []),
        "resources/list": lists.get("resources", []),
        "resources/templates/list": lists.get("templates", []),
    }

    def answer(exchange: Exchange) -> bytes:
        entries = [
            entry if isinstance(entry, bytes) else json.dumps(entry).encode() for entry in offered[exchange.method]
        ]
        tail = json.dumps(hints or {"x": 1}).encode()[1:]
        return b'{"' + FIELD[exchange.method].encode() + b'":[' + b",".join(entries) + b"]," + tail

    return await loaded(answer, name, revision=revision, **(spec or {}))


async def loaded(
    answer: Callable[[Exchange], bytes | Outcome],
    name: str = "ev",
    *,
    revision: str = "2025-11-25",
    capabilities: str = '{"tools":{},"prompts":{},"resources":{}}',
    **spec: Any,
) -> Listing:
    upstream = Scripted(RemoteSpec(name, "stdio", **spec), answer, capabilities, revision)
    return await load(upstream, 55)  # type: ignore[arg-type]


def tool(name: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": ANY} | more


def names(joined: Joined, method: str = "tools/list", principal: Principal = ALL) -> list[str]:
    result = json.loads(joined.result(method, principal, modern=False))
    return [
        entry.get("name") if method in ("tools/list", "prompts/list") else entry.get("uri", entry.get("uriTemplate"))
        for entry in result[FIELD[method]]
    ]


class TestJoining:
    async def test_order_is_that_of_the_file_and_of_each_remote(self) -> None:
        one = await listing("b", tools=[tool("z"), tool("a")], prompts=[{"name": "p"}])
        two = await listing("a", tools=[tool("m")])
        assert names(Joined(1, [("b", one), ("a", two)])) == ["b__z", "b__a", "a__m"]
        assert names(Joined(1, [("a", two), ("b", one)])) == ["a__m", "b__z", "b__a"]

    async def test_entries_keep_every_field_but_the_name(self) -> None:
        raw = b'{"name":"x","vendor":{"wide":123456789012345678901234567890,"n":1.10},"inputSchema":{"type":"object","$defs":{}}}'
        joined = Joined(1, [("ev", await listing(tools=[raw]))])
        assert raw.replace(b'"x"', b'"ev__x"') in joined.result("tools/list", ALL, modern=True)

    async def test_a_revision_sees_output_schemas_that_it_knows_and_lists_are_encoded_again_only_where_they_differ(
        self,
    ) -> None:
        schemas = {"object": {"type": "object"}, "array": {"type": "array"}}
        tools = [tool(name, outputSchema=schema) for name, schema in schemas.items()]
        joined = Joined(1, [("ev", await listing(tools=[*tools, tool("none")]))])

        def kept(joined: Joined, revision: str) -> list[str]:
            result = joined.result("tools/list", ALL, modern=revision == "2026-07-28", revision=revision)
            return [one["name"][4:] for one in json.loads(result)["tools"] if "outputSchema" in one]

        assert kept(joined, "2026-07-28") == ["object", "array"]
        for revision in ("2025-06-18", "2025-11-25"):
            assert kept(joined, revision) == ["object"]
        for revision in ("2024-11-05", "2025-03-26"):
            assert kept(joined, revision) == []
        plain = Joined(2, [("ev", await listing(tools=[tool("none")]))])
        newest = plain.result("tools/list", ALL, modern=False)
        assert plain.result("tools/list", ALL, modern=False, revision="2024-11-05") is newest

    @pytest.mark.edge(13)
    async def test_equal_names_of_different_remotes_stay_apart(self) -> None:
        joined = Joined(1, [(name, await listing(name, tools=[tool("echo")])) for name in ("a", "b")])
        assert names(joined) == ["a__echo", "b__echo"]
        assert joined.problems == []

    @pytest.mark.edge(13)
    async def test_inside_a_remote_the_later_shadows_the_earlier_and_it_is_said(self) -> None:
        joined = Joined(1, [("ev", await listing(tools=[tool("a", title="1"), tool("a", title="2")]))])
        assert names(joined) == ["ev__a"]
        assert b'"title":"2"' in joined.result("tools/list", ALL, modern=False)
        assert joined.problems == ["ev: 'a' shadows 'a' of ev as ev__a"]

    @pytest.mark.edge(13)
    async def test_names_that_become_equal_when_cleaned_are_said(self) -> None:
        joined = Joined(1, [("ev", await listing(tools=[tool("a b"), tool("a/b")]))])
        assert joined.problems == ["ev: 'a/b' shadows 'a b' of ev as ev__a_b"]
        found = joined.tool("ev__a_b")
        assert found is not None
        assert found.own == "a/b"

    @pytest.mark.edge(13)
    async def test_a_uri_of_two_remotes_is_told_apart_and_of_three(self) -> None:
        same: dict[str, Any] = {
            "resources": [{"uri": "x://motd", "name": "m"}],
            "templates": [{"uriTemplate": "x://{a}/z", "name": "t"}],
        }
        joined = Joined(1, [(name, await listing(name, **same)) for name in ("a", "b_1", "9c")])
        assert names(joined, "resources/list") == ["x://motd", "b-1+x://motd", "r-9c+x://motd"]
        assert names(joined, "resources/templates/list") == ["x://{a}/z", "b-1+x://{a}/z", "r-9c+x://{a}/z"]
        found = [joined.resource(uri) for uri in ("x://motd", "b-1+x://motd", "r-9c+x://q/z")]
        assert [(one.remote, one.own) for one in found if one] == [
            ("a", "x://motd"),
            ("b_1", "x://motd"),
            ("9c", "x://{a}/z"),
        ]

    async def test_two_long_templates_that_collide_do_not_break_the_whole(self) -> None:
        long: dict[str, Any] = {"templates": [{"uriTemplate": "x://" + "y" * 1993 + "{a}", "name": "t"}]}
        joined = Joined(1, [(name, await listing(name, **long)) for name in ("a", "b")])
        assert len(names(joined, "resources/templates/list")) == 1
        assert joined.problems[0].startswith("b: b+x://yyy")

    async def test_a_resource_comes_before_a_template_that_it_fits(self) -> None:
        joined = Joined(
            1,
            [
                ("a", await listing("a", templates=[{"uriTemplate": "x://{any}", "name": "t"}])),
                ("b", await listing("b", resources=[{"uri": "x://one", "name": "r"}])),
            ],
        )
        one, other = joined.resource("x://one"), joined.resource("x://two")
        assert one is not None
        assert other is not None
        assert (one.remote, other.remote) == ("b", "a")
        assert joined.resource("y://one") is None

    async def test_a_uri_that_fits_templates_of_several_remotes_leads_to_each_of_them(self) -> None:
        wide = {"a": "x://{n}", "b": "x://{+path}"}
        listings = [
            (name, await listing(name, templates=[{"uriTemplate": template, "name": "t"}]))
            for name, template in wide.items()
        ]
        joined = Joined(1, listings)
        assert [entry.remote for entry in joined.leads("x://1")] == ["a", "b"]
        assert [entry.remote for entry in joined.leads("y://1")] == []

    async def test_a_key_sees_what_it_may_use_and_no_more(self) -> None:
        joined = Joined(1, [(name, await listing(name, tools=[tool("t")])) for name in ("a", "b")])
        assert names(joined, principal=Principal("x", "x", Grant(mcps=("a",)))) == ["a__t"]
        assert names(joined) == ["a__t", "b__t"]


class TestHints:
    async def test_the_shortest_life_and_never_public_as_keys_see_different_things(self) -> None:
        fresh = await listing(
            "a", revision="2026-07-28", hints={"ttlMs": 5000, "cacheScope": "public"}, tools=[tool("t")]
        )
        short = await listing(
            "b", revision="2026-07-28", hints={"ttlMs": 10, "cacheScope": "public"}, tools=[tool("t")]
        )
        private = await listing(
            "c", revision="2026-07-28", hints={"ttlMs": 9000, "cacheScope": "private"}, tools=[tool("t")]
        )
        legacy = await listing("d", tools=[tool("t")])
        assert Joined(1, [("a", fresh), ("b", short)]).hints() == {"ttlMs": 10, "cacheScope": "private"}
        assert Joined(1, [("a", fresh), ("c", private)]).hints()["cacheScope"] == "private"
        assert Joined(1, [("a", fresh), ("d", legacy)]).hints() == {"ttlMs": 5000, "cacheScope": "private"}

    @pytest.mark.parametrize("ttl", [-5, "x", 1.5, None, 10**30, {}])
    async def test_nonsense_is_no_life_at_all(self, ttl: Any) -> None:
        one = await listing(revision="2026-07-28", hints={"ttlMs": ttl, "cacheScope": "public"}, tools=[tool("t")])
        assert 0 <= one.ttl_ms <= 300_000


class TestMalformed:
    @pytest.mark.edge(13)
    @pytest.mark.parametrize(
        "bad",
        [
            b"7",
            b"null",
            b"[]",
            b"{}",
            {"name": "", "inputSchema": ANY},
            {"name": 7, "inputSchema": ANY},
            {"name": "x"},
            {"name": "x", "inputSchema": None},
            {"name": "x", "inputSchema": []},
            {"name": "x", "inputSchema": {}},
            {"name": "x", "inputSchema": {"type": ["object"]}},
            {"name": "x", "inputSchema": {"type": "string"}},
            {
                "name": "x",
                "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "a b"}}},
            },
            b'{"name":"deep","inputSchema":{"type":"object","x":'
            + b'{"x-mcp-header":' * 400
            + b"1"
            + b"}" * 400
            + b"}}",
        ],
        ids=lambda bad: str(bad)[:50],
    )
    async def test_a_tool_is_dropped_and_named_and_its_siblings_stay(self, bad: Any) -> None:
        found = await listing(tools=[tool("before"), bad, tool("after")])
        assert [entry.own for entry in found.entries["tools/list"]] == ["before", "after"]
        assert len(found.problems) == 1
        assert re.match(r"an entry of tools/list (?:'\w+' )?was dropped: ", found.problems[0])

    async def test_prompts_resources_and_templates_alike(self) -> None:
        found = await listing(
            prompts=[{"x": 1}, {"name": "p"}],
            resources=[{"name": "r"}, {"uri": "x:y"}],
            templates=[{"uriTemplate": "x:{"}, {"uriTemplate": "x:{a}"}],
        )
        assert [len(found.entries[method]) for method in FIELD] == [0, 1, 1, 1]
        assert len(found.problems) == 3

    async def test_what_the_operator_disabled_is_not_offered(self) -> None:
        tools = [tool("a"), tool("b"), tool("c")]
        off = await listing(tools=tools, spec={"tools_disabled": ("b",)})
        assert [entry.own for entry in off.entries["tools/list"]] == ["a", "c"]
        only = await listing(
            tools=tools,
            spec={"tools_enabled": ("a", "b"), "tools_disabled": ("b",), "aliases": MappingProxyType({"a": "first"})},
        )
        assert [(entry.own, entry.exposed) for entry in only.entries["tools/list"]] == [("a", "ev__first")]

    async def test_only_what_the_handshake_offered_is_asked_for(self) -> None:
        asked = []

        def answer(exchange: Exchange) -> bytes:
            asked.append(exchange.method)
            return b'{"prompts":[]}'

        await loaded(answer, capabilities='{"prompts":{}}')
        assert asked == ["prompts/list"]


class TestHostileLists:
    async def fault(self, answer: Callable[[Exchange], bytes | Outcome]) -> str:
        with pytest.raises(Failed) as caught:
            await loaded(answer, capabilities='{"tools":{}}')
        assert caught.value.failure.fault is Fault.INVALID
        return caught.value.failure.message

    @pytest.mark.edge(16)
    @pytest.mark.parametrize(
        "result",
        [b"[]", b"null", b"{}", b'{"tools":null}', b'{"tools":{}}', b'{"tools":7}', b'"x"', b'{"tools":[' * 5000],
    )
    async def test_a_result_without_a_list(self, result: bytes) -> None:
        await self.fault(lambda exchange: result)

    async def test_a_refusal_is_quoted(self) -> None:
        said = await self.fault(lambda exchange: Refusal(b'{"code":-32000,"message":"closed today"}'))
        assert said == "ev refused tools/list: closed today (-32000)"

    async def test_pages_are_followed_an_empty_cursor_too(self) -> None:
        pages = {None: ("a", '""'), "": ("b", '"2"'), "2": ("c", "null")}

        def answer(exchange: Exchange) -> bytes:
            name, cursor = pages[jsonrpc.text(exchange.params.get("cursor"))]
            return b'{"tools":[' + json.dumps(tool(name)).encode() + b'],"nextCursor":' + cursor.encode() + b"}"

        found = await loaded(answer, capabilities='{"tools":{}}')
        assert [entry.own for entry in found.entries["tools/list"]] == ["a", "b", "c"]

    @pytest.mark.edge(13)
    async def test_a_cursor_that_comes_twice_ends_it(self) -> None:
        assert "never ends" in await self.fault(lambda exchange: b'{"tools":[],"nextCursor":"again"}')

    @pytest.mark.edge(13)
    async def test_cursors_without_end_are_cut_off(self) -> None:
        asked = []

        def answer(exchange: Exchange) -> bytes:
            asked.append(1)
            return b'{"tools":[],"nextCursor":"%d"}' % len(asked)

        assert "never ends" in await self.fault(answer)
        assert len(asked) == 1000

    @pytest.mark.edge(13)
    async def test_ten_thousand_tools_are_served(self) -> None:
        found = await listing(tools=[tool(f"t{number}") for number in range(10_000)])
        joined = Joined(1, [("ev", found)])
        assert len(msgspec.json.decode(joined.result("tools/list", ALL, modern=True))["tools"]) == 10_000
