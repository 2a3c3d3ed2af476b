"""What a process says beside the protocol: so many lines a second reach the log, the others are counted, none is kept.

Words of a process are foreign words: control characters are spelled out, and the secrets that its entry gives it are masked,
by value because a program prints them in ways of its own.
"""

import logging
import re
from collections.abc import Mapping

from mcpserver.lib import redact
from mcpserver.protocol import results

log = logging.getLogger("mcp.upstream")

LINES_PER_S = 20
# Lines of stdout that are no messages say little more than that they are there.
NOISE_PER_S = 2
_LINE_MAX = 500
# Of a line: masked before it is cut, or the cut would hide half a secret from the mask.
_KEPT_BYTES = 4096
# A value shorter than this would be found inside ordinary words.
_SECRET_MIN = 6
_SECRET_NAME = re.compile(r"key|token|secret|pass|pwd|auth|cred|pat$|dsn$|_url$", re.IGNORECASE)


class Overheard:
    """`now` is the loop's seconds."""

    def __init__(self, name: str, env: Mapping[str, str]) -> None:
        self.last_words = ""
        self._name = name
        secrets = {value for key, value in env.items() if _SECRET_NAME.search(key) and len(value) >= _SECRET_MIN}
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._window, self._logged, self._noisy, self._dropped = float("-inf"), 0, 0, 0
        self._rest = b""

    def chunk(self, raw: bytes, now: float) -> None:
        """A piece of stderr, cut anywhere."""
        self._turn(now)
        *lines, rest = (self._rest + raw).split(b"\n", max(1, LINES_PER_S - self._logged))
        skipped, newline, rest = rest.rpartition(b"\n")  # more lines than may be logged now are not even cut apart
        if newline:
            self._dropped += skipped.count(b"\n")
            lines.append(skipped.rpartition(b"\n")[2])
        self._rest = rest[:_KEPT_BYTES]
        for line in lines:
            self._line(line, now)

    def end(self, now: float) -> None:
        """The process is gone: say what is left to say."""
        self._line(self._rest, now)
        self._rest = b""
        self._flush()

    def noise(self, line: bytes, why: str, now: float) -> None:
        """A line of stdout that is no message."""
        self._turn(now)
        if self._noisy < NOISE_PER_S:
            self._noisy += 1
            self.say(logging.WARNING, f"wrote to stdout what is no message ({why}): {self.safe(line)[:200]}", now)
        else:
            self._dropped += 1

    def say(self, level: int, text: str, now: float) -> None:
        """A line about what the process wrote; beyond so many a second they are counted instead."""
        self._turn(now)
        if self._logged < LINES_PER_S:
            self._logged += 1
            log.log(level, "%s: %s", self._name, text, extra={"remote": self._name})
        else:
            self._dropped += 1

    def safe(self, raw: bytes) -> str:
        text = results.untrusted(raw)
        for secret in self._secrets:
            text = text.replace(secret, redact.MASK)
        return redact.text(text)

    def _line(self, line: bytes, now: float) -> None:
        if text := self.safe(line.strip())[:_LINE_MAX]:
            self.last_words = text
            self.say(logging.INFO, text, now)

    def _turn(self, now: float) -> None:
        if now - self._window >= 1:
            self._flush()
            self._window, self._logged, self._noisy = now, 0, 0

    def _flush(self) -> None:
        if self._dropped:
            log.warning("%s: %d more lines were dropped", self._name, self._dropped, extra={"remote": self._name})
        self._dropped = 0
