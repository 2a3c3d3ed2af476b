import asyncio
from pathlib import Path
from typing import Any

import pytest

from mcpserver.lib import control
from mcpserver.supervisor import address, door


@pytest.fixture
def run_dir(tmp_path: Path, settings: Any) -> Path:
    settings.MCP_RUN_DIR, settings.HOST, settings.PORT = tmp_path, "0.0.0.0", 4000
    return tmp_path


def test_a_gateway_that_runs_says_itself_where_it_listens(run_dir: Path) -> None:
    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True, "url": "http://127.0.0.1:4711/mcp"}

    async def asked() -> str:
        async with await control.listen(run_dir / door.NAME, answer):
            return await asyncio.to_thread(address.url)

    assert asyncio.run(asked()) == "http://127.0.0.1:4711/mcp"


def test_where_none_runs_it_is_what_the_settings_say(run_dir: Path) -> None:
    assert address.url() == "http://127.0.0.1:4000/mcp"


@pytest.mark.parametrize(
    ("host", "written"), [("10.0.0.7", "10.0.0.7"), ("::", "[::1]"), ("fe80::1", "[fe80::1]"), ("", "127.0.0.1")]
)
def test_an_address_is_written_as_a_client_can_call_it(host: str, written: str) -> None:
    assert address.url_of(host, 80) == f"http://{written}:80/mcp"
