"""The ground every test stands on: an environment of its own, set before Django reads it.

pyproject names no settings module for pytest: pytest-django would load it before this file could say where its folders are.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis

from tests.neighbours import pytest_xdist_make_scheduler

__all__ = ["pytest_xdist_make_scheduler"]

# How many examples a property is tried with; no test names a number of its own, nor a time that an example may take. The same
# code is tried with the same examples every time; to look for new ones: pytest --hypothesis-profile=exploring.
hypothesis.register_profile("quick", deadline=None, derandomize=True, max_examples=25)
hypothesis.register_profile("thorough", deadline=None, derandomize=True, max_examples=200)
hypothesis.register_profile("exploring", deadline=None, max_examples=1000)
hypothesis.load_profile("thorough" if os.environ.get("CI") else "quick")

HOME = Path(tempfile.mkdtemp(prefix="mcp-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

_ENVIRONMENT = {
    "DJANGO_SETTINGS_MODULE": "mcpserver.settings",
    "SECRET_KEY": "only-for-tests",
    "HOST": "127.0.0.1",
    # MCP_TEST_DATABASE_URL: the same tests on a PostgreSQL whose user may create databases.
    "DATABASE_URL": os.environ.get("MCP_TEST_DATABASE_URL") or f"sqlite:///{HOME}/data/gateway.sqlite3",
    "REDIS_URL": "",
    "LOG_LEVEL": "info",
    "MCP_OUTPUT": "json",
    "MCP_CONFIG": str(HOME / "mcp-config.yaml"),
    "MCP_WORKERS": "1",
}
_FOLDERS = {"MCP_DATA_DIR": "data", "MCP_LOG_DIR": "logs", "MCP_BACKUP_DIR": "backups", "MCP_RUN_DIR": "run"}

os.environ.update(_ENVIRONMENT)
for _variable, _name in _FOLDERS.items():
    (HOME / _name).mkdir()
    os.environ[_variable] = str(HOME / _name)

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402

# A connection kept open by one test would be looked after in another, which pytest-django may have forbidden the database.
settings.DATABASES["default"]["CONN_MAX_AGE"] = 0


@pytest.fixture(scope="session")
def django_db_modify_db_settings():
    """A real SQLite file: the in-memory one is shared between threads by rules that no gateway ever runs under."""
    from django.db import connections

    if connections["default"].vendor == "sqlite":
        connections["default"].settings_dict["TEST"]["NAME"] = str(HOME / "test.sqlite3")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """What a test logged travels between processes as UTF-8, which a lone surrogate is not."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "replace").decode()) for name, text in report.sections]
    return report
