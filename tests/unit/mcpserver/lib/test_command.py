"""What every command does, shown with commands that do nothing else."""

import json
import sys
from argparse import ArgumentTypeError
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import OperationalError

from mcpserver.lib.command import EXIT_CODES, Answer, JsonCommand, Lines, Subcommand, nearest, usage_error
from mcpserver.lib.errors import Exit, GatewayError


class Plain(JsonCommand):
    """A command without subcommands that ends as `outcome` says."""

    help = "A plain one."
    outcome: object = {}

    def add_arguments(self, parser):
        parser.add_argument("--number", type=int, default=1)

    def run(self, *, number):
        self.say(f"number {number}")
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Probe(Subcommand):
    help = "Test one."

    def add_arguments(self, parser):
        parser.add_argument("name", metavar="NAME")
        parser.add_argument("--timeout", type=float)

    def run(self, *, name, timeout):
        self.say("testing")
        return {"name": name, "timeout": timeout}


class Listing(Subcommand):
    help = "List all."

    def run(self):
        return {"mcps": [{"name": "a", "tools": 1}]}


class Remote(Subcommand):
    help = "Remotes."
    subcommands = {"test": Probe, "list": Listing}


class Nested(JsonCommand):
    help = "A nested one."
    subcommands = {"remote": Remote}


@pytest.fixture
def run(capsys):
    """Run a command as the command line does; its exit code, its one document (or text), its words."""

    def run(command, *words):
        code: object = 0
        try:
            command.run_from_argv(["manage.py", "gw", *words])
        except SystemExit as exit:
            code = exit.code
        out, err = capsys.readouterr()
        return code, json.loads(out) if out.startswith("{") else out, err

    return run


def ending(outcome):
    command = Plain()
    command.outcome = outcome
    return command


def test_success_is_one_line_of_json_and_exit_0(capsys):
    ending({"a": 1}).run_from_argv(["manage.py", "gw"])
    out, err = capsys.readouterr()
    assert out == '{"schema": 1, "ok": true, "a": 1}\n'
    assert err == "number 1\n"


def test_on_a_terminal_it_is_pretty(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    ending({"a": 1}).run_from_argv(["manage.py", "gw"])
    assert capsys.readouterr().out == '{\n  "schema": 1,\n  "ok": true,\n  "a": 1\n}\n'


def test_quiet_silences_the_words_only(run):
    assert run(ending({}), "-q") == (0, {"schema": 1, "ok": True}, "")


@pytest.mark.parametrize(
    ("outcome", "code", "document"),
    [
        (
            GatewayError("not_found", "no such", hint="try a", exit_code=Exit.NOT_FOUND, names=["a"]),
            5,
            {"error": "not_found", "message": "no such", "hint": "try a", "names": ["a"]},
        ),
        (Answer({"changes": [1]}, Exit.FAILED), 1, {"changes": [1]}),
        (Answer({"error": "invalid_config", "errors": []}, Exit.CONFIG), 3, {"error": "invalid_config", "errors": []}),
        ({"ok": False, "error": "unhealthy"}, 1, {"error": "unhealthy"}),
        (KeyboardInterrupt(), 130, {"error": "interrupted", "message": "interrupted"}),
        (
            OperationalError("unable to open database file"),
            1,
            {
                "error": "database",
                "message": "the database cannot be used: unable to open database file",
                "hint": "check DATABASE_URL, the disk and the server",
            },
        ),
        (
            ImproperlyConfigured("no driver"),
            3,
            {"error": "settings", "message": "no driver", "hint": "check the environment and .env"},
        ),
        (CommandError("as Django says"), 1, {"error": "failed", "message": "as Django says"}),
        (
            ZeroDivisionError("oh"),
            1,
            {
                "error": "internal",
                "message": "ZeroDivisionError: oh",
                "hint": "this should not happen; LOG_LEVEL=debug prints the traceback on stderr",
            },
        ),
        (
            usage_error("both given", hint="give one"),
            2,
            {"error": "usage", "message": "both given", "hint": "give one"},
        ),
    ],
)
def test_every_other_end_is_a_document_with_its_exit_code(run, outcome, code, document):
    assert run(ending(outcome), "-q") == (code, {"schema": 1, "ok": False} | document, "")


def test_a_document_may_be_told_with_exit_0_although_something_is_not_well(run):
    assert run(ending(Answer({"status": "degraded"})))[:2] == (0, {"schema": 1, "ok": True, "status": "degraded"})


def test_the_traceback_of_a_bug_is_on_stderr_when_debugging(run, settings):
    settings.LOG_LEVEL = "DEBUG"
    code, document, words = run(ending(ZeroDivisionError("oh")))
    assert (code, document["error"]) == (1, "internal")
    assert "Traceback" in words
    assert "ZeroDivisionError: oh" in words


@pytest.mark.parametrize(
    ("words", "document"),
    [
        (
            ["--number", "x"],
            {"message": "argument --number: invalid int value: 'x'", "hint": "see: gw --help"},
        ),
        (["--numbr", "2"], {"message": "unknown argument: --numbr", "hint": "did you mean --number? see: gw --help"}),
        (["stray"], {"message": "unknown argument: stray", "hint": "see: gw --help"}),
        (
            ["-o", "tabel"],
            {
                "message": "unknown output: tabel",
                "hint": "did you mean table? see: gw --help",
                "choices": ["json", "table"],
            },
        ),
    ],
)
def test_a_usage_error_is_a_document_and_exit_2(run, words, document):
    assert run(Plain(), *words) == (2, {"schema": 1, "ok": False, "error": "usage"} | document, "")


@pytest.mark.parametrize(
    ("words", "document"),
    [
        ([], {"message": "the following arguments are required: COMMAND", "hint": "see: gw --help"}),
        (
            ["remot"],
            {"message": "unknown command: remot", "hint": "did you mean remote? see: gw --help", "choices": ["remote"]},
        ),
        (
            ["remote", "tset"],
            {
                "message": "unknown command: tset",
                "hint": "did you mean test? see: gw remote --help",
                "choices": ["test", "list"],
            },
        ),
        (
            ["remote", "test"],
            {"message": "the following arguments are required: NAME", "hint": "see: gw remote test --help"},
        ),
        (
            ["remote", "test", "a", "--timeou", "3"],
            {"message": "unknown argument: --timeou", "hint": "did you mean --timeout? see: gw --help"},
        ),
    ],
)
def test_a_wrong_subcommand_is_a_usage_error_at_its_own_level(run, words, document):
    assert run(Nested(), *words) == (2, {"schema": 1, "ok": False, "error": "usage"} | document, "")


def test_subcommands_nest(run):
    assert run(Nested(), "remote", "test", "stripe", "--timeout", "3") == (
        0,
        {"schema": 1, "ok": True, "name": "stripe", "timeout": 3.0},
        "testing\n",
    )


@pytest.mark.parametrize(
    "words", [["-o", "table", "remote", "list"], ["remote", "-o", "table", "list"], ["remote", "list", "-o", "table"]]
)
def test_output_is_chosen_anywhere_on_the_line(run, words):
    assert run(Nested(), *words)[1] == "MCPS\n  NAME  TOOLS\n  a     1\n"


def test_output_is_chosen_by_the_environment_and_the_option_wins(run, monkeypatch):
    monkeypatch.setenv("MCP_OUTPUT", "table")
    assert run(Nested(), "remote", "list")[1] == "MCPS\n  NAME  TOOLS\n  a     1\n"
    assert run(Nested(), "remote", "list", "-o", "json")[1]["mcps"] == [{"name": "a", "tools": 1}]


def test_a_table_with_nothing_in_it_says_how_it_went(run):
    assert run(ending({}), "-o", "table")[1] == "ok\n"
    assert run(ending(Answer({}, Exit.FAILED)), "-o", "table")[1] == "failed\n"


def test_help_is_for_people_and_says_nothing_of_django(run):
    code, text, _ = run(Nested(), "--help")
    assert code == 0
    assert text.startswith("usage: gw [-h]")
    assert "Remotes." in text
    assert " ".join(EXIT_CODES.split()) in " ".join(text.split())
    assert not [word for word in ("settings", "pythonpath", "traceback", "color", "verbosity") if word in text]


def test_options_that_manage_py_passes_on_are_accepted(run):
    assert run(Plain(), "-v", "2", "--settings", "mcpserver.settings", "--traceback", "--no-color")[0] == 0


def test_values_that_json_does_not_know_are_plain(run):
    moment = datetime(2026, 11, 22, 12, 0, 0, 999, tzinfo=UTC)
    document = run(ending({"at": moment, "day": moment.date(), "path": Path("/a"), "set": {"b", "a"}}))[1]
    assert document == {
        "schema": 1,
        "ok": True,
        "at": "2026-11-22T12:00:00Z",
        "day": "2026-11-22",
        "path": "/a",
        "set": ["a", "b"],
    }


def test_call_command_prints_the_same_and_raises_the_exit_code(capsys):
    call_command(ending({"a": 1}))
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "ok": True, "a": 1}
    with pytest.raises(SystemExit) as left:
        call_command(ending(GatewayError("locked", "held", exit_code=Exit.CONFLICT)))
    assert left.value.code == 6


def test_a_full_disk_behind_stdout_is_a_failure_and_a_word(capsys):
    with open("/dev/full", "w") as full, pytest.raises(SystemExit) as left:
        call_command(ending({"a": 1}), stdout=full)
    assert left.value.code == 1
    assert "could not be written" in capsys.readouterr().err


def test_without_a_stdout_it_is_a_failure_and_a_word_and_no_traceback(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # What Python makes of `>&-`.
    with pytest.raises(SystemExit) as left:
        call_command(ending({"a": 1}))
    assert left.value.code == 1
    assert "the answer could not be written: Bad file descriptor" in capsys.readouterr().err


def test_the_nearest_word_is_the_one_probably_meant():
    assert [nearest("revok", ["generate", "revoke"]), nearest("zzz", ["generate"])] == ["revoke", None]


def test_an_option_can_say_itself_what_is_wrong_with_its_value(run):
    class Picky(Plain):
        def add_arguments(self, parser):
            parser.add_argument("--number", type=refuse)

    def refuse(text):
        raise ArgumentTypeError("not today")

    assert run(Picky(), "--number", "1")[1]["message"] == "argument --number: not today"


class TestLines:
    """Documents that come one after another."""

    @staticmethod
    def told(outcome, capsys):
        with pytest.raises(SystemExit) as end:
            ending(Lines(outcome)).run_from_argv(["manage.py", "plain"])
        return end.value.code, capsys.readouterr().out

    def test_each_is_a_line_as_it_comes_and_nothing_follows_the_last(self, capsys):
        assert self.told([{"n": 1}, None, {"at": datetime(2026, 11, 22, 12, tzinfo=UTC)}], capsys) == (
            0,
            '{"n": 1}\n{"at": "2026-11-22T12:00:00Z"}\n',
        )

    def test_an_interrupt_is_how_it_ends_and_no_document(self, capsys):
        def documents():
            yield {"n": 1}
            raise KeyboardInterrupt

        assert self.told(documents(), capsys) == (130, '{"n": 1}\n')

    def test_an_error_on_the_way_is_told_like_any_other(self, capsys):
        def documents():
            yield {"n": 1}
            raise GatewayError("database", "it is away")

        code, out = self.told(documents(), capsys)
        assert (code, json.loads(out.splitlines()[1])["error"]) == (1, "database")
