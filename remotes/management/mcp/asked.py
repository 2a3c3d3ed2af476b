"""Words of the command line that mean rows of the database."""

from keys import selectors
from mcpserver.lib.clock import SystemClock
from mcpserver.lib.database import UNUSABLE


def ids(key: str) -> frozenset[str]:
    """The ids of a key's name; what nobody is called is an id. Without a database too."""
    if not key:
        return frozenset()
    try:
        rows = selectors.list_keys(SystemClock().now(), ended=True)
    except UNUSABLE:
        rows = []
    return frozenset(row["id"] for row in rows if row["name"] == key) or frozenset({key})
