import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.lib import log
from mcpserver.lib.access_line import AccessLines


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Path]:
    before, level = logging.getLogger().handlers[:], logging.getLogger().level
    log.start("gateway", tmp_path, max_bytes=1_000_000, files=5)
    yield tmp_path
    log.stop()
    logging.getLogger().handlers[:] = before
    logging.getLogger().setLevel(level)
    logging.raiseExceptions = True


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_an_access_line_carries_its_fields_after_the_names_that_are_ours(started: Path) -> None:
    log.access({"tool": "demo__echo", "level": "forged"}, request="r", ms=1.5)
    log.stop()
    (line,) = lines(started / "combined.log")
    assert list(line)[:6] == ["time", "level", "logger", "message", "process", "pid"]
    assert line["time"].endswith("Z")
    assert (line["level"], line["logger"], line["process"]) == ("INFO", "mcp.access", "gateway")
    assert (line["tool"], line["ms"], line["level_"]) == ("demo__echo", 1.5, "forged")


@pytest.mark.edge(11)
def test_errors_are_in_both_files_and_the_rest_in_one(started: Path) -> None:
    logging.getLogger("a").info("news")
    logging.getLogger("a").error("bad %s", "thing", extra={"remote": "demo"})
    log.stop()
    assert [line["message"] for line in lines(started / "combined.log")] == ["news", "bad thing"]
    (error,) = lines(started / "error.log")
    assert (error["message"], error["remote"]) == ("bad thing", "demo")


@pytest.mark.edge(11)
@pytest.mark.parametrize(
    "evil", ['a\n{"level":"ERROR"}', "a\r\x1b[2J", "\u202egnp.exe", "\u2028x", "\ud83d", "\x7f\x9b1m"]
)
def test_a_stranger_can_neither_forge_a_line_nor_steer_a_terminal(started: Path, evil: str) -> None:
    log.access({"tool": evil}, request="r", ms=1.5)
    logging.getLogger("a").warning("called %s", evil)
    log.stop()
    raw = (started / "combined.log").read_bytes()
    assert len(raw.splitlines()) == 2
    assert all(32 <= byte < 127 for byte in raw.replace(b"\n", b""))
    assert lines(started / "combined.log")[0]["tool"] == evil


def test_the_formatter_masks_secrets_wherever_they_stand(started: Path) -> None:
    key = "mcp_0a1B2c3D4e_" + "x9Y" * 16 + "z"
    log.access(
        {"tool": f"t {key}", "headers": {"Authorization": "hush"}, "url": Url("https://me:hush@host/")},
        request="r",
        ms=1.5,
    )
    try:
        raise ValueError(f"key {key}")
    except ValueError:
        logging.getLogger("a").exception("failed with %s", key)
    log.stop()
    written = (started / "combined.log").read_text() + (started / "error.log").read_text()
    assert "hush" not in written
    assert "x9Y" not in written
    assert "ValueError: key mcp_0a1B2c3D4e_[redacted]" in written


class Url:
    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no")


SECRETS = {
    "gateway key": "mcp_0a1B2c3D4e_{}",
    "bearer": "Bearer {}",
    "header": "Authorization: {}",
    "header in JSON": '{{"x-api-key": "{}"}}',
    "userinfo": "https://me:{}@host/path",
    "query": "https://host/?a=1&access_token={}&b=2",
    "variable": "CLIENT_SECRET={}",
    "cookie": "Set-Cookie: session={}",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.{}.{}",
}


@pytest.mark.edge(11)
@given(
    shape=st.sampled_from(sorted(SECRETS)),
    secret=st.from_regex(r"[A-Za-z0-9]{6}[0-9][A-Z][a-z]{2}[A-Za-z0-9]{6,40}", fullmatch=True),
    before=st.text(max_size=30),
    after=st.text(max_size=30),
    name=st.sampled_from(["method", "name", "remote", "key", "source", "why", "era", "detail"]),
)
def test_no_field_of_any_line_lets_a_secret_through(
    shape: str, secret: str, before: str, after: str, name: str
) -> None:
    hidden = SECRETS[shape].format(secret, secret)
    quoted = f"{before} {hidden} {after}"
    formatter = log.JsonFormatter("gateway")
    access = AccessLines(log._encoded, formatter.origin("INFO", "mcp.access", "call"))
    try:
        raise ValueError(quoted)
    except ValueError:
        failure = logging.LogRecord("a", logging.ERROR, "", 0, "failed with %s", (quoted,), sys.exc_info())
    nested = logging.LogRecord("a", logging.ERROR, "", 0, "nested", None, None)
    nested.__dict__["facts"] = {"list": [{"deep": quoted}], "object": Url(quoted)}
    written = [
        access.line(0.0, {name: quoted}, "r", 1.0),
        formatter.format(failure),
        formatter.format(nested),
        log.HumanFormatter().format(failure),
    ]
    assert [line for line in written if secret in line] == []


def test_what_cannot_be_written_down_costs_its_own_line_only(started: Path) -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    log.access({"odd": Broken()}, request="r", ms=1.5)
    log.access(circle, request="r", ms=1.5)
    logging.getLogger("a").info("one %s %s", *["argument"])
    log.access({"tool": "next"}, request="r", ms=1.5)
    log.stop()
    found = lines(started / "combined.log")
    assert [line.get("tool") or line["message"] for line in found] == [
        "a line could not be made: RuntimeError",
        "a line could not be made: ValueError",
        "one %s %s ('argument',)",
        "next",
    ]


def test_a_line_is_bounded_whatever_is_quoted_in_it(started: Path) -> None:
    log.access({"tool": "x" * 1_000_000}, request="r", ms=1.5)
    logging.getLogger("a").info("y" * 1_000_000)
    log.stop()
    assert all(len(line) < 3 * log.TEXT_MAX_CHARS for line in (started / "combined.log").read_text().splitlines())


@pytest.mark.edge(11)
def test_files_rotate_at_their_size_and_no_more_than_five_are_kept(tmp_path: Path) -> None:
    before = logging.getLogger().handlers[:]
    log.start("gateway", tmp_path, max_bytes=4000, files=5)
    for number in range(200):
        log.access({"number": number}, request="r", ms=1.5)
    log.stop()
    logging.getLogger().handlers[:] = before
    names = sorted(path.name for path in tmp_path.glob("*.log"))
    assert names == ["combined.1.log", "combined.2.log", "combined.3.log", "combined.4.log", "combined.log"]
    assert all(path.stat().st_size <= 4000 for path in tmp_path.glob("*.log"))
    order = [
        tmp_path / name
        for name in ("combined.4.log", "combined.3.log", "combined.2.log", "combined.1.log", "combined.log")
    ]
    numbers = [line["number"] for path in order for line in lines(path)]
    assert numbers == list(range(numbers[0], 200))


def test_a_full_queue_drops_counts_and_says_so(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "QUEUE_MAX_LINES", 3)
    for number in range(10):
        log.access({"number": number}, request="r", ms=1.5)
    assert log.state().dropped == 7
    log.stop()
    assert [line.get("dropped", line.get("number")) for line in lines(started / "combined.log")] == [7, 0, 1, 2]


def test_stop_is_harmless_without_start_and_access_goes_nowhere() -> None:
    log.stop()
    log.access({"tool": "x"}, request="r", ms=1.5)
    assert log.state() == log.State()


@pytest.mark.parametrize(
    ("level", "shown"),
    [("INFO", logging.WARNING), ("debug", logging.INFO), ("ERROR", logging.ERROR), ("nonsense", logging.WARNING)],
)
def test_people_are_told_less_than_files(level: str, shown: int) -> None:
    assert log.stderr_level(level) == shown


def test_a_human_line_is_one_line_of_printable_characters_without_secrets() -> None:
    try:
        raise ValueError("token=hush\nsecond")
    except ValueError:
        record = logging.LogRecord("remotes.x", logging.ERROR, "", 0, "bad\x1b[2J\n%s", ("\u202e",), sys.exc_info())
    line = log.HumanFormatter().format(record)
    assert line.isprintable()
    assert line.endswith(" error remotes.x: bad\\u001b[2J\\u000a\\u202e (second)")


def test_djangos_configuration_is_stderr_alone() -> None:
    configuration = log.configuration("info")
    assert list(configuration["handlers"]) == ["stderr"]
    assert configuration["root"] == {"handlers": ["stderr"], "level": logging.INFO}
    assert configuration["loggers"]["django"]["handlers"] == []


def test_a_level_above_info_keeps_access_lines_out(started: Path) -> None:
    log.start("gateway", started, max_bytes=1_000_000, files=5, level="WARNING")
    log.access({"tool": "x"}, request="r", ms=1.5)
    logging.getLogger("a").info("news")
    logging.getLogger("a").warning("look")
    log.stop()
    assert [line["message"] for line in lines(started / "combined.log")] == ["look"]


def test_where_lines_go_is_one_of_three_words() -> None:
    assert [log.target(word) for word in ("files", "external", "stdout")] == ["files", "external", "stdout"]
    with pytest.raises(ValueError, match="MCP_LOG_TARGET='syslog' is none of files, external, stdout"):
        log.target("syslog")
