"""The embedded demo remote is a real server of both eras, and shows each thing a gateway must carry."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp_types import ElicitResult, TextContent

from remotes import demo

REPOSITORY = Path(demo.__file__).resolve().parents[1]


async def blue(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"colour": "blue"})


async def text_of(client: Client, tool: str, **arguments: Any) -> tuple[bool, str]:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result.content[0], TextContent)
    return result.is_error, result.content[0].text


async def test_the_process_speaks_both_eras_on_stdio_and_ends_with_its_input() -> None:
    program = StdioServerParameters(command=sys.executable, args=["-m", "remotes.demo"], cwd=REPOSITORY)
    for mode, version in (("legacy", "2025-11-25"), ("auto", "2026-07-28")):
        async with Client(program, mode=mode) as client:
            assert client.protocol_version == version
            assert await text_of(client, "echo", text="hi") == (False, "hi")


async def test_tools_prompt_and_resource_are_offered() -> None:
    async with Client(demo.demo) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        assert tools == ["echo", "add", "slow", "big", "fail", "ask"]
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["greet"]
        assert [str(resource.uri) for resource in (await client.list_resources()).resources] == ["demo://about"]
        assert "demo remote" in (await client.read_resource("demo://about")).contents[0].text


async def test_slow_reports_each_step() -> None:
    seen: list[tuple[float, float | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total))

    async with Client(demo.demo) as client:
        await client.call_tool("slow", {"seconds": 0.03, "steps": 3}, progress_callback=on_progress)
    assert seen == [(1, 3), (2, 3), (3, 3)]


async def test_add_is_structured_big_is_exact_and_fail_is_a_failed_result() -> None:
    async with Client(demo.demo) as client:
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3.0}
        assert await text_of(client, "big", n=100_000) == (False, "x" * 100_000)
        assert (await text_of(client, "big", n=demo.BIG_MAX_BYTES + 1))[0]
        failed, words = await text_of(client, "fail", message="no luck")
        assert failed
        assert "no luck" in words


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_ask_asks_the_user_in_both_eras(mode: str) -> None:
    async with Client(demo.demo, mode=mode, elicitation_callback=blue) as client:
        assert await text_of(client, "ask") == (False, "Your favourite colour is blue.")


def test_importing_it_leaves_the_garbage_collector_on() -> None:
    assert gc.isenabled()
