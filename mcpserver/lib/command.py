"""The shape of every command: parse, call one service, print one JSON document, leave with a documented exit code.

A command subclasses `JsonCommand` and implements `run(**options)`, which returns a dict or raises GatewayError; or it
names `subcommands`, each a `Subcommand` with a `run` of its own, nested as deep as the words on the command line:

    class Generate(Subcommand):
        help = "Make a key and show it once."
        def add_arguments(self, parser): parser.add_argument("name", metavar="NAME")
        def run(self, *, name): return services.generate(name=name, actor=actor())

    class Command(JsonCommand):
        subcommands = {"generate": Generate}

Whatever happens, stdout gets exactly one document: usage errors, lost databases and bugs too. Words (`self.say`) go to
stderr. Nothing here knows what any command is about.
"""

import argparse
import difflib
import errno
import getpass
import json
import os
import select
import sys
import traceback
from argparse import SUPPRESS
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, ClassVar, NoReturn

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper
from django.db import connections

from mcpserver.lib import table
from mcpserver.lib.database import UNUSABLE, unavailable
from mcpserver.lib.errors import Exit, GatewayError

SCHEMA = 1
OUTPUTS = ("json", "table")
EXIT_CODES = (
    "exit codes: 0 done, 1 failed or unhealthy, 2 usage, 3 configuration, 4 key, 5 not found, 6 locked or changed, "
    "7 not running, 130 interrupted"
)
# Django's own options stay accepted, as manage.py hands them to every command; who runs a gateway need not read them.
_DJANGO_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-v", "--verbosity"), {"type": int, "choices": (0, 1, 2, 3), "default": 1}),
    (("--settings",), {}),
    (("--pythonpath",), {}),
    (("--traceback",), {"action": "store_true"}),
    (("--no-color",), {"action": "store_true"}),
    (("--force-color",), {"action": "store_true"}),
    (("--skip-checks",), {"action": "store_true"}),
)
_OURS = "_subcommand"
_NOT_FOR_RUN = frozenset(
    {"verbosity", "settings", "pythonpath", "traceback", "no_color", "force_color", "skip_checks"}
    | {"stdout", "stderr", "args", "output", "quiet", _OURS}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A document with its exit code, for a command that has something to tell although it is not "done"."""

    document: Mapping[str, Any] = field(default_factory=dict)
    exit_code: Exit = Exit.DONE
    # A file for another program: printed instead of the document, unless `-o` asks for that.
    text: str | None = None
    # What `-o table` shows instead of a rendering of the document.
    page: str | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """Documents that come one after another, a line each, until there are no more or nobody reads.

    None says that there is nothing at present: a reader that left is noticed then too.
    """

    documents: Iterable[Mapping[str, Any] | None]


Result = Mapping[str, Any] | Answer | Lines


class Subcommand:
    """One word after the command's name: either it has a `run`, or `subcommands` of its own."""

    help: str = ""
    subcommands: ClassVar[Mapping[str, type["Subcommand"]]] = {}

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare what `run` takes."""

    def run(self, *args: Any, **options: Any) -> Result:
        """Do it. Never prints: what is returned becomes the document."""
        raise NotImplementedError(type(self).__name__)


class JsonCommand(BaseCommand):
    """See the module's own words. `subcommands` left empty: implement `run`."""

    subcommands: ClassVar[Mapping[str, type[Subcommand]]] = {}
    requires_system_checks = []
    _quiet = False

    def run(self, *args: Any, **options: Any) -> Result:
        """Do it. Never prints: what is returned becomes the document."""
        raise NotImplementedError(type(self).__name__)

    def say(self, words: str) -> None:
        """A line for people, on stderr; `-q` silences it."""
        if not self._quiet:
            _write(self.stderr, words)

    # What Django calls.

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """A parser named as people call the command (`mcpkey`, whatever started it), whose errors are documents."""
        parser = _Parser(prog=subcommand, description=self.help or None, epilog=EXIT_CODES, **kwargs)
        for flags, options in _DJANGO_OPTIONS:
            parser.add_argument(*flags, help=SUPPRESS, **options)
        _add_output_options(parser)
        self.add_arguments(parser)
        _add_subcommands(parser, self.subcommands, self.say)
        return parser

    def run_from_argv(self, argv: list[str]) -> None:
        """The way of the command line: leaves with the exit code."""
        self._called_from_command_line = True
        parsed: dict[str, Any] = {}
        try:
            parser = self.create_parser(argv[0], argv[1])
            usage = _settled(lambda: parsed.update(vars(parser.parse_args(argv[2:]))) or {})
            if usage.exit_code:
                self._leave(usage, output="json")
            self.execute(**parsed)
        finally:
            connections.close_all()

    def handle(self, *args: Any, **options: Any) -> None:
        """Both ways, the command line and `call_command`: one document; SystemExit for every end that is not "done"."""
        self._quiet = bool(options.get("quiet"))
        target = options.get(_OURS) or self
        wanted = {name: value for name, value in options.items() if name not in _NOT_FOR_RUN}
        run = partial(self._run_to_its_end, partial(target.run, **wanted))
        answer = _settled(run)
        unasked = _preferred_output() if answer.text is None else "text"
        self._leave(answer, output=options.get("output") or unasked)

    def _run_to_its_end(self, run: Callable[[], Result]) -> Mapping[str, Any] | Answer:
        result = run()
        if not isinstance(result, Lines):
            return result
        try:
            for document in result.documents:
                if document is None:
                    is_read = _has_reader(self.stdout)
                else:
                    is_read = _put(self.stdout, json.dumps(document, default=_plain))
                if not is_read:
                    break
        except KeyboardInterrupt:  # How one ends that would go on for ever: nothing to tell.
            raise SystemExit(int(Exit.INTERRUPTED)) from None
        raise SystemExit(int(Exit.DONE))

    def _leave(self, answer: Answer, *, output: str) -> None:
        document = {"schema": SCHEMA, "ok": answer.exit_code == Exit.DONE, **answer.document}
        exit_code = answer.exit_code
        shown = _rendered(document, output, pretty=_is_terminal(self.stdout))
        if output == "text" and answer.text is not None:
            shown = answer.text.removesuffix("\n")
        if output == "table" and answer.page is not None:
            shown = answer.page
        if failure := _write(self.stdout, shown):
            self.say(f"the answer could not be written: {failure.strerror}")
            exit_code = exit_code or Exit.FAILED
        if exit_code:
            raise SystemExit(int(exit_code))


def main(argv: list[str]) -> None:
    """manage.py's way in: settings that cannot be read end in a document as well."""
    try:
        execute_from_command_line(argv)
    except ImproperlyConfigured as error:
        document = _from_improper_settings(error).document()
        _write(OutputWrapper(sys.stdout), _rendered({"schema": SCHEMA, **document}, "json", pretty=sys.stdout.isatty()))
        raise SystemExit(int(Exit.CONFIG)) from None


def actor() -> str:
    """Who ran this command, for audit rows: `cli:` and the system's user name."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # A container's uid without a passwd entry.
        return f"cli:{os.getuid()}"


def usage_error(message: str, *, hint: str = "", **facts: Any) -> GatewayError:
    """For what only `run` can see to be wrong with the command line."""
    return GatewayError("usage", message, hint=hint, exit_code=Exit.USAGE, **facts)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The one of `words` that was probably meant."""
    return next(iter(difflib.get_close_matches(word, list(words), n=1)), None)


# Settling: every way that `run` can end becomes an Answer.


def _settled(work: Callable[[], Mapping[str, Any] | Answer]) -> Answer:
    try:
        result = work()
    except GatewayError as error:
        return Answer(error.document(), error.exit_code)
    except KeyboardInterrupt:
        return Answer({"ok": False, "error": "interrupted", "message": "interrupted"}, Exit.INTERRUPTED)
    except UNUSABLE as error:
        return _failed(unavailable(error))
    except ImproperlyConfigured as error:
        return _failed(_from_improper_settings(error))
    except CommandError as error:
        return _failed(GatewayError("failed", str(error)))
    except Exception as error:  # noqa: BLE001  The last line: a bug too is answered with a document.
        return _failed(_from_bug(error))
    if isinstance(result, Answer):
        return result
    return Answer(result, Exit.DONE if result.get("ok", True) else Exit.FAILED)


def _failed(error: GatewayError) -> Answer:
    if _debugging():
        traceback.print_exc(file=sys.stderr)
    return Answer(error.document(), error.exit_code)


def _from_bug(error: Exception) -> GatewayError:
    return GatewayError(
        "internal",
        f"{type(error).__name__}: {error}",
        hint="this should not happen; LOG_LEVEL=debug prints the traceback on stderr",
    )


def _from_improper_settings(error: ImproperlyConfigured) -> GatewayError:
    return GatewayError("settings", str(error), hint="check the environment and .env", exit_code=Exit.CONFIG)


def _debugging() -> bool:
    return str(getattr(settings, "LOG_LEVEL", "")).upper() == "DEBUG"


# Parsing.


class _Parser(CommandParser):
    """argparse that raises instead of printing, and that guesses what was meant."""

    def __init__(self, **kwargs: Any) -> None:
        # Abbreviations would break a script on the day a second option begins alike.
        super().__init__(**({"allow_abbrev": False} | kwargs))

    def print_help(self, file: Any = None) -> None:
        _write(OutputWrapper(file or sys.stdout), self.format_help())

    def error(self, message: str) -> NoReturn:
        raise usage_error(message, hint=f"see: {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise usage_error(f"unknown argument: {unknown[0]}", hint=self._hint(unknown[0], _all_options(self)))
        return known

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        words = [str(choice) for choice in action.choices]
        what = "command" if isinstance(action, argparse._SubParsersAction) else action.metavar or action.dest
        raise usage_error(f"unknown {what}: {value}", hint=self._hint(str(value), words), choices=words)

    def _hint(self, word: str, words: Iterable[str]) -> str:
        meant = nearest(word, words)
        return f"did you mean {meant}? see: {self.prog} --help" if meant else f"see: {self.prog} --help"


def _add_subcommands(
    parser: CommandParser, subcommands: Mapping[str, type[Subcommand]], say: Callable[[str], None]
) -> None:
    if not subcommands:
        return
    group = parser.add_subparsers(prog=parser.prog, metavar="COMMAND", required=True, title="commands")
    for word, kind in subcommands.items():
        subcommand = kind(say)
        nested = group.add_parser(word, help=kind.help, description=kind.help)
        _add_output_options(nested)
        subcommand.add_arguments(nested)
        nested.set_defaults(**{_OURS: subcommand})
        _add_subcommands(nested, kind.subcommands, say)


def _add_output_options(parser: CommandParser) -> None:
    # Accepted before and after the subcommand's name: SUPPRESS keeps the inner default from undoing the outer value.
    parser.add_argument("-o", "--output", choices=OUTPUTS, default=SUPPRESS, help="json (default) or table; MCP_OUTPUT")
    parser.add_argument("-q", "--quiet", action="store_true", default=SUPPRESS, help="no words on stderr")


def _all_options(parser: argparse.ArgumentParser) -> set[str]:
    options: set[str] = set()
    for action in parser._actions:
        options.update(action.option_strings if action.help != SUPPRESS else ())
        if isinstance(action, argparse._SubParsersAction):
            options.update(*(_all_options(nested) for nested in action.choices.values()))
    return options


# Printing.


def _preferred_output() -> str:
    preferred = os.environ.get("MCP_OUTPUT", "")
    return preferred if preferred in OUTPUTS else "json"


def _rendered(document: Mapping[str, Any], output: str, *, pretty: bool) -> str:
    # Escaped to ASCII: what a remote named itself can neither break a pipe's encoding nor steer a terminal.
    text = json.dumps(document, indent=2 if pretty or output == "table" else None, default=_plain)
    if output != "table":
        return text
    shown = {key: value for key, value in json.loads(text).items() if key not in {"schema", "ok"}}
    return table.render(shown) if shown else ("ok" if document["ok"] else "failed")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _write(stream: OutputWrapper, text: str) -> OSError | None:
    """Returns what went wrong. A reader that left (`| head`) took what it wanted: that is nothing wrong."""
    if getattr(stream, "_out", stream) is None:  # Started without one (`>&-`).
        return OSError(errno.EBADF, os.strerror(errno.EBADF))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        # Our own style: Django paints whatever goes to stderr red.
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding), style_func=str)
        stream.flush()
    except BrokenPipeError:
        _abandon(stream)
    except OSError as error:
        _abandon(stream)
        return error
    return None


def _put(stream: OutputWrapper, line: str) -> bool:
    """False once nobody reads."""
    try:
        stream.write(line, style_func=str)
        stream.flush()
    except OSError:
        _abandon(stream)
        return False
    return True


def _has_reader(stream: OutputWrapper) -> bool:
    """False for a pipe whose other end is closed; where that cannot be told, True."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return not any(what & (select.POLLERR | select.POLLNVAL) for _, what in poll.poll(0))
    except (OSError, ValueError):
        return True


def _is_terminal(stream: OutputWrapper) -> bool:
    return getattr(stream, "_out", None) is not None and stream.isatty()


def _abandon(stream: OutputWrapper) -> None:
    """Point the stream at nothing, or Python's own flush at exit fails again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
