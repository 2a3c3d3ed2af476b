"""The clients inside agent frameworks, each with the key as a fixed header, as its users set it. No model is needed.

They stand on the SDKs that test_clients_through_gateway.py drives; what is theirs is how they connect, how many sessions they
open, what they make of a list and of an answer, and what they tell people about a refusal.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.system.conftest import World
from tests.system.tools import FRAMEWORKS_AND_MODES, arguments, visit

pytestmark = pytest.mark.parametrize(("framework", "mode"), FRAMEWORKS_AND_MODES)


@pytest.fixture(scope="module")
def offered(world: World) -> list[str]:
    """The names that a plain SDK is told through the same gateway."""
    names: list[str] = visit("sdk2", world.gateway.address("session"), world.gateway.key, mode="session")["tools"]
    return names


def test_a_framework_lists_the_tools_of_every_remote_and_calls_them(
    framework: str, mode: str, world: World, offered: list[str]
) -> None:
    options = ["--call", "old__add", *arguments(a=1, b=2)]
    options += also("demo__echo", text="hello") + also("every-stdio__echo", message="hi") + also("events__fail")
    seen = visit(framework, world.gateway.address(mode), world.gateway.key, *options, mode=mode)
    assert seen["ok"], seen
    assert (seen["protocol_version"], seen["server"]["name"]) == ("2025-11-25", "MCP-Server")
    assert {"old__add", "demo__echo", "every-stdio__echo", "time__get_current_time"} <= set(seen["tools"])
    assert sorted(seen["tools"]) == sorted(offered)
    assert [told(answer) for answer in (seen["call"], *seen["also"])] == [
        ("3.0", False),
        ("hello", False),
        ("Echo: hi", False),
        ("Error executing tool fail: as you wished", True),
    ]


def test_a_framework_with_a_wrong_key_is_refused_and_says_so(framework: str, mode: str, world: World) -> None:
    seen = visit(framework, world.gateway.address(mode), "mcp_wrong", mode=mode, timeout_s=10)
    assert (seen["ok"], seen["status"], seen["tools"]) == (False, 401, []), seen
    assert "401" in seen["error"]
    assert "Traceback" not in seen["stderr"]


def also(name: str, **given: Any) -> list[str]:
    return ["--also", json.dumps({"name": name, "arguments": given})]


def told(answer: dict[str, Any]) -> tuple[str, bool]:
    """The one text of an answer, and whether it is a failure."""
    (block,) = answer["content"]
    return block["text"], answer["isError"]
