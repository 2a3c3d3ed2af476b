"""The line per request, made from pieces: what comes again in every line is encoded and searched for secrets once.

Made whole, a line costs 11 µs of a core, a twentieth of the request that it tells of; with facts that were seen before, two.
Pure but for what it remembers, which is bounded.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import Any

# Facts of one request: methods, keys, remotes, tools. Names come from clients, so neither their number nor their length is ours.
_REMEMBERED_MAX = 2048
_REMEMBERED_CHARS = 512
# Equal values of these types read alike in JSON (`True` equals 1, and does not).
_PLAIN = frozenset({str, int})

_Facts = tuple[tuple[str, ...], tuple[Any, ...]]


class AccessLines:
    """`whole` makes a document's line the long way: cut, escaped, redacted."""

    def __init__(self, whole: Callable[[dict[str, Any]], str], origin: dict[str, Any]) -> None:
        self._whole = whole
        self._origin = dict(origin)
        self._beginning = _inside(whole(origin))
        self._remembered: dict[_Facts, str] = {}
        self._second = -1
        self._until_second = ""

    def line(self, at: float, fields: Mapping[str, Any], request: str, ms: float) -> str:
        """`request` and `ms` are our own words; everything in `fields` may be a stranger's."""
        beginning = f'{{"time":"{self._stamp(at)}",{self._beginning},"request":{encode_basestring_ascii(request)}'
        return f'{beginning}{self._said(fields)},"ms":{ms!r}}}'

    def _said(self, fields: Mapping[str, Any]) -> str:
        values = tuple(fields.values())
        if not _PLAIN.issuperset(map(type, values)):
            return self._told(fields)
        facts = tuple(fields), values
        said = self._remembered.get(facts)
        if said is None:
            said = self._told(fields)
            if len(said) <= _REMEMBERED_CHARS:
                if len(self._remembered) >= _REMEMBERED_MAX:
                    self._remembered.clear()
                self._remembered[facts] = said
        return said

    def _told(self, fields: Mapping[str, Any]) -> str:
        ours = {"time", "request", "ms", *self._origin}
        told = _inside(self._whole({f"{name}_" if name in ours else name: value for name, value in fields.items()}))
        return told and f",{told}"

    def _stamp(self, at: float) -> str:
        second = int(at)
        if second != self._second:
            self._second = second
            self._until_second = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._until_second}{int((at - second) * 1000):03d}Z"


def _inside(line: str) -> str:
    return line[1:-1]
