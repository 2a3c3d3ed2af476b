"""What `mcpconfig show` prints holds no secret, and still says where each comes from."""

import json
from pathlib import Path
from typing import Any

from remotes.config import load, view

TEXT = """
mcpServers:
  a:
    url: https://a.example/${PATH_SECRET}/mcp?api_key=literal-secret-1
    headers: {Authorization: "Bearer ${TOKEN}", X-Plain: literal-secret-2, X-Default: "${UNSET:-literal-secret-3}"}
  b:
    command: server
    args: [--token, literal-secret-4, --verbose, "${TOKEN}"]
    env: {API_KEY: literal-secret-5, MODE: fast, OTHER: "${TOKEN}"}
  c:
    url: https://c.example/mcp
    auth: {token_url: "https://id.example/t", client_id: me, client_secret: literal-secret-6}
"""
ENVIRONMENT = {"TOKEN": "variable-secret", "PATH_SECRET": "variable-secret"}


def reading_of(text):
    reading = load.read(text, ENVIRONMENT, Path("/srv"))
    assert reading.snapshot is not None
    return reading.value, reading.snapshot


def test_what_is_written_is_shown_with_references_and_without_literal_secrets():
    value, _ = reading_of(TEXT)
    shown: Any = view.written(value)
    assert "secret-" not in json.dumps(shown)
    assert shown["mcpServers"]["a"]["headers"]["Authorization"] == "Bearer ${TOKEN}"
    assert shown["mcpServers"]["b"] == {
        "command": "server", "args": ["--token", "[redacted]", "--verbose", "${TOKEN}"],
        "env": {"API_KEY": "[redacted]", "MODE": "fast", "OTHER": "${TOKEN}"},
    }  # fmt: skip


def test_what_it_comes_to_is_shown_with_defaults_and_without_values():
    value, snapshot = reading_of(TEXT)
    shown = view.resolved(value, snapshot, ENVIRONMENT, lambda path: None)
    assert "secret" not in json.dumps(shown).replace("client_secret", "")
    assert shown["mcpServers"]["b"]["env"] == {"API_KEY": "[redacted]", "MODE": "fast", "OTHER": "[redacted]"}
    assert shown["mcpServers"]["b"]["cwd"] == "/srv"
    assert shown["mcpServers"]["a"]["timeout"] == 60
    assert shown["mcpServers"]["a"]["url"].startswith("https://a.example/[redacted]/mcp")
