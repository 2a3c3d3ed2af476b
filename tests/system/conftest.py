"""One gateway in front of every kind of remote, started once for all the system tests that only use it."""

from __future__ import annotations

import contextlib
import http.server
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import peers
from tests.system import gateway
from tests.system.tools import require


@dataclass(frozen=True)
class World:
    """The gateway, the remotes behind it that can also be met directly, and what they write down."""

    gateway: gateway.Gateway
    direct: dict[str, str]
    journal: Path
    page: str

    def events(self, tag: str) -> list[str]:
        """What has happened to the `cancellable` call with this tag, in order."""
        return [line["event"] for line in peers.journal_lines(self.journal) if line.get("tag") == tag]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Remotes by name: `local old events both` offer the same (tests/peers), each over another transport or era."""
    require("sdk1", "sdk2", "servers", "npm")
    journal = tmp_path_factory.mktemp("world") / "journal"
    writing = {"PEER_JOURNAL": str(journal)}
    with contextlib.ExitStack() as stack:
        urls = {
            "both": stack.enter_context(peers.sdk_server("http", environment=writing)).url,
            "events": stack.enter_context(peers.sdk_server("sse", environment=writing)).url,
            "old": stack.enter_context(peers.legacy_server("http", environment=writing)).url,
            "every-http": stack.enter_context(peers.everything("streamableHttp")).url,
            "every-sse": stack.enter_context(peers.everything("sse")).url,
        }
        remotes: dict[str, dict[str, Any]] = {
            "demo": {"command": sys.executable, "args": ["-m", "remotes.demo"], "cwd": str(gateway.ROOT)},
            "local": peers.sdk_stdio(**writing).entry(),
            **{name: {"url": url} for name, url in urls.items()},
            "every-stdio": peers.everything_stdio().entry(),
            "time": peers.time_stdio().entry(),
            "fetch": peers.fetch_stdio().entry(),
            "down": {"url": f"http://127.0.0.1:{peers.free_port()}/mcp"},
        }
        page = stack.enter_context(a_page())
        running = stack.enter_context(gateway.running(remotes))
        gateway.eventually(
            lambda: {name: one["status"] for name, one in running.remotes().items()},
            lambda words: set(words.values()) == {"healthy", "unhealthy"},
            within_s=20,
            what="every remote was looked at",
        )
        yield World(running, urls, journal, page)


@contextlib.contextmanager
def a_page() -> Iterator[str]:
    """A web page of this machine, for mcp-server-fetch to fetch."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"a page of this machine"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        """Quiet."""
