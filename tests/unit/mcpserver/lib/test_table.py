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


def test_a_table_too_wide_for_a_window_loses_documents_and_empty_columns_then_folds_its_texts():
    error = "the host name cannot be resolved " * 4
    wide = {"a": {"name": "a", "circuit": {"state": "closed" * 20}, "era": None, "error": error, "tools": 6}}
    text = "the host name cannot be resolved the host name cannot be resolved the host name"
    assert table.render({"mcps": wide}) == (
        f"MCPS\n  NAME  ERROR{' ' * 82}TOOLS\n  a     {text}{' ' * 8}6\n"
        "        cannot be resolved the host name cannot be resolved\n  (circuit: in the JSON)"
    )


def test_a_word_that_is_too_long_for_its_column_is_cut_and_the_first_column_never():
    (_, _, row) = table.render({"rows": [{"name": "n" * 60, "sha256": "f" * 64}]}).splitlines()
    assert row == f"  {'n' * 60}  {'f' * 35}…"


def test_what_has_too_many_columns_for_a_line_is_told_one_below_the_other_without_what_is_empty():
    row = {f"column-{number}": "x" * 15 for number in range(8)} | {"empty": None}
    assert table.render({"rows": [row, {"column-0": "y"}]}) == (
        "ROWS\n" + "\n".join(f"  column-{number}  {'x' * 15}" for number in range(8)) + "\n\n  column-0  y"
    )


def test_no_line_of_a_table_is_longer_than_a_hundred_characters():
    rows = [{"name": "a" * wide, "b": "word " * wide, "c": "x" * wide, "d": wide} for wide in (1, 20, 70)]
    for wide in range(1, 4):
        assert all(len(line) <= 100 for line in table.render({"rows": rows[:wide]}).splitlines())
