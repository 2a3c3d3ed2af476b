from mcpserver.lib import table


def test_values_first_then_lists_as_tables_and_objects_as_sections():
    document = {
        "version": 3,
        "remotes": [{"name": "a", "tools": 12, "healthy": True}, {"name": "long-name", "error": "timeout"}],
        "server": {"pid": 7, "draining": False},
        "mcps": {"demo": {"status": "healthy"}, "other": {"status": "unknown"}},
        "names": ["a", "b"],
        "nothing": None,
        "empty": [],
    }
    assert table.render(document) == (
        "version  3\n"
        "names    a, b\n"
        "nothing  -\n"
        "empty    -\n"
        "\n"
        "REMOTES\n"
        "  NAME       TOOLS  HEALTHY  ERROR\n"
        "  a          12     yes      -\n"
        "  long-name  -      -        timeout\n"
        "\n"
        "SERVER\n"
        "  pid       7\n"
        "  draining  no\n"
        "\n"
        "MCPS\n"
        "  NAME   STATUS\n"
        "  demo   healthy\n"
        "  other  unknown"
    )


def test_no_remote_can_steer_the_terminal_or_forge_a_row():
    assert table.render({"name": "a\x1b[2J\r\n\u202eb"}) == "name  a\\x1b[2J\\r\\n\\u202eb"


def test_mixed_and_nested_values_are_shown_on_one_line():
    assert table.render({"rows": [{"limits": {"a": 1, "b": [2, 3]}}, "odd"]}) == (
        "ROWS\n  LIMITS       VALUE\n  a=1, b=2, 3  -\n  -            odd"
    )


def test_a_table_too_wide_for_a_window_loses_documents_and_empty_columns_then_the_ends_of_long_texts():
    wide = {"a": {"name": "a", "circuit": {"state": "closed" * 20}, "era": None, "error": "x" * 300, "tools": 6}}
    assert table.render({"mcps": wide}) == (
        f"MCPS\n  NAME  ERROR{' ' * 100}  TOOLS\n  a     {'x' * 104}…  6\n  (circuit: in the JSON)"
    )
    assert all(len(line) <= 120 for line in table.render({"mcps": wide}).splitlines())
