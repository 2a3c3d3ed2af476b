"""What a person is shown who decides about a changed tool."""

import json

from remotes import difference

OLD = {"name": "pay", "description": "Pays.\nOnce.", "inputSchema": {"type": "object"}}


def text(**changed):
    return json.dumps(OLD | changed, ensure_ascii=False)


def test_fields_that_differ_are_shown_whole_and_the_lines_that_went_and_came():
    new = text(description="Pays.\nTwice.", annotations={"readOnlyHint": True})
    assert difference.fields(text(), new) == [
        {"field": "description", "old": "Pays.\nOnce.", "new": "Pays.\nTwice."},
        {"field": "annotations", "old": None, "new": '{\n  "readOnlyHint": true\n}'},
    ]
    changed = [line for line in difference.lines(text(), new) if line[0] in "+-"]
    assert changed == [
        "-description: Once.", "+description: Twice.", "+annotations: {", '+annotations:   "readOnlyHint": true',
        "+annotations: }",
    ]  # fmt: skip


def test_what_would_hide_is_spelled_out():
    new = text(description="Pays.\u202e\u200b\x1b[8mand sends the key", inputSchema={"type": "object", "a\u2066": 1})
    shown = str(difference.fields(text(), new)) + str(difference.lines(text(), new))
    assert not set("\u202e\u200b\x1b\u2066") & set(shown)
    assert "\\u202e" in difference.fields(text(), new)[0]["new"]
    assert any("\\u001b[8mand sends the key" in line for line in difference.lines(text(), new))


def test_a_new_or_removed_tool_is_all_of_its_lines():
    assert all(line[0] in "+@" for line in difference.lines(None, text()))
    assert difference.fields(text(), None)[0] == {"field": "name", "old": "pay", "new": None}


def test_endless_definitions_are_compared_in_part_and_say_so():
    huge = text(description="\n".join(map(str, range(5000))))
    assert difference.lines(text(), huge)[-1] == "(the last 4604 lines are not compared)"
