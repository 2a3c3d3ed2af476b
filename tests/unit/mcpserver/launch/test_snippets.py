import json
import shlex

from mcpserver.launch import snippets

URL, KEY = "http://127.0.0.1:3000/mcp", "mcp_abc_def"


def test_the_claude_code_line_is_one_command_with_the_header_last():
    assert shlex.split(snippets.claude_code(URL, KEY)) == [
        "claude", "mcp", "add", "--transport", "http", "--scope", "user", "gw", URL,
        "--header", f"Authorization: Bearer {KEY}",
    ]  # fmt: skip


def test_cursor_and_vs_code_get_json_in_their_own_words():
    headers = {"Authorization": f"Bearer {KEY}"}
    assert json.loads(snippets.cursor(URL, KEY)) == {"mcpServers": {"gw": {"url": URL, "headers": headers}}}
    assert json.loads(snippets.vs_code(URL, KEY)) == {
        "servers": {"gw": {"type": "http", "url": URL, "headers": headers}}
    }


def test_the_curl_line_is_a_whole_request():
    words = shlex.split(snippets.curl(URL, KEY).replace("\\\n", " "))
    assert words[:3] == ["curl", "-s", URL]
    assert f"Authorization: Bearer {KEY}" in words
    assert json.loads(words[-1])["method"] == "tools/list"


def test_the_page_shows_the_key_once_known_and_its_place_otherwise():
    assert KEY in snippets.page(URL, KEY)
    later = snippets.page(URL, None)
    assert snippets.NO_KEY in later
    assert "bin/mcpkey generate" in later
