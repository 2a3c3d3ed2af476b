"""Spans of time as people write them on a command line: `90d`, `24h`, `30m`, `45s`, `0`. Pure."""

import re
from datetime import timedelta

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
# A century: longer is a slip of the finger, and would leave the calendar.
_MAX = timedelta(days=36525)


def duration(text: str) -> timedelta:
    """Raise ValueError for what is not a span. Only zero may go without a unit."""
    match = re.fullmatch(r"(\d{1,12})([smhdw]?)", text.strip().lower(), flags=re.ASCII)
    if match is None or (not match[2] and int(match[1])):
        raise ValueError(f"{text!r} is not a duration such as 90d, 24h, 30m or 0")
    seconds = int(match[1]) * _SECONDS.get(match[2], 0)
    if seconds > _MAX.total_seconds():
        raise ValueError(f"{text!r} is longer than a century")
    return timedelta(seconds=seconds)
