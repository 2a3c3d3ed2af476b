"""`mcpbackup` and `mcprestore` on a real database and real files, in this process."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keys import selectors as keys_selectors
from keys import services as keys_services
from keys.models import ApiKey
from mcpserver.lib.errors import GatewayError
from monitoring import tasks
from monitoring.backups import document, folder, saving
from monitoring.management.commands import mcpbackup, mcprestore
from remotes import pins, selectors, services
from remotes.config import files, following
from remotes.config.load import digest
from remotes.models import ToolPin
from remotes.pinning import Pin, Sighting

pytestmark = pytest.mark.django_db(transaction=True)

ONE = "version: 1  # one\nmcpServers:\n  a: {url: http://127.0.0.1:1/mcp}\n"
TWO = "version: 1  # two\nmcpServers:\n  b: {url: http://127.0.0.1:2/mcp}\n"


@pytest.fixture
def home(settings, tmp_path):
    settings.MCP_CONFIG = tmp_path / "mcp-config.yaml"
    settings.MCP_BACKUP_DIR = tmp_path / "backups"
    settings.MCP_CONFIG.write_text(ONE)
    following.forget()
    services.bootstrap(settings.MCP_CONFIG)
    return tmp_path


@pytest.fixture
def backups(home):
    return home / "backups"


@pytest.fixture
def config(home):
    return home / "mcp-config.yaml"


@pytest.fixture
def run(home, capsys):
    def run(line):
        name, *words = line.split()
        command = {"mcpbackup": mcpbackup, "mcprestore": mcprestore}[name].Command()
        code: object = 0
        try:
            command.run_from_argv(["manage.py", name, *words])
        except SystemExit as exit:
            code = exit.code
        return code, json.loads(capsys.readouterr().out)

    return run


def apply(text, config):
    return services.apply(text, path=config, expected=None, actor="test")


def head_text():
    head = selectors.head()
    return head and head[2]


def kinds(backups):
    return [one.kind for one in reversed(folder.kept(backups))]


def key_words():
    return [(key["name"], key["status"]) for key in keys_selectors.list_keys(datetime.now(UTC), ended=True)]


def state(config):
    """Everything that a restore could change."""
    return selectors.head(), config.read_bytes(), list(keys_selectors.exported())


class TestMaking:
    def test_one_by_hand_holds_configuration_keys_and_settings_and_no_secret(self, run, backups, settings):
        made = keys_services.generate(name="main", actor="test", changes={"rate": 5})
        code, told = run("mcpbackup create --note why")
        held = json.loads((backups / folder.LATEST).read_text())
        assert (code, told["contents"], held["note"]) == (0, ["settings", "keys", "pins", "config"], "why")
        assert held["sections"]["config"]["text"] == ONE
        assert held["sections"]["keys"][0] | {"hash": ""} == {
            "id": made["id"],
            "name": "main",
            "hash": "",
            "grant": {"rate": 5},
            "created_at": made["created_at"].isoformat(),
            "expires_at": None,
            "retires_at": None,
            "revoked_at": None,
        }
        whole = (backups / folder.LATEST).read_text()
        assert made["key"] not in whole
        assert settings.SECRET_KEY not in whole

    @pytest.mark.edge(20)
    def test_every_applied_change_is_preceded_by_one_of_what_it_replaces(self, config, backups):
        apply(TWO, config)
        apply(ONE, config)
        texts = [json.loads(one.path.read_text())["sections"]["config"]["text"] for one in folder.kept(backups)]
        assert (kinds(backups), texts) == (["change", "change"], [TWO, ONE])

    def test_a_change_whose_backup_fails_is_not_made(self, config, backups):
        before = state(config)
        backups.write_text("no folder")
        with pytest.raises(GatewayError) as refused:
            apply(TWO, config)
        assert (refused.value.code, state(config)) == ("io_error", before)

    def test_a_folder_that_is_not_meant_to_be_written_keeps_nothing_from_changing(self, config, settings):
        settings.MCP_BACKUP_DIR = Path("/sys/kernel/backups")  # where root cannot make one either
        apply(TWO, config)
        assert head_text() == TWO

    @pytest.mark.edge(20)
    def test_the_day_has_one_however_often_it_is_asked_for_and_after_downtime_at_once(self, backups):
        class Clock:
            time = datetime(2026, 11, 22, 23, 59, tzinfo=UTC)

            def now(self):
                return self.time

            def monotonic(self):
                return 0.0

        clock = Clock()
        assert [bool(saving.daily(where=backups, clock=clock)) for _ in range(3)] == [True, False, False]
        clock.time += timedelta(minutes=1)
        assert saving.daily(where=backups, clock=clock)
        clock.time += timedelta(days=30)
        assert saving.daily(where=backups, clock=clock)
        clock.time -= timedelta(days=365)  # a clock that was wrong does not end daily backups
        assert saving.daily(where=backups, clock=clock)

    def test_celery_makes_the_one_of_today(self, backups):
        tasks.backup()
        tasks.backup()
        assert kinds(backups) == ["daily"]

    @pytest.mark.edge(12)
    @pytest.mark.edge(20)
    def test_the_newest_ten_are_kept_and_prune_keeps_fewer(self, run, backups):
        for _ in range(12):
            run("mcpbackup create")
        newest = [one["file"] for one in run("mcpbackup list")[1]["backups"]]
        assert len(newest) == 10
        assert run("mcpbackup prune --keep 3 --dry-run")[1]["removed"] == newest[3:]
        assert run("mcpbackup prune --keep 3")[1]["removed"] == newest[3:]
        assert [one["file"] for one in run("mcpbackup list")[1]["backups"]] == newest[:3]
        assert (backups / folder.LATEST).is_file()

    def test_how_many_are_kept_can_stand_in_the_configuration(self, run, backups, config):
        apply(ONE + "gateway: {backup_keep: 2}\n", config)
        for _ in range(4):
            run("mcpbackup create")
        assert kinds(backups).count("manual") == 2


class TestVerifying:
    def test_every_backup_is_read_and_the_bad_one_named(self, run, backups):
        good = run("mcpbackup create")[1]["file"]
        assert run("mcpbackup verify")[0] == 0
        bad = run("mcpbackup create")[1]["file"]
        damage(bad)
        code, told = run("mcpbackup verify")
        assert (code, told["error"]) == (1, "damaged")
        assert {one["file"]: one["ok"] for one in told["backups"]} == {
            good: True,
            bad: False,
            str(backups / folder.LATEST): True,
        }
        assert run(f"mcpbackup verify {good}")[0] == 0
        assert run("mcpbackup verify nowhere.json")[1]["backups"][0]["error"] == "not_found"


class TestRestoring:
    @pytest.mark.edge(20)
    def test_the_configuration_comes_back_and_the_state_of_before_is_kept(self, run, config, backups):
        apply(TWO, config)
        code, told = run("mcprestore latest")
        assert (code, told["restored"], told["checksum_ok"]) == (0, ["keys", "pins", "config"], True)
        assert told["changes"]["config"]["remotes"] == {"added": ["a"], "removed": ["b"], "changed": []}
        assert (selectors.head_number(), head_text(), config.read_text()) == (3, ONE, ONE)
        assert kinds(backups) == ["change", "restore"]
        assert run(f"mcprestore {told['backup_of_current']}")[0] == 0
        assert config.read_text() == TWO

    @pytest.mark.edge(20)
    def test_restoring_the_latest_twice_does_not_go_back(self, run, config):
        apply(TWO, config)
        for _ in range(2):
            assert run("mcprestore latest")[0] == 0
            assert config.read_text() == ONE

    @pytest.mark.edge(20)
    def test_over_a_damaged_file_and_what_it_held_is_kept(self, run, config, backups):
        run("mcpbackup create")
        config.write_bytes(b"mcpServers: [\xff")
        told = run("mcprestore latest")[1]
        assert (config.read_text(), selectors.head_number()) == (ONE, 1)
        held = json.loads(Path(told["backup_of_current"]).read_text())["sections"]["config"]
        assert held["file"] == "bWNwU2VydmVyczogW/8="

    def test_a_dry_run_tells_and_changes_nothing(self, run, config, backups):
        apply(TWO, config)
        before, before_kinds = state(config), kinds(backups)
        code, told = run("mcprestore latest --dry-run")
        assert (code, told["dry_run"], told["changes"]["config"]["changes"]) == (0, True, True)
        assert (state(config), kinds(backups)) == (before, before_kinds)

    @pytest.mark.edge(5)
    @pytest.mark.edge(20)
    def test_a_key_that_was_revoked_since_stays_revoked(self, run, config):
        keys_services.generate(name="main", actor="test")
        keys_services.generate(name="leaked", actor="test")
        run("mcpbackup create")
        keys_services.revoke(name="leaked", actor="test")
        keys_services.generate(name="young", actor="test")
        run("mcprestore latest")
        assert key_words() == [("main", "active"), ("leaked", "revoked"), ("young", "active")]

    @pytest.mark.edge(20)
    def test_nor_does_it_open_again_where_the_database_was_lost_and_only_another_backup_remembers(self, run, config):
        keys_services.generate(name="main", actor="test")
        keys_services.generate(name="leaked", actor="test")
        old = run("mcpbackup create")[1]["file"]
        keys_services.revoke(name="leaked", actor="test")
        run("mcpbackup create")
        ApiKey.objects.all().delete()
        told = run(f"mcprestore {old}")[1]
        assert [one["revoked"] for one in told["changes"]["keys"]["added"]] == [False, True]
        assert key_words() == [("main", "active"), ("leaked", "revoked")]

    @pytest.mark.edge(20)
    def test_tools_that_were_approved_are_not_trusted_anew_after_the_database_was_lost(self, run, config):
        def seen(digest):
            pins.observe("a", "warn", Sighting({"tool": digest}, {"tool": b"{}"}))
            return selectors.tool_pins()["a"]["tool"]

        then, now = "0" * 64, "f" * 64
        seen(then)
        run("mcpbackup create")
        ToolPin.objects.all().delete()
        assert seen(now) == Pin(now, now)  # met for the first time, it seems
        news = selectors.newest_tool_event()
        assert run("mcprestore latest")[1]["changes"]["pins"] == {"pinned": {"a": 1}}
        assert selectors.tool_pins()["a"]["tool"] == Pin(then, now)
        assert selectors.newest_tool_event() > news
        pins.approve("a", None, actor="somebody")
        assert run("mcprestore latest")[1]["changes"]["pins"] == {"pinned": {}}
        assert selectors.tool_pins()["a"]["tool"] == Pin(now, now)

    @pytest.mark.parametrize(("only", "head", "words"), [("config", ONE, []), ("keys", TWO, [("main", "active")])])
    def test_only_what_was_asked_for(self, run, config, only, head, words):
        keys_services.generate(name="main", actor="test")
        apply(TWO, config)
        ApiKey.objects.all().delete()
        assert run(f"mcprestore latest --only {only}")[1]["restored"] == [only]
        assert (config.read_text(), key_words()) == (head, words)

    @pytest.mark.edge(8)
    @pytest.mark.edge(20)
    def test_the_last_known_good_configuration_is_taken_when_it_is_a_revision(self, run, config):
        config.write_text("mcpServers: [")
        good = files.last_known_good(config)
        assert run(f"mcprestore {good}")[1]["restored"] == ["config"]
        assert config.read_text() == ONE
        good.write_text(ONE.replace("one", "won"))
        before = state(config)
        code, told = run(f"mcprestore {good}")
        assert (code, told["error"], state(config)) == (1, "damaged", before)
        assert run(f"mcprestore {good} --only keys")[0] == 2


class TestRefusing:
    @pytest.mark.edge(20)
    def test_a_damaged_one_changes_nothing_and_the_newest_whole_one_is_named(self, run, config, backups):
        good = run("mcpbackup create")[1]["file"]
        apply(TWO, config)
        damage(backups / folder.LATEST)
        for one in folder.kept(backups):
            if str(one.path) != good:
                damage(one.path)
        before = state(config)
        code, told = run("mcprestore latest")
        assert (code, told["error"], told["hint"]) == (1, "damaged", f"the newest that is whole: mcprestore {good}")
        assert state(config) == before

    def test_one_that_is_not_there_is_not_found(self, run):
        assert run("mcprestore latest")[0] == 5

    @pytest.mark.edge(20)
    @pytest.mark.parametrize(
        ("sections", "code", "error"),
        [
            ({"config": {"text": "version: 9", "sha256": "00"}}, 1, "invalid_backup"),
            ({"config": {"text": "version: [", "sha256": "eee8ea4e0fba78b4"}}, 1, "invalid_backup"),
            ({"config": ["x"]}, 1, "invalid_backup"),
            ({"keys": [{"id": "x"}]}, 1, "invalid_backup"),
            ({"keys": {}}, 1, "invalid_backup"),
            ({"settings": 7}, 1, "invalid_backup"),
            ({"pins": {"a": {"t": ["short", "2026-11-22T12:00:00+00:00", "x"]}}}, 1, "invalid_backup"),
            ({"pins": ["a"]}, 1, "invalid_backup"),
            ({"pins_of_the_future": {}}, 1, "newer_version"),
            ({}, 1, "invalid_backup"),
        ],
    )
    def test_a_whole_file_that_does_not_hold_what_it_should_changes_nothing(
        self, run, config, tmp_path, sections, code, error
    ):
        before = state(config)
        forged = document.encode(sections, kind="daily", created_at=datetime.now(UTC), product="0.1.0")
        (tmp_path / "forged.json").write_bytes(forged)
        refused, told = run(f"mcprestore {tmp_path}/forged.json")
        assert (refused, told["error"], state(config)) == (code, error, before)

    @pytest.mark.edge(8)
    def test_a_configuration_that_is_not_valid_here_changes_nothing(self, run, config, tmp_path):
        text = "version: 1\nmcpServers: {a: {url: 7}}\n"
        config_section = {"text": text, "sha256": digest(text)}
        forged = document.encode(
            {"config": config_section}, kind="daily", created_at=datetime.now(UTC), product="0.1.0"
        )
        (tmp_path / "forged.json").write_bytes(forged)
        before = state(config)
        code, told = run(f"mcprestore {tmp_path}/forged.json")
        assert (code, told["error"], state(config)) == (3, "invalid_config", before)

    def test_what_cannot_be_backed_up_first_is_not_restored(self, run, config, settings):
        backup = run("mcpbackup create")[1]["file"]
        apply(TWO, config)
        before = state(config)
        settings.MCP_BACKUP_DIR = Path("/sys/kernel/backups")
        assert run(f"mcprestore {backup}")[1]["error"] == "read_only"
        assert state(config) == before


def damage(path):
    with open(path, "r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(bytes([byte[0] ^ 1]))


def test_a_folder_of_backups_that_cannot_be_read_is_not_shown_as_empty(home, settings):
    settings.MCP_BACKUP_DIR = home / "loop"
    settings.MCP_BACKUP_DIR.symlink_to(settings.MCP_BACKUP_DIR)
    for command in (mcpbackup.List(print).run, lambda: mcpbackup.Verify(print).run(files=[])):
        with pytest.raises(GatewayError) as refused:
            command()
        assert refused.value.code == "unreadable"
