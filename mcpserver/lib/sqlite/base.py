"""The name and place are Django's: an ENGINE is a package with a `base` that has a `DatabaseWrapper`."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from django.db.backends.sqlite3 import base

from mcpserver.lib import ballast


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if not self.is_in_memory_db():
            database = Path(conn_params["database"]).absolute()
            try:
                ballast.make_room(database)
            except OSError:
                raise sqlite3.OperationalError("database or disk is full") from None  # in SQLite's own words
            if not database.exists():
                with contextlib.suppress(OSError):  # where it cannot be made, SQLite says so
                    database.touch(mode=0o600)  # what it keeps is for nobody else
        return super().get_new_connection(conn_params)
